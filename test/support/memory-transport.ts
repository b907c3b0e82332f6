/** Agents and dispatch in one process: the wire of the simulator and of scenario tests. Messages arrive a turn later, copied, in order. */
import type { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import { type Heartbeat, type HeartbeatTarget, silenceMs } from '#node-agent/heartbeat.ts';
import type { Connection, Transport } from '#node-agent/transport.ts';
import { SentBeats } from '#node-agent/watchdog/lease.ts';
import {
  AgentMessage,
  type Beat,
  type BeatAck,
  ControlMessage,
  type EnrolResponse,
  RelayFrame,
} from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { MessageStream, StreamListener } from '#proto/stream.ts';

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** Messages a stream holds before `send` says it is full. */
const streamLimit = 64;

class End<In, Out> implements MessageStream<In, Out> {
  peer!: End<Out, In>;
  readonly #clock: Clock;
  readonly #latencyMs: () => number;
  readonly #copy: (message: In) => In;
  #listener: StreamListener<In> | undefined;
  readonly #inbox: In[] = [];
  #paused = false;
  #closed = false;
  #ending: { fault: Fault | undefined } | undefined;
  #full = false;
  #inFlight = 0;
  #due: Timer | undefined;

  constructor(clock: Clock, latencyMs: () => number, copy: (message: In) => In) {
    this.#clock = clock;
    this.#latencyMs = latencyMs;
    this.#copy = copy;
  }

  listen(listener: StreamListener<In>): void {
    this.#listener = listener;
    this.#schedule();
  }
  send(message: Out): boolean {
    if (this.#closed) return true;
    return this.peer.#receive(message);
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    this.#schedule();
  }
  close(fault?: Fault): void {
    if (this.#closed) return;
    this.#closed = true;
    this.peer.#end(fault);
  }
  /** The line is cut: nobody is told, nothing arrives any more. */
  cut(): void {
    this.#closed = true;
    this.peer.#closed = true;
  }

  #receive(message: In): boolean {
    if (this.#closed) return true;
    this.#inFlight++;
    const copy = this.#copy(message);
    this.#clock.after(this.#latencyMs(), () => {
      this.#inFlight--;
      if (this.#closed) return;
      this.#inbox.push(copy);
      this.#schedule();
    });
    if (this.#inbox.length + this.#inFlight < streamLimit) return true;
    this.#full = true;
    return false;
  }
  #end(fault: Fault | undefined): void {
    if (this.#closed) return;
    this.#clock.after(this.#latencyMs(), () => {
      this.#ending = { fault };
      this.#schedule();
    });
  }
  #schedule(): void {
    if (this.#due || this.#closed) return;
    this.#due = this.#clock.after(0, () => {
      this.#due = undefined;
      this.#deliver();
    });
  }
  #deliver(): void {
    while (this.#listener && !this.#paused && !this.#closed && this.#inbox.length > 0) {
      this.#listener.message(this.#inbox.shift()!);
    }
    if (this.#full && this.#inbox.length + this.#inFlight < streamLimit / 2) {
      this.#full = false;
      this.peer.#listener?.drain?.();
    }
    if (this.#ending && this.#listener && this.#inbox.length === 0 && this.#inFlight === 0 && !this.#closed) {
      this.#closed = true;
      this.#listener.closed(this.#ending.fault);
    }
  }
}

/** Two ends of one stream: the caller's and the server's. */
export function streamPair<Up, Down>(
  clock: Clock,
  up: Codec<Up>,
  down: Codec<Down>,
  latencyMs: () => number = () => 0,
): { caller: End<Down, Up>; server: End<Up, Down> } {
  const caller = new End<Down, Up>(clock, latencyMs, (message) => down.decode(down.encode(message).finish()));
  const server = new End<Up, Down>(clock, latencyMs, (message) => up.decode(up.encode(message).finish()));
  caller.peer = server;
  server.peer = caller;
  return { caller, server };
}

export interface MemoryNetworkParts {
  readonly clock: Clock;
  /** Of one message, ms; 0 unless told. */
  readonly latencyMs?: () => number;
}

/** Replicas by address, and which nodes are cut off from them. */
export class MemoryNetwork {
  readonly #clock: Clock;
  readonly #latencyMs: () => number;
  readonly #replicas = new Map<string, Dispatch>();
  readonly #cut = new Set<NodeId>();
  readonly #streams = new Map<NodeId, Set<{ cut(): void }>>();

  constructor(parts: MemoryNetworkParts) {
    this.#clock = parts.clock;
    this.#latencyMs = parts.latencyMs ?? (() => 0);
  }

