/** The agent's side of its watchdog: adopts the one that is there or starts one, aims it, and replaces it when it hangs or dies. */
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Heartbeat, HeartbeatTarget } from '../heartbeat.ts';
import { loopPeriodMs } from './condition.ts';
import { watchdogOf } from './dismiss.ts';
import {
  type AgentWord,
  type BeatIdentity,
  hear,
  protocol,
  say,
  type WatchdogWord,
  watchdogSocket,
} from './protocol.ts';

export interface WatchdogParts {
  readonly clock: Clock;
  readonly log: Log;
  /** The agent's run directory. */
  readonly run: string;
  /** Of this boot of the machine: leases are by its clock. */
  readonly bootId: string;
  /** Names the agent's code: a watchdog of another one is replaced. */
  readonly version: string;
  /** HOST:PORT of the control plane's replicas. */
  readonly addresses: readonly string[];
  /** Asked at each aim. */
  readonly identity: () => BeatIdentity;
}

const program = fileURLToPath(new URL('./main.ts', import.meta.url));
/** Little memory: it does one thing, five times a second. */
const flags = ['--max-semi-space-size=1', '--max-old-space-size=48', '--v8-pool-size=0'];
/** Turns of our own loop, each in time, that a watchdog may leave unanswered. */
const unansweredTurns = 6;
/** A turn this late says that it was us who stood still. */
const lateMs = 3 * loopPeriodMs;
/** One that has not come up by then is started again. */
const startMs = 5_000;
const againMs = 500;
const lookMs = 20;

export function watchdogHeartbeat(parts: WatchdogParts): Heartbeat {
  return new WatchdogLink(parts);
}

class WatchdogLink implements Heartbeat {
  readonly #parts: WatchdogParts;
  readonly #build: string;
  #socket: Socket | undefined;
  /** It has answered our hello. */
  #greeted = false;
  #target: HeartbeatTarget | undefined;
  #listener: () => void = () => {};
  #sequence = 0;
  #unanswered = 0;
  #turnedAtMs: number;
  #turnTimer: Timer | undefined;
  #startTimer: Timer | undefined;
  #closed = false;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
    this.#build = `${parts.version} ${program}`;
    this.#turnedAtMs = parts.clock.monotonic();
    if (watchdogOf(parts.run) === undefined) this.#start('there is none');
    else this.#dial();
    this.#turn();
  }

  aim(target: HeartbeatTarget | undefined): void {
    this.#target = target;
    this.#sayAim();
  }

  onSilence(listener: () => void): void {
    this.#listener = listener;
  }

  /** The watchdog lives on: it says that the agent is gone. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#turnTimer?.cancel();
    this.#startTimer?.cancel();
    this.#socket?.destroy();
  }

  #dial(): void {
    const socket = connect(watchdogSocket(this.#parts.run));
    this.#socket?.destroy();
    this.#socket = socket;
    this.#greeted = false;
    this.#unanswered = 0;
    socket.unref();
    socket.on('error', () => {}); // 'close' follows.
    socket.on('close', () => {
      if (this.#socket === socket) this.#start('it has ended');
    });
    hear<WatchdogWord>(socket, (word) => {
      if (this.#socket === socket) this.#take(word);
    });
    this.#say({ say: 'hello', pid: process.pid });
  }

  #take(word: WatchdogWord): void {
    this.#unanswered = 0;
    if (word.say === 'silent') {
      if (word.session === this.#target?.session) this.#listener();
    } else if (word.say === 'hello') {
      if (word.protocol !== protocol || word.build !== this.#build) {
        this.#start('it is of another version');
        return;
      }
      this.#greeted = true;
      this.#parts.log.info('the watchdog keeps the beat', { pid: word.pid });
      this.#sayAim();
    }
  }

  #say(word: AgentWord): void {
    if (this.#socket) say(this.#socket, word);
  }

  #sayAim(): void {
    if (!this.#greeted) return;
    const { addresses, identity } = this.#parts;
    this.#say({ say: 'aim', target: this.#target, addresses, identity: identity() });
  }

  #turn(): void {
    const { clock } = this.#parts;
    const now = clock.monotonic();
    const late = now - this.#turnedAtMs > lateMs;
    this.#turnedAtMs = now;
    this.#turnTimer = clock.after(loopPeriodMs, () => this.#turn());
    if (!this.#socket || this.#startTimer) return;
    // What it answered while we stood still is still unread.
    this.#unanswered = late ? 0 : this.#unanswered + 1;
    if (this.#unanswered > unansweredTurns) this.#start('it does not answer');
    else this.#say({ say: 'turn', sequence: ++this.#sequence });
  }

  /** The new one takes the place of the old one, which ends only then: the beat does not pause for it. */
  #start(why: string): void {
    if (this.#closed || this.#startTimer) return;
    const { clock, log, run, bootId } = this.#parts;
    const socket = watchdogSocket(run);
    const former = watchdogOf(run);
    const before = inodeOf(socket);
    const child = spawn(process.execPath, [...flags, program, run, this.#build, bootId], {
      detached: true,
      stdio: ['ignore', 'ignore', 'inherit'],
      cwd: '/',
      env: { ...process.env, UV_THREADPOOL_SIZE: '1', MALLOC_ARENA_MAX: '1', NODE_OPTIONS: '' },
    });
    child.on('error', (error) => log.error('a watchdog cannot be started', { error }));
    child.unref();
    if (why !== 'there is none') log.warn('the watchdog is replaced', { why, ...(former && { pid: former }) });
    const began = clock.monotonic();
    const look = () => {
      const inode = inodeOf(socket);
      if (inode !== undefined && inode !== before) {
        this.#startTimer = undefined;
        this.#dial();
        if (former !== undefined && former !== child.pid) endQuietly(former);
      } else if (clock.monotonic() - began > startMs || child.exitCode !== null) {
        child.kill('SIGKILL');
        this.#startTimer = clock.after(againMs, () => {
          this.#startTimer = undefined;
          this.#start('it did not come up');
        });
      } else {
        this.#startTimer = clock.after(lookMs, look);
      }
    };
    this.#startTimer = clock.after(lookMs, look);
  }
}

function endQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}
