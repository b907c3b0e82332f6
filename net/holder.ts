/** Holds the first packets of connections to services that have no task, and tells of them, until there is one or it takes too long. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { flowOf, type Packet } from './plan/held-packet.ts';
import type { Planned } from './plan/node-plan.ts';
import { calledBy, isAwake, someAsleep } from './plan/sleepers.ts';

/** The kernel's side (net/host/held-packets.ts). */
export interface PacketSource {
  take(): readonly Packet[];
  send(packet: Packet): void;
  close(): void;
}

export interface HolderParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly open: () => PacketSource;
  /** A service is called; again every second as long as somebody waits. */
  readonly called: (service: ServiceId) => void;
}

/** While some service has no task; what waits longer is the time that it takes to get one. */
const lookEveryMs = 20;
const callEveryMs = 1_000;
/** Of one service; more are dropped, and sent again by who waits. */
const mostPackets = 512;
const mostBytes = 1 << 20;
/** Of all together. */
const mostServices = 256;

interface Waiting {
  readonly packets: Map<string, Packet>;
  bytes: number;
  readonly sinceMs: number;
  untilMs: number;
  calledAtMs: number;
}

export class Holder {
  readonly #parts: HolderParts;
  readonly #waiting = new Map<ServiceId, Waiting>();
  #source: PacketSource | undefined;
  #planned: Planned | undefined;
  #timer: Timer | undefined;
  #failure = '';
  #count = 0;

  constructor(parts: HolderParts) {
    this.#parts = parts;
  }

  /** The kernel holds this plan now: whoever waits for what has a task in it goes on. */
  follow(planned: Planned): void {
    this.#planned = planned;
    this.#release(planned);
    if (someAsleep(planned)) this.#look();
  }

  close(): void {
    this.#timer?.cancel();
    this.#planned = undefined;
    this.#waiting.clear();
    this.#source?.close();
    this.#source = undefined;
  }

  #release(planned: Planned): void {
    for (const [id, waiting] of this.#waiting) {
      const awake = [...waiting.packets].filter(([, { family }]) => isAwake(id, family, planned));
      for (const [key, packet] of awake) {
        this.#source?.send(packet);
        waiting.packets.delete(key);
      }
      if (waiting.packets.size > 0) continue;
      this.#waiting.delete(id);
      const durationMs = Math.round(this.#parts.clock.monotonic() - waiting.sinceMs);
      this.#parts.log.info('requests that waited for a task go on', { service: id, count: awake.length, durationMs });
    }
  }

  #look(): void {
    if (this.#timer || !this.#planned) return;
    this.#timer = this.#parts.clock.after(lookEveryMs, () => {
      this.#timer = undefined;
      this.#takeAll();
      this.#callAgain();
      if (this.#planned && (this.#waiting.size > 0 || someAsleep(this.#planned))) this.#look();
    });
    this.#open();
  }

  /** What cannot be heard cannot be woken by: said once, and tried again. */
  #open(): void {
    if (this.#source) return;
    try {
      this.#source = this.#parts.open();
      this.#failure = '';
    } catch (error) {
      if (String(error) !== this.#failure) this.#parts.log.warn('requests cannot be held', { error });
      this.#failure = String(error);
    }
  }

  #takeAll(): void {
    const planned = this.#planned;
    if (!planned) return;
    for (const packet of this.#source?.take() ?? []) {
      const call = calledBy(packet, planned);
      // Nobody's, or already gone on: who sent it sends it again.
      if (!call) continue;
      const { endpoint, asleep, allowed } = call;
      if (asleep && allowed) this.#hold(endpoint.serviceId, endpoint.holdMs, packet);
      // To a task that came meanwhile; or to nobody, which is to be refused.
      else if (asleep || allowed) this.#source?.send(packet);
    }
  }

  #hold(id: ServiceId, holdMs: number, packet: Packet): void {
    const now = this.#parts.clock.monotonic();
    let waiting = this.#waiting.get(id);
    if (!waiting) {
      if (this.#waiting.size >= mostServices) return;
      const fresh = { packets: new Map(), bytes: 0, sinceMs: now, untilMs: now + holdMs, calledAtMs: now };
      this.#waiting.set(id, fresh);
      waiting = fresh;
      this.#parts.called(id);
    }
    // As the service says now: it may have been changed since the first came.
    waiting.untilMs = waiting.sinceMs + holdMs;
    const key = flowOf(packet) ?? String(this.#count++);
    if (waiting.packets.has(key)) return;
    if (waiting.packets.size >= mostPackets || waiting.bytes + packet.bytes.length > mostBytes) return;
    waiting.packets.set(key, packet);
    waiting.bytes += packet.bytes.length;
  }

  /** Who was told may have been deposed; and who waited too long is refused. */
  #callAgain(): void {
    const { clock, called, log } = this.#parts;
    const now = clock.monotonic();
    for (const [id, waiting] of this.#waiting) {
      if (now >= waiting.untilMs) {
        for (const packet of waiting.packets.values()) this.#source?.send(packet);
        this.#waiting.delete(id);
        const durationMs = Math.round(now - waiting.sinceMs);
        log.warn('no task has come for requests that waited: they are refused', { service: id, durationMs });
      } else if (now - waiting.calledAtMs >= callEveryMs) {
        waiting.calledAtMs = now;
        called(id);
      }
    }
  }
}
