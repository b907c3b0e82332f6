/** The beats themselves: a stream to the leader on a connection of its own, and the way to the next leader when it goes silent. */
import * as grpc from '@grpc/grpc-js';
import { AgentClient, type Beat, type BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { channelOptions } from '#proto/rpc.ts';
import { type HeartbeatTarget, silenceMs } from '../heartbeat.ts';
import { SentBeats } from './lease.ts';
import type { BeatIdentity } from './protocol.ts';

export interface BeatsParts {
  readonly clock: Clock;
  /** What a beat says beside its number, asked for each. */
  readonly say: () => Omit<Beat, 'sequence'>;
  /** The kernels of these hosts are to be probed now. */
  readonly probe: (orders: BeatAck['probes']) => void;
  /** A lease was granted, until this boot time. */
  readonly leased: (untilMs: number) => void;
  /** Told once for each aim: acknowledgements have stopped coming. */
  readonly silent: () => void;
}

/** Between attempts of a node that is no member any more. */
const expelledMs = { first: 1_000, most: 30_000 };

export class Beats {
  readonly #parts: BeatsParts;
  /** Of all connections: a lease outlives the one it came by. */
  readonly #sent = new SentBeats();
  #addresses: readonly string[] = [];
  #at = 0;
  #periodMs = 200;
  #identity: BeatIdentity | undefined;
  #client: AgentClient | undefined;
  #call: grpc.ClientDuplexStream<Beat, BeatAck> | undefined;
  #sequence = 0;
  /** Of the last acknowledgement, or of the dial since. */
  #aliveAtMs = 0;
  #told = false;
  #expelledMs = 0;
  #timer: Timer | undefined;

  constructor(parts: BeatsParts) {
    this.#parts = parts;
  }

  /** Beats there from now on, and to the next of `others` when nobody answers. */
  aim({ address, periodMs }: HeartbeatTarget, others: readonly string[], identity: BeatIdentity): void {
    this.#addresses = [address, ...others.filter((one) => one !== address)];
    this.#at = 0;
    this.#periodMs = periodMs;
    this.#identity = identity;
    this.#told = false;
    this.#expelledMs = 0;
    this.#hangUp();
    this.#turn();
  }

  close(): void {
    this.#timer?.cancel();
    this.#hangUp();
  }

  /** Out of turn: there is something to say that cannot wait. */
  beatNow(): void {
    if (this.#client) this.#beat();
  }

  #turn(): void {
    this.#timer?.cancel();
    const now = this.#parts.clock.monotonic();
    if (!this.#client) this.#aliveAtMs = now;
    if (now - this.#aliveAtMs > silenceMs) this.#goSilent(now);
    this.#timer = this.#parts.clock.after(this.#expelledMs || this.#periodMs, () => this.#turn());
    this.#beat();
  }

  /** A connection may be dead without anybody knowing: the next beat goes to the next address on a new one. */
  #goSilent(now: number): void {
    if (!this.#told) this.#parts.silent();
    this.#told = true;
    this.#hangUp();
    this.#at = (this.#at + 1) % this.#addresses.length;
    this.#aliveAtMs = now;
  }

  #beat(): void {
    const { clock, say } = this.#parts;
    const call = this.#call ?? this.#open();
    const sequence = ++this.#sequence;
    this.#sent.sent(sequence, clock.boottime());
    call.write({ ...say(), sequence });
  }

  #open(): grpc.ClientDuplexStream<Beat, BeatAck> {
    const { keyPem, certificatePem, caPem } = this.#identity!;
    this.#client ??= new AgentClient(
      this.#addresses[this.#at]!,
      grpc.credentials.createSsl(Buffer.from(caPem), Buffer.from(keyPem), Buffer.from(certificatePem)),
      { ...channelOptions, 'grpc.use_local_subchannel_pool': 1 },
    );
    const call = this.#client.heartbeat();
    this.#call = call;
    call.on('data', (ack: BeatAck) => {
      if (this.#call === call) this.#take(ack);
    });
    // The next beat opens another one.
    call.on('error', (error: grpc.ServiceError) => {
      if (this.#call !== call) return;
      this.#call = undefined;
      if (error.code !== grpc.status.NOT_FOUND) return;
      this.#expelledMs = Math.min(expelledMs.most, Math.max(expelledMs.first, 2 * this.#expelledMs));
      this.#aliveAtMs = this.#parts.clock.monotonic();
    });
    call.on('end', () => {
      if (this.#call === call) this.#call = undefined;
    });
    return call;
  }

  #take(ack: BeatAck): void {
    this.#aliveAtMs = this.#parts.clock.monotonic();
    this.#expelledMs = 0;
    const untilMs = this.#sent.granted(ack.sequence, ack.leaseMs);
    if (untilMs > 0) this.#parts.leased(untilMs);
    if (ack.probes.length > 0) this.#parts.probe(ack.probes);
  }

  #hangUp(): void {
    const [call, client] = [this.#call, this.#client];
    this.#call = undefined;
    this.#client = undefined;
    call?.cancel();
    client?.close();
  }
}