  serve(address: string, dispatch: Dispatch | undefined): void {
    if (dispatch) this.#replicas.set(address, dispatch);
    else this.#replicas.delete(address);
  }

  /** As pulling the node's cable: open streams fall silent, new ones reach nobody. */
  cut(node: NodeId): void {
    this.#cut.add(node);
    for (const stream of this.#streams.get(node) ?? []) stream.cut();
    this.#streams.delete(node);
  }
  mend(node: NodeId): void {
    this.#cut.delete(node);
  }

  #reach(node: NodeId, address: string): Dispatch | undefined {
    return this.#cut.has(node) ? undefined : this.#replicas.get(address);
  }

  #open<Up, Down>(
    node: NodeId,
    address: string,
    up: Codec<Up>,
    down: Codec<Down>,
    accept: (dispatch: Dispatch, stream: MessageStream<Up, Down>) => void,
  ): End<Down, Up> {
    const { caller, server } = streamPair(this.#clock, up, down, this.#latencyMs);
    const dispatch = this.#reach(node, address);
    const streams = this.#streams.get(node) ?? new Set();
    this.#streams.set(node, streams);
    streams.add(caller);
    if (dispatch) accept(dispatch, server);
    else if (!this.#cut.has(node)) server.close(new Fault('unavailable', `nobody listens at ${address}`));
    return caller;
  }

  transportOf(node: NodeId): Transport {
    return {
      connect: (address): Connection => {
        const open: MessageStream<never, never>[] = [];
        const kept = <In, Out>(stream: MessageStream<In, Out>) => {
          open.push(stream as never);
          return stream;
        };
        return {
          session: () =>
            kept(this.#open(node, address, AgentMessage, ControlMessage, (to, stream) => to.connect(node, stream))),
          relay: () =>
            kept(this.#open(node, address, RelayFrame, RelayFrame, (to, stream) => to.relays.accept(node, stream))),
          renew: async (): Promise<EnrolResponse> => {
            throw new Fault('unsupported', 'certificates do not age in memory');
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

  heartbeatOf(node: NodeId): Heartbeat {
    return new MemoryHeartbeat(this.#clock, (target) => {
      const plain: Codec<Beat> & Codec<BeatAck> = { encode: keep, decode: kept } as never;
      return this.#open<Beat, BeatAck>(node, target.address, plain, plain, (to, stream) => to.beats(node, stream));
    });
  }
}

/** Beats are small and many: they are handed over as they are. */
const keep = (message: unknown) => ({ finish: () => message });
const kept = (message: unknown) => message;

export class MemoryHeartbeat implements Heartbeat {
  readonly #clock: Clock;
  readonly #dial: (target: HeartbeatTarget) => MessageStream<BeatAck, Beat>;
  #silent: () => void = () => {};
  #timer: Timer | undefined;
  #stream: MessageStream<BeatAck, Beat> | undefined;
  #ackedAt = 0;
  #sequence = 0;
  readonly #beats = new SentBeats();
  readonly #leased: (untilMs: number) => void;

  /** `leased`: hears of the end of each lease that is granted. */
  constructor(
    clock: Clock,
    dial: (target: HeartbeatTarget) => MessageStream<BeatAck, Beat>,
    leased: (untilMs: number) => void = () => {},
  ) {
    this.#clock = clock;
    this.#leased = leased;
    this.#dial = dial;
  }

  aim(target: HeartbeatTarget | undefined): void {
    this.#timer?.cancel();
    this.#stream?.close();
    this.#stream = undefined;
    if (!target) return;
    this.#ackedAt = this.#clock.monotonic();
    this.#beat(target);
  }

  #beat(target: HeartbeatTarget): void {
    if (!this.#stream) {
      const stream = this.#dial(target);
      this.#stream = stream;
      stream.listen({
        message: ({ sequence, leaseMs }) => {
          this.#ackedAt = this.#clock.monotonic();
          this.#leased(this.#beats.granted(sequence, leaseMs));
        },
        closed: () => {
          if (this.#stream === stream) this.#stream = undefined;
        },
      });
    }
    this.#beats.sent(++this.#sequence, this.#clock.boottime());
    this.#stream.send({
      sequence: this.#sequence,
      session: target.session,
      loopLagMs: 0,
      condition: 'running',
      probes: [],
      atMs: this.#clock.now(),
    });
    if (this.#clock.monotonic() - this.#ackedAt > silenceMs) {
      this.#silent();
      return;
    }
    this.#timer = this.#clock.after(target.periodMs, () => this.#beat(target));
  }

  keepWarm(): void {}
  onSilence(listener: () => void): void {
    this.#silent = listener;
  }
  async close(): Promise<void> {
    this.aim(undefined);
  }
}
