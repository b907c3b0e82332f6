/** The agent's side of its watchdog: adopts the one that is there or starts one, aims it, and replaces it when it hangs or dies. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
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
  ownSocket,
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
  /** Names the agent's code (own-code.ts): a watchdog of another one is replaced. */
  readonly build: string;
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
  #socket: Socket | undefined;
  /** It has answered our hello. */
  #greeted = false;
  /** Ours, until it is in charge. */
  #next: { readonly process: ChildProcess; readonly charge: 'when greeted' | 'when heard' } | undefined;
  /** The pid of the one in charge where it is well, and only of another version: it beats on until ours is heard. */
  #yielding: number | undefined;
  /** The one that ours takes the place of at this moment. */
  #former: number | undefined;
  #target: HeartbeatTarget | undefined;
  #warm: readonly string[] = [];
  #listener: () => void = () => {};
  #sequence = 0;
  #unanswered = 0;
  #turnedAtMs: number;
  #turnTimer: Timer | undefined;
  #startTimer: Timer | undefined;
  #closed = false;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
    this.#turnedAtMs = parts.clock.monotonic();
    if (watchdogOf(parts.run) === undefined) this.#start('there is none');
    else this.#dial(watchdogSocket(parts.run));
    this.#turn();
  }

  aim(target: HeartbeatTarget | undefined): void {
    this.#target = target;
    this.#sayAim();
  }

  keepWarm(addresses: readonly string[]): void {
    this.#warm = addresses;
    this.#sayWarm();
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

  #dial(path: string): void {
    const socket = connect(path);
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
    switch (word.say) {
      case 'hello':
        this.#greet(word);
        break;
      case 'heard':
        if (this.#next?.charge === 'when heard') this.#putInCharge();
        break;
      case 'charged':
        this.#charged();
        break;
      case 'silent':
        if (word.session === this.#target?.session) this.#listener();
    }
  }

  #greet(hello: WatchdogWord & { readonly say: 'hello' }): void {
    const { run, build, log } = this.#parts;
    const isOurs = this.#next !== undefined;
    if (isOurs && hello.protocol !== protocol) {
      log.error('the program on disk is of another version than this agent, which has no watchdog: restart the agent');
      this.#startIn(startMs, 'it is of another version');
      return;
    }
    if (hello.protocol !== protocol || hello.build !== build) {
      this.#yielding = watchdogOf(run);
      this.#start('it is of another version');
      return;
    }
    this.#greeted = true;
    log.info('the watchdog keeps the beat', { pid: hello.pid });
    this.#sayAim();
    this.#sayWarm();
    if (this.#next?.charge === 'when greeted') this.#putInCharge();
  }

  #putInCharge(): void {
    this.#former = watchdogOf(this.#parts.run);
    this.#say({ say: 'charge' });
  }

  /** Only then the one before ends: the beat does not pause for it. */
  #charged(): void {
    if (this.#former !== undefined) endQuietly(this.#former);
    this.#next = undefined;
    this.#yielding = undefined;
  }

  #say(word: AgentWord): void {
    if (this.#socket) say(this.#socket, word);
  }

  #sayAim(): void {
    if (!this.#greeted) return;
    const { addresses, identity } = this.#parts;
    this.#say({ say: 'aim', target: this.#target, addresses, identity: identity() });
  }

  #sayWarm(): void {
    if (this.#greeted) this.#say({ say: 'keep-warm', addresses: this.#warm, identity: this.#parts.identity() });
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

  /**
   * One more watchdog. It takes charge as soon as it can be spoken to; where the one before is well, and only of another version,
   * not before its own beats are acknowledged, which takes a session of ours.
   */
  #start(why: string): void {
    if (this.#closed || this.#startTimer) return;
    const { clock, log, run, build, bootId } = this.#parts;
    this.#next?.process.kill('SIGKILL');
    const former = watchdogOf(run);
    const child = spawn(process.execPath, [...flags, program, run, build, bootId], {
      detached: true,
      stdio: ['ignore', 'ignore', 'inherit'],
      cwd: '/',
      env: { ...process.env, UV_THREADPOOL_SIZE: '1', MALLOC_ARENA_MAX: '1', NODE_OPTIONS: '' },
    });
    child.on('error', (error) => log.error('a watchdog cannot be started', { error }));
    child.unref();
    const isPatient = former !== undefined && former === this.#yielding;
    this.#next = { process: child, charge: isPatient ? 'when heard' : 'when greeted' };
    if (why !== 'there is none') log.warn('the watchdog is replaced', { why, ...(former && { pid: former }) });
    const began = clock.monotonic();
    const path = ownSocket(run, child.pid ?? 0);
    const look = () => {
      if (existsSync(path)) {
        this.#startTimer = undefined;
        this.#dial(path);
      } else if (clock.monotonic() - began > startMs || child.exitCode !== null) {
        this.#startIn(againMs, 'it did not come up');
      } else {
        this.#startTimer = clock.after(lookMs, look);
      }
    };
    this.#startTimer = clock.after(lookMs, look);
  }

  #startIn(ms: number, why: string): void {
    this.#startTimer = this.#parts.clock.after(ms, () => {
      this.#startTimer = undefined;
      this.#start(why);
    });
  }
}

function endQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
