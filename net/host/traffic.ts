/** How many connections our table has led to each VIP and published port that is counted: the kernel counts their first packets alone. */
import type { FamilyName } from '#net/plan/family.ts';
import { tableName } from '#net/plan/rules.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { Nftables } from './nftables.ts';
import { words } from './table.ts';

export class Traffic {
  readonly #nftables = new Nftables();
  /** Packets as last read; undefined: never, and what they say then is of before us. */
  #before: ReadonlyMap<string, number> | undefined;

  /** Since it was last asked: `FAMILY SET KEY`, as `ip counted 10.224.0.2`, to connections; only those that had some. */
  async news(families: readonly FamilyName[]): Promise<ReadonlyMap<string, number>> {
    const now = new Map<string, number>();
    for (const family of families) {
      for (const set of ['counted', 'counted_ports']) {
        for (const [key, packets] of await this.#read(family, set)) now.set(`${family} ${set} ${key}`, packets);
      }
    }
    const before = this.#before;
    this.#before = now;
    const news = new Map<string, number>();
    if (!before) return news;
    for (const [key, packets] of now) {
      const then = before.get(key) ?? 0;
      // Fewer than before: the table was made anew.
      const count = packets < then ? packets : packets - then;
      if (count > 0) news.set(key, count);
    }
    return news;
  }

  async #read(family: FamilyName, set: string): Promise<[string, number][]> {
    try {
      const objects = await this.#nftables.list(`list set ${family} ${tableName} ${set}`);
      return objects.flatMap((object) => (object.set?.elem ?? []).map(readCounter));
    } catch (error) {
      // Not made yet, or taken away: the reconciler's affair.
      if (isFault(error, 'invalid')) return [];
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#nftables.close();
  }
}

function readCounter(element: unknown): [string, number] {
  const { elem } = element as { elem?: { counter?: { packets: number } } };
  return [words(element), elem?.counter?.packets ?? 0];
}
