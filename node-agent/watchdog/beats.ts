/** The beats themselves: a stream to the leader on a connection of its own, and the way to the next leader when it goes silent. */
import type { Beat, BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { MessageStream } from '#proto/stream.ts';
import { type HeartbeatTarget, silenceMs } from '../heartbeat.ts';
import { SentBeats } from './lease.ts';
import type { BeatIdentity } from './protocol.ts';

/** One connection to a replica. A stream that has ended is followed by another one on it. */
export interface BeatLine {
  open(): MessageStream<BeatAck, Beat>;
  /** Drops it with all that runs over it. */
  close(): void;
  /** Ends what runs over it; its other end has answered, and it may be of use again. */
  release(): void;
}

export interface BeatsParts {
  readonly clock: Clock;
  /** Never fails at once, as `Transport.connect`. `address` as HOST:PORT. */
  readonly dial: (address: string, identity: BeatIdentity) => BeatLine;
  /** What a beat says beside its number, asked for each. */
  readonly say: () => Omit<Beat, 'sequence'>;
  /** Whether the kernel of the replica's machine answers from here; takes a moment. */
  readonly reaches: (address: string) => Promise<boolean>;
  /** The kernels of these hosts are to be probed now. */
  readonly probe: (orders: BeatAck['probes']) => void;
  /** A lease was granted, until this boot time. */
  readonly leased: (untilMs: number) => void;
  /** The node is no member any more, says who was asked. */
  readonly expelled: () => void;
  /** Told once for each aim: a beat was acknowledged. */
  readonly heard: () => void;
  /** Told once for each aim: acknowledgements have stopped coming. */
  readonly silent: () => void;
}

/** Between attempts of a node that is no member any more. */
const expelledMs = { first: 1_000, most: 30_000 };

/** To the first acknowledgement on a connection: many may be dialling. */
const firstMs = 3 * silenceMs;
/** Silence after which the replica's kernel is asked, and for how long what it said stands. */
const askMs = 500;
/**
 * An address that falls silent while its kernel answers is given twice the time when it is dialled again, up to this, until it has
 * acknowledged for a while: a leader that thousands dial at once, because it was late once, would never have answered all of them. Where
 * its kernel does not answer, the way there is cut or its machine is gone: longer waiting would only find the way late when it is mended.
 */
const mostSilenceMs = 8_000;
const calmMs = 30_000;

export class Beats {
  readonly #parts: BeatsParts;
  /** Of all connections: a lease outlives the one it came by. */
  readonly #sent = new SentBeats();
  #addresses: readonly string[] = [];
  #at = 0;
  #periodMs = 200;
  #identity: BeatIdentity | undefined;
  #line: BeatLine | undefined;
  #stream: MessageStream<BeatAck, Beat> | undefined;
  /** What has come over the line: nothing, an acknowledgement, or the end of a stream. */
  #came: 'nothing' | 'acknowledgement' | 'end' = 'nothing';
  /** How often in a row each address fell silent, and when it last did. */
  readonly #slow = new Map<string, { readonly times: number; readonly atMs: number }>();
  #sequence = 0;
  /** Of the last acknowledgement, or of the dial since. */
  #aliveAtMs = 0;
  /** What the kernel said in this silence; undefined: it was not asked, or has not answered yet. */
  #reached: boolean | undefined;
  #askedAtMs = 0;
  #told = false;
  #heard = false;
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
    this.#heard = false;
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
    if (this.#line) this.#beat();
  }

  #turn(): void {
    this.#timer?.cancel();
    const now = this.#parts.clock.monotonic();
    if (!this.#line) this.#aliveAtMs = now;
    if (now - Math.max(this.#aliveAtMs, this.#askedAtMs) > askMs) void this.#ask(now);
    if (now - this.#aliveAtMs > this.#patienceMs()) this.#goSilent(now);
    this.#timer = this.#parts.clock.after(this.#expelledMs || this.#periodMs, () => this.#turn());
    this.#beat();
  }

  get #address(): string {
    return this.#addresses[this.#at]!;
  }

  #patienceMs(): number {
    const times = this.#reached ? (this.#slow.get(this.#address)?.times ?? 0) : 0;
    return Math.min((this.#came === 'nothing' ? firstMs : silenceMs) * 2 ** times, mostSilenceMs);
  }

  async #ask(now: number): Promise<void> {
    this.#askedAtMs = now;
    const line = this.#line;
    const reached = await this.#parts.reaches(this.#address);
    // Else it is about a silence that has ended.
    if (this.#line === line && this.#aliveAtMs < now) this.#reached = reached;
  }

  /** A connection may be dead without anybody knowing: the next beat goes to the next address on a new one. */
  #goSilent(now: number): void {
    if (!this.#told) this.#parts.silent();
    this.#told = true;
    const times = this.#slow.get(this.#address)?.times ?? 0;
    if (this.#came !== 'end' && this.#reached) this.#slow.set(this.#address, { times: times + 1, atMs: now });
    this.#hangUp();
    this.#at = (this.#at + 1) % this.#addresses.length;
    this.#aliveAtMs = now;
  }

  #beat(): void {
    const { clock, say } = this.#parts;
    const stream = this.#stream ?? this.#open();
    const sequence = ++this.#sequence;
    this.#sent.sent(sequence, clock.boottime());
    stream.send({ ...say(), sequence });
  }

  #open(): MessageStream<BeatAck, Beat> {
    this.#line ??= this.#parts.dial(this.#address, this.#identity!);
    const stream = this.#line.open();
    this.#stream = stream;
    stream.listen({
      message: (ack) => {
        if (this.#stream === stream) this.#take(ack);
      },
      // The next beat opens another one.
      closed: (fault) => {
        if (this.#stream !== stream) return;
        this.#stream = undefined;
        this.#came = 'end';
        if (fault?.code !== 'not-found') return;
        this.#parts.expelled();
        this.#expelledMs = Math.min(expelledMs.most, Math.max(expelledMs.first, 2 * this.#expelledMs));
        this.#aliveAtMs = this.#parts.clock.monotonic();
      },
    });
    return stream;
  }

  #take(ack: BeatAck): void {
    const now = this.#parts.clock.monotonic();
    this.#aliveAtMs = now;
    this.#reached = undefined;
    this.#came = 'acknowledgement';
    if (now - (this.#slow.get(this.#address)?.atMs ?? now) > calmMs) this.#slow.delete(this.#address);
    this.#expelledMs = 0;
    const untilMs = this.#sent.granted(ack.sequence, ack.leaseMs);
    if (untilMs > 0) this.#parts.leased(untilMs);
    if (ack.probes.length > 0) this.#parts.probe(ack.probes);
    if (this.#heard) return;
    this.#heard = true;
    this.#parts.heard();
  }

  #hangUp(): void {
    const line = this.#line;
    // Whoever ends streams is well, and only does not lead.
    const answered = this.#came === 'end' && !this.#stream;
    this.#stream = undefined;
    this.#line = undefined;
    this.#reached = undefined;
    this.#came = 'nothing';
    if (answered) line?.release();
    else line?.close();
  }
}
