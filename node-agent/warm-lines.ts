/** Connections that stand before anybody speaks over them: one to each replica that does not serve this node, so that whoever leads next is spoken to without a handshake. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';

export interface Line {
  /** It is connected. */
  isOpen(): boolean;
  /** Drops it with all that runs over it. */
  close(): void;
}

export interface WarmLinesParts<L extends Line> {
  readonly clock: Clock;
  readonly random: Random;
  /** Begins to connect to `address` (HOST:PORT). `ended` is called when that has failed, or the connection has ended; never at once. */
  readonly dial: (address: string, ended: () => void) => L;
}

/** All nodes lose a leader in one moment: they dial the others in peace, and each at a time of its own. */
const calm = { leastMs: 5_000, spreadMs: 30_000 };
/** Whoever does not answer is dialled ever more rarely, up to this. */
const mostMs = 300_000;
const opensWithinMs = 10_000;

/** Of one address that is to be kept. */
interface Place<L> {
  /** Nobody speaks over it. */
  line: L | undefined;
  /** Dials that failed, since one succeeded. */
  failures: number;
  timer: Timer | undefined;
}

export class WarmLines<L extends Line> {
  readonly #parts: WarmLinesParts<L>;
  readonly #places = new Map<string, Place<L>>();

  constructor(parts: WarmLinesParts<L>) {
    this.#parts = parts;
  }

  /** From now on there is to be one to each of these, and to nobody else. */
  keep(addresses: readonly string[]): void {
    for (const [address, place] of this.#places) {
      if (addresses.includes(address)) continue;
      this.#places.delete(address);
      place.timer?.cancel();
      place.line?.close();
    }
    for (const address of addresses) {
      if (this.#places.has(address)) continue;
      const place: Place<L> = { line: undefined, failures: 0, timer: undefined };
      this.#places.set(address, place);
      this.#dialLater(address, place);
    }
  }

  /** They were made with a certificate that is another one now: each is replaced, in its time. */
  renew(): void {
    for (const [address, place] of this.#places) this.#dialLater(address, place);
  }

  /** One that was taken for open was dead: so may the others be, as where the way was cut. They are dropped, and made anew in their time. */
  distrust(): void {
    for (const [address, place] of this.#places) {
      if (!place.line) continue;
      place.line.close();
      place.line = undefined;
      this.#dialLater(address, place);
    }
  }

  /** The caller's from now on: the one that stands, else one that begins to connect. */
  take(address: string): L {
    const place = this.#places.get(address);
    const line = place?.line;
    if (!place || !line?.isOpen()) return this.#dial(address);
    place.line = undefined;
    this.#dialLater(address, place);
    return line;
  }

  /** The caller needs it no more, and whoever is at its other end has just answered over it. */
  giveBack(address: string, line: L): void {
    const place = this.#places.get(address);
    if (!place || place.line?.isOpen() || !line.isOpen()) {
      line.close();
      return;
    }
    place.timer?.cancel();
    place.line?.close();
    place.line = line;
  }

  #dial(address: string): L {
    const line = this.#parts.dial(address, () => {
      const place = this.#places.get(address);
      if (place?.line === line) this.#failed(address, place);
    });
    return line;
  }

  #dialLater(address: string, place: Place<L>): void {
    const { clock, random } = this.#parts;
    const waitMs = Math.min((calm.leastMs + random.int(calm.spreadMs)) * 2 ** place.failures, mostMs);
    place.timer?.cancel();
    place.timer = clock.after(waitMs, () => {
      place.line?.close();
      place.line = this.#dial(address);
      place.timer = clock.after(opensWithinMs, () => {
        if (place.line?.isOpen()) place.failures = 0;
        else this.#failed(address, place);
      });
    });
  }

  #failed(address: string, place: Place<L>): void {
    place.line?.close();
    place.line = undefined;
    place.failures++;
    this.#dialLater(address, place);
  }
}
