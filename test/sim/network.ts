/** The line between agents and replicas: streams in order over links that can be slow, cut in one direction or both, or broken. */
import type { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import type { Heartbeat } from '#node-agent/heartbeat.ts';
import type { Connection, Transport } from '#node-agent/transport.ts';
import { AgentMessage, type Beat, type BeatAck, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { MessageStream, StreamListener } from '#proto/stream.ts';
import { MemoryHeartbeat } from '#test/support/memory-transport.ts';
import type { Process } from './process.ts';

/** Who is at an end of a stream: the machine, as links know it, and the process in it. */
export interface Party {
  readonly machine: string;
  readonly process: Process;
}

interface Listener extends Party {
  readonly dispatch: Dispatch;
}

type Item<T> = { readonly open: true } | { readonly message: T } | { readonly end: Fault | undefined };

/** Messages on their way before `send` says that it is full. */
const windowSize = 64;
/** A cut line that is mended: TCP tries again within so long. */
const retransmitMs = 400;

export class SimNetwork {
  readonly clock: Clock;
  readonly #random: Random;
  readonly #listeners = new Map<string, Listener>();
  readonly #cuts = new Map<string, number>();
  readonly #slow = new Map<string, number>();
  /** Percent of what a machine sends or is sent that is lost. */
  readonly #lossy = new Map<string, number>();
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
    const link = `${from}>${to}`;
    this.#cuts.set(link, (this.#cuts.get(link) ?? 0) + 1);
    return () => {
      this.#cuts.set(link, this.#cuts.get(link)! - 1);
      if (this.isCut(from, to)) return;
      for (const stream of this.#streams) stream.mended(from, to);
    };
  }
  isCut(from: string, to: string): boolean {
    return (this.#cuts.get(`${from}>${to}`) ?? 0) > 0;
  }
  /** Added to every message from or to the machine. */
  slow(machine: string, ms: number): void {
    this.#slow.set(machine, ms);
  }
  /** Of every packet to and from the machine, so many percent are lost: TCP sends again, later; a datagram is gone. */
  lose(machine: string, percent: number): void {
    if (percent > 0) this.#lossy.set(machine, percent);
    else this.#lossy.delete(machine);
  }
  #isLost(from: string, to: string): boolean {
    if (this.#lossy.size === 0) return false;
    const percent = (this.#lossy.get(from) ?? 0) + (this.#lossy.get(to) ?? 0);
    return this.#random.int(100) < percent;
  }
  latencyMs(from: string, to: string): number {
    const slowMs = (this.#slow.get(from) ?? 0) + (this.#slow.get(to) ?? 0);
    return 0.2 + this.#random.int(20) / 10 + (slowMs > 0 ? this.#random.int(slowMs) : 0);
  }
  /** Of one message in a stream. */
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
  vanished(process: Process): void {
    for (const stream of this.#streams) stream.vanished(process);
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
          close: () => {
            for (const stream of open) stream.close(new Fault('cancelled', 'the connection was dropped'));
          },
        };
      },
    };
  }

  heartbeat(party: Party, node: NodeId, leased: (untilMs: number) => void): Heartbeat {
    const dial = (address: string) =>
      this.#dial<Beat, BeatAck>(party, address, same, same, (to, server) => to.dispatch.beats(node, server));
    return new MemoryHeartbeat(party.process, ({ address }) => dial(address), leased);
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
/** What goes to many sessions is encoded once, as by the real server. */
const encoded = new WeakMap<ControlMessage, Uint8Array>();
const copyDown = (message: ControlMessage) => {
  const bytes = encoded.get(message) ?? ControlMessage.encode(message).finish();
  encoded.set(message, bytes);
  return ControlMessage.decode(bytes);
};

interface Answer {
  readonly party: Party;
  readonly accept: (server: MessageStream<unknown, unknown>) => void;
}

/** Both ends of one stream, and what is on its way between them. */
class Stream {
  readonly caller: End;
  readonly #server: End;
  readonly #network: SimNetwork;
  gone: () => void = () => {};

  constructor(
    network: SimNetwork,
    caller: Party,
    machine: string,
    copyUp: (message: unknown) => unknown,
    copyDown: (message: unknown) => unknown,
    answer: () => Answer | undefined,
  ) {
    this.#network = network;
    this.caller = new End(network, caller.machine, machine, copyUp);
    this.#server = new End(network, machine, caller.machine, copyDown);
    this.caller.peer = this.#server;
    this.#server.peer = this.caller;
    this.caller.process = caller.process;
    this.#server.opened = () => {
      const found = answer();
      if (!found) {
        this.#server.close(new Fault('unavailable', `nobody listens at ${machine}`));
        return;
      }
      this.#server.process = found.party.process;
      found.party.process.do(() => found.accept(this.#server));
    };
    this.caller.ended = () => this.gone();
    this.#server.ended = () => this.gone();
    this.caller.transmit({ open: true });
  }

  touches(machine: string): boolean {
    return this.caller.machine === machine || this.#server.machine === machine;
  }
  mended(from: string, to: string): void {
    for (const end of [this.caller, this.#server])
      if (end.machine === from && end.peer.machine === to) end.retransmit();
  }
  reset(): void {
    this.gone();
    for (const end of [this.caller, this.#server]) {
      this.#network.clock.after(1, () => end.break(new Fault('unavailable', 'the connection was reset')));
    }
  }
  left(process: Process): void {
    for (const end of [this.caller, this.#server]) {
      if (end.process === process) end.close(new Fault('unavailable', 'the other end has died'));
    }
  }
  vanished(process: Process): void {
    for (const end of [this.caller, this.#server]) if (end.process === process) end.vanish();
  }
}

class End implements MessageStream<unknown, unknown> {
  peer!: End;
  /** The process that holds this end; none before the call has arrived. */
  process: Process | undefined;
  readonly machine: string;
  opened: () => void = () => {};
  ended: () => void = () => {};
  readonly #network: SimNetwork;
  readonly #to: string;
  readonly #copy: (message: unknown) => unknown;
  #listener: StreamListener<unknown> | undefined;
  /** Sent, and not arrived. Every arrival takes the first: in order, however long each took. */
  readonly #way: Item<unknown>[] = [];
  #stalled = 0;
  #full = false;
  readonly #unread: Item<unknown>[] = [];
  #paused = false;
  #closed = false;
  #deaf = false;

  constructor(network: SimNetwork, machine: string, to: string, copy: (message: unknown) => unknown) {
    this.#network = network;
    this.machine = machine;
    this.#to = to;
    this.#copy = copy;
  }

  listen(listener: StreamListener<unknown>): void {
    this.#listener = listener;
    this.process?.after(0, () => this.#read());
  }
  send(message: unknown): boolean {
    if (this.#closed) return true;
    this.transmit({ message: this.#copy(message) });
    this.#full ||= this.#way.length >= windowSize;
    return !this.#full;
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    this.#read();
  }
  close(fault?: Fault): void {
    if (this.#closed) return;
    this.#closed = true;
    this.transmit({ end: fault });
  }

  transmit(item: Item<unknown>): void {
    this.#way.push(item);
    this.#network.clock.after(this.#network.transitMs(this.machine, this.#to), () => this.#arrive());
  }
  retransmit(): void {
    for (; this.#stalled > 0; this.#stalled--) {
      this.#network.clock.after(this.#network.retransmitMs(), () => this.#arrive());
    }
  }
  /** The connection is broken; the process at this end learns it. */
  break(fault: Fault): void {
    this.#way.length = 0;
    if (this.#closed) return;
    this.#closed = true;
    this.process?.do(() => this.#listener?.closed(fault));
  }
  /** This end's machine is gone, and what it had sent with it. */
  vanish(): void {
    this.#closed = true;
    this.#deaf = true;
    this.#way.length = 0;
  }

  #arrive(): void {
    if (this.#network.isCut(this.machine, this.#to)) {
      this.#stalled++;
      return;
    }
    if (this.peer.#deaf) return;
    const item = this.#way.shift();
    if (!item) return;
    if (this.#full && this.#way.length < windowSize / 2) {
      this.#full = false;
      if (!this.#closed) this.process?.do(() => this.#listener?.drain?.());
    }
    const { peer } = this;
    if ('end' in item) this.ended();
    if ('open' in item) peer.opened();
    else if (peer.process) peer.process.do(() => peer.#take(item));
    else if ('end' in item) peer.#take(item);
  }

  #take(item: Item<unknown>): void {
    this.#unread.push(item);
    this.#read();
  }

  #read(): void {
    while (this.#listener && !this.#paused && !this.#closed && this.#unread.length > 0) {
      const item = this.#unread.shift()!;
      if ('message' in item) this.#listener.message(item.message);
      else if ('end' in item) {
        this.#closed = true;
        this.#listener.closed(item.end);
      }
    }
  }
}
