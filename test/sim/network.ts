/** The line between agents and replicas: streams in order over links that can be slow, cut in one direction or both, or broken. */
import type { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import type { Heartbeat } from '#node-agent/heartbeat.ts';
import type { Connection, Transport } from '#node-agent/transport.ts';
import type { BeatLine } from '#node-agent/watchdog/beats.ts';
import { AgentMessage, type Beat, type BeatAck, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { KernelProbe } from '#proto/kernel-probe.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { MessageStream } from '#proto/stream.ts';
import { MemoryHeartbeat } from '#test/support/memory-transport.ts';
import type { Process } from './process.ts';
import { type Line, type Party, Stream } from './stream.ts';

interface Listener extends Party {
  readonly dispatch: Dispatch;
}

/** A cut line that is mended: TCP tries again within so long. */
const retransmitMs = 400;

export class SimNetwork implements Line {
  readonly clock: Clock;
  readonly #random: Random;
  readonly #listeners = new Map<string, Listener>();
  /** How often each machine is cut off in the direction of each other. */
  readonly #cuts = new Map<string, Map<string, number>>();
  readonly #slow = new Map<string, number>();
  /** In one direction. */
  readonly #lags = new Map<string, number>();
  /** Percent of what a machine sends or is sent that is lost. */
  readonly #lossy = new Map<string, number>();
  readonly #kernels = new Map<string, { readonly machine: string; readonly answers: () => boolean }>();
  readonly #streams = new Set<Stream>();

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.#random = random;
  }

  listen(address: string, listener: Listener): void {
    this.#listeners.set(address, listener);
  }

  /** Nothing gets from one machine to the other until the result is called. */
  cut(from: string, to: string): () => void {
    const cuts = this.#cuts.get(from) ?? new Map<string, number>();
    this.#cuts.set(from, cuts);
    cuts.set(to, (cuts.get(to) ?? 0) + 1);
    return () => {
      const left = cuts.get(to)! - 1;
      if (left > 0) {
        cuts.set(to, left);
        return;
      }
      cuts.delete(to);
      if (cuts.size === 0) this.#cuts.delete(from);
      for (const stream of this.#streams) stream.mended(from, to);
    };
  }
  isCut(from: string, to: string): boolean {
    return this.#cuts.size > 0 && (this.#cuts.get(from)?.has(to) ?? false);
  }
  /** Added to every message from or to the machine. */
  slow(machine: string, ms: number): void {
    if (ms > 0) this.#slow.set(machine, ms);
    else this.#slow.delete(machine);
  }
  /** Added to every message from one machine to the other; not to those back. */
  lag(from: string, to: string, ms: number): void {
    if (ms > 0) this.#lags.set(`${from}>${to}`, ms);
    else this.#lags.delete(`${from}>${to}`);
  }
  /** Of every packet to and from the machine, so many percent are lost: TCP sends again, later; a datagram is gone. */
  lose(machine: string, percent: number): void {
    if (percent > 0) this.#lossy.set(machine, percent);
    else this.#lossy.delete(machine);
  }
  /** It loses packets, or is slow. */
  isPoor(machine: string): boolean {
    const lags = this.#lags.size > 0 && [...this.#lags.keys()].some((link) => link.split('>').includes(machine));
    return lags || this.#lossy.has(machine) || this.#slow.has(machine);
  }
  /** What is on one of the machine's streams, drawn at random, takes so much longer: TCP sends again there while others go on. False: it has none. */
  hinder(machine: string, ms: number): boolean {
    const streams = [...this.#streams].filter((stream) => stream.touches(machine));
    const stream = streams[this.#random.int(Math.max(1, streams.length))];
    stream?.hinder(ms);
    return stream !== undefined;
  }
  #isLost(from: string, to: string): boolean {
    if (this.#lossy.size === 0) return false;
    const percent = (this.#lossy.get(from) ?? 0) + (this.#lossy.get(to) ?? 0);
    return this.#random.int(100) < percent;
  }
  latencyMs(from: string, to: string): number {
    const slowMs = this.#slow.size === 0 ? 0 : (this.#slow.get(from) ?? 0) + (this.#slow.get(to) ?? 0);
    const lagMs = this.#lags.size === 0 ? 0 : (this.#lags.get(`${from}>${to}`) ?? 0);
    return 0.2 + this.#random.int(20) / 10 + (slowMs > 0 ? this.#random.int(slowMs) : 0) + lagMs;
  }
  transitMs(from: string, to: string): number {
    const againMs = this.#isLost(from, to) ? 200 + this.#random.int(retransmitMs) : 0;
    return this.latencyMs(from, to) + againMs;
  }
  retransmitMs(): number {
    return this.#random.int(retransmitMs);
  }

  /** One datagram's way; it never resolves where it is lost, or the line is cut. */
  hop(from: string, to: string): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isLost(from, to)) return;
      this.clock.after(this.latencyMs(from, to), () => {
        if (!this.isCut(from, to)) resolve();
      });
    });
  }

  /** Every stream of the machine breaks, and both ends learn it. */
  reset(machine: string): void {
    for (const stream of [...this.#streams]) if (stream.touches(machine)) stream.reset();
  }
  /** The process has ended: its kernel closes what it had open. */
  ended(process: Process): void {
    for (const stream of [...this.#streams]) stream.left(process);
  }
  /** The power is off: nobody closes anything. What others still send there is answered with a reset once it is back. */
  vanished(machine: string): void {
    for (const stream of this.#streams) stream.vanished(machine);
  }

  /** As `party` dials, with the certificate of `node`. */
  transport(party: Party, node: NodeId): Transport {
    return {
      connect: (address): Connection => {
        const open: MessageStream<never, never>[] = [];
        return {
          session: () => {
            const stream = this.#dial(party, address, copyUp, copyDown, (to, server) =>
              to.dispatch.connect(node, server),
            );
            open.push(stream as never);
            return stream;
          },
          relay: () => {
            throw new Fault('unsupported', 'nobody opens relays in a simulation');
          },
          renew: async () => {
            throw new Fault('unsupported', 'certificates do not age in a simulation');
          },
          isThere: () => false,
          close: () => {
            for (const stream of open) stream.close(new Fault('cancelled', 'the connection was dropped'));
          },
          release() {
            this.close();
          },
        };
      },
      keepWarm() {},
    };
  }

  heartbeat(party: Party, node: NodeId, leased: (untilMs: number) => void): Heartbeat {
    const dial = (address: string) =>
      this.#dial<Beat, BeatAck>(party, address, same, same, (to, server) => to.dispatch.beats(node, server));
    return new MemoryHeartbeat(party.process, ({ address }) => dial(address), leased);
  }

  /** Of the watchdog of `node`'s machine. */
  beatLine(party: Party, node: NodeId, address: string): BeatLine {
    const open: { close(fault: Fault): void }[] = [];
    return {
      open: () => {
        const stream = this.#dial<Beat, BeatAck>(party, address, same, same, (to, server) =>
          to.dispatch.beats(node, server),
        );
        open.push(stream);
        return stream;
      },
      close: () => {
        for (const stream of open) stream.close(new Fault('cancelled', 'the connection was dropped'));
      },
      release() {
        this.close();
      },
    };
  }

  /** Who is at an address of the hosts' network, and whether its kernel answers what arrives there. */
  plug(address: string, machine: string, answers: () => boolean): void {
    this.#kernels.set(address, { machine, answers });
  }

  /** As `kernelProbe` asks: three attempts, of which one answer is enough, and what arrived while the process stood still counts. */
  probe({ machine, process }: Party): KernelProbe {
    return (address, withinMs) =>
      new Promise((resolve) => {
        const kernel = this.#kernels.get(address);
        const attempt = async () => {
          if (!kernel) return;
          await this.hop(machine, kernel.machine);
          if (!kernel.answers()) return;
          await this.hop(kernel.machine, machine);
          process.do(() => resolve(true));
        };
        for (const afterMs of [0, 100, 200]) process.after(afterMs, () => void attempt());
        process.after(withinMs, () => process.after(0, () => resolve(false)));
      });
  }

  #dial<Up, Down>(
    party: Party,
    address: string,
    copyUp: (message: Up) => Up,
    copyDown: (message: Down) => Down,
    accept: (to: Listener, stream: MessageStream<Up, Down>) => void,
  ): MessageStream<Down, Up> {
    const machine = address.split(':')[0]!;
    const stream = new Stream(this, party, machine, copyUp as never, copyDown as never, () => {
      const listener = this.#listeners.get(address);
      if (!listener?.process.alive) return undefined;
      return { party: listener, accept: (server) => accept(listener, server as never) };
    });
    this.#streams.add(stream);
    stream.gone = () => this.#streams.delete(stream);
    return stream.caller as never;
  }
}

const same = <T>(message: T): T => message;
const copyUp = (message: AgentMessage) => AgentMessage.decode(AgentMessage.encode(message).finish());
/** What goes to many sessions is encoded once, as by the real server; and decoded once, for agents change nothing in it. */
const copies = new WeakMap<ControlMessage, ControlMessage>();
const copyDown = (message: ControlMessage) => {
  const copy = copies.get(message) ?? ControlMessage.decode(ControlMessage.encode(message).finish());
  copies.set(message, copy);
  return copy;
};
