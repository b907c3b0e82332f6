/**
 * What the watchdog does, without its process, sockets and files: beats, and in them how the agent is and whose kernels it heard.
 * main.ts runs it on a machine, the simulator in memory.
 */

import { splitHostPort } from '#proto/host-port.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { describe } from '#proto/kernel/errors.ts';
import { type KernelProbe, probeMs } from '#proto/kernel-probe.ts';
import type { HeartbeatTarget } from '../heartbeat.ts';
import type { ProcStat } from '../proc-stat.ts';
import { Beats, type BeatsParts } from './beats.ts';
import { conditionOf, loopLagMs } from './condition.ts';
import type { LeaseFile } from './lease-file.ts';
import { type AgentWord, type BeatIdentity, protocol, type WatchdogWord } from './protocol.ts';

/** A connection of an agent. */
export interface AgentLink {
  say(word: WatchdogWord): void;
}

export interface WatchdogParts extends Pick<BeatsParts, 'dial'> {
  /** As `Heartbeat.keepWarm`. */
  readonly keepWarm: (addresses: readonly string[], identity?: BeatIdentity) => void;
  readonly clock: Clock;
  readonly probe: KernelProbe;
  readonly lease: Pick<LeaseFile, 'renew'>;
  /** What the kernel says of a process now; undefined: there is none. */
  readonly statOf: (pid: number) => ProcStat | undefined;
  /** What it was started as, and its own process. */
  readonly build: string;
  readonly pid: number;
  /** Why a lease cannot be written; empty: it can. */
  readonly complain: (why: string) => void;
}

interface Agent {
  readonly link: AgentLink;
  readonly pid: number;
  readonly startTicks: number;
}

export class Watchdog {
  readonly #parts: WatchdogParts;
  readonly #beats: Beats;
  #agent: Agent | undefined;
  #connected = false;
  #turnedAtMs: number;
  #target: HeartbeatTarget | undefined;
  /** What was heard of others, for the next beat. */
  #heard: { nodeId: string; answered: boolean }[] = [];

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
    const { clock, dial } = parts;
    this.#turnedAtMs = clock.monotonic();
    this.#beats = new Beats({
      clock,
      dial,
      say: () => this.#say(),
      reaches: (address) => parts.probe(splitHostPort(address).host, probeMs),
      probe: (orders) => {
        for (const { nodeId, address } of orders) void this.#probe(nodeId, address);
      },
      leased: (untilMs) => this.#renew(untilMs),
      expelled: () => parts.keepWarm([]),
      heard: () => this.#tell('heard'),
      silent: () => this.#tell('silent'),
    });
  }

  /** What an agent says, but for `charge` and `end`. The one that said hello last is looked after. */
  take(link: AgentLink, word: AgentWord): void {
    const { clock, statOf, build, pid } = this.#parts;
    switch (word.say) {
      case 'hello':
        this.#agent = { link, pid: word.pid, startTicks: statOf(word.pid)?.startTicks ?? 0 };
        this.#connected = true;
        this.#turnedAtMs = clock.monotonic();
        this.#target = undefined;
        link.say({ say: 'hello', protocol, build, pid });
        break;
      case 'aim':
        this.#target = word.target;
        if (word.target) this.#beats.aim(word.target, word.addresses, word.identity);
        break;
      case 'keep-warm':
        this.#parts.keepWarm(word.addresses, word.identity);
        break;
      case 'turn':
        this.#turnedAtMs = clock.monotonic();
        link.say({ say: 'turn', sequence: word.sequence });
        break;
    }
  }

  /** The connection has ended. */
  left(link: AgentLink): void {
    if (this.#agent?.link === link) this.#connected = false;
  }

  #tell(say: 'heard' | 'silent'): void {
    if (this.#target) this.#agent?.link.say({ say, session: this.#target.session });
  }

  #say(): ReturnType<BeatsParts['say']> {
    const { clock, statOf } = this.#parts;
    const { pid = 0, startTicks = 0 } = this.#agent ?? {};
    const stat = statOf(pid);
    const sinceTurnMs = clock.monotonic() - this.#turnedAtMs;
    const condition = conditionOf({ stat, startTicks, connected: this.#connected, sinceTurnMs });
    const probes = this.#heard;
    this.#heard = [];
    return {
      session: this.#target?.session ?? 0,
      loopLagMs: loopLagMs(sinceTurnMs),
      condition,
      probes,
      atMs: clock.now(),
    };
  }

  async #probe(nodeId: string, address: string): Promise<void> {
    const answered = await this.#parts.probe(address, probeMs);
    this.#heard.push({ nodeId, answered });
    this.#beats.beatNow();
  }

  #renew(untilMs: number): void {
    try {
      this.#parts.lease.renew(untilMs);
      this.#parts.complain('');
    } catch (error) {
      // Then the lease ends, and the beats go on.
      this.#parts.complain(describe(error));
    }
  }
}
