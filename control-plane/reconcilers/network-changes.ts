/** What wishes about networks change in the store: pure. A number is given to one network only, whoever asks at the same time. */
import type { Change } from '#control-plane/store/records.ts';
import type { ClusterNetwork, NetworkSpec } from '#proto/model/network.ts';
import { same } from './same.ts';
import type { WishContext } from './service-changes.ts';

/** The record that every change of the set of networks writes: of two decided on the same snapshot only one is committed. */
export const networkGuard = 'networks';

/** The networks of one wish, one after another: each sees those before it. */
export class NetworkWish {
  readonly #context: WishContext;
  readonly #changes: Change[] = [];
  readonly #numbers = new Set<number>();

  constructor(context: WishContext) {
    this.#context = context;
    for (const { number } of context.snapshot.all('network')) this.#numbers.add(number);
  }

  /** What is to be committed, its guard included; empty where nothing changes. */
  get changes(): readonly Change[] {
    return this.#changes.length === 0 ? [] : [...this.#changes, guardNetworks(this.#context)];
  }

  /** The network as `spec` says; true where that changes something. */
  apply(spec: NetworkSpec): boolean {
    const { snapshot, now } = this.#context;
    const record = snapshot.get('network', spec.name);
    if (record && same(record.value.spec, spec)) return false;
    const value: ClusterNetwork = record
      ? { ...record.value, spec }
      : { spec, number: this.#nextNumber(), createdAtMs: now };
    this.#changes.push({ table: 'network', key: spec.name, value, expect: record?.modRevision ?? 0 });
    return true;
  }

  #nextNumber(): number {
    let number = 1;
    while (this.#numbers.has(number)) number++;
    this.#numbers.add(number);
    return number;
  }
}

/** Written with every change of the networks, and with every new membership. */
export function guardNetworks({ snapshot, now }: WishContext): Change {
  const expect = snapshot.get('guard', networkGuard)?.modRevision ?? 0;
  return { table: 'guard', key: networkGuard, value: { name: networkGuard, touchedAtMs: now }, expect };
}
