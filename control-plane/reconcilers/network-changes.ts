/** What wishes about networks change in the store: pure. A number and a range are given to one network only, whoever asks at the same time. */
import type { Change } from '#control-plane/store/records.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { ClusterNetwork, NetworkSpec } from '#proto/model/network.ts';
import { networkProblems } from '#proto/model/validate.ts';
import { rangeOwner, rangeProblem } from './network-ranges.ts';
import { reapNetworks, servicesOn, tasksOn } from './network-usage.ts';
import { same } from './same.ts';
import type { WishContext } from './service-changes.ts';

/** The record that every change of the set of networks writes, and every new membership: of two decided on the same snapshot only one is committed. A new service is one, so that of two of one name, too. */
export const networkGuard = 'networks';

/** What the tasks on a network do not notice. */
const harmless: ReadonlySet<string> = new Set<keyof NetworkSpec>(['labels', 'internal']);

/** The networks of one wish, one after another: each sees those before it. */
export class NetworkWish {
  readonly #context: WishContext;
  readonly #changes: Change[] = [];
  /** As they will be. */
  readonly #networks = new Map<string, ClusterNetwork>();
  #joined = false;

  constructor(context: WishContext) {
    this.#context = context;
    for (const network of context.snapshot.all('network')) this.#networks.set(network.spec.name, network);
  }

  /** What is to be committed, its guard included; empty where nothing changes. */
  get changes(): readonly Change[] {
    return this.#changes.length === 0 && !this.#joined ? [] : [...this.#changes, guardNetworks(this.#context)];
  }

  /** The network as it will be. */
  named(name: string): NetworkSpec | undefined {
    return this.#networks.get(name)?.spec;
  }

  /** Somebody new is on a network: it must not go at the same moment. */
  join(): void {
    this.#joined = true;
  }

  /**
   * The network as `spec` says. Faults: `invalid`, `conflict` (a range is somebody's, tasks are on what would change, or it is
   * another project's).
   */
  apply(spec: NetworkSpec): 'create' | 'update' | 'unchanged' {
    const { snapshot, now } = this.#context;
    const record = snapshot.get('network', spec.name);
    if (record && record.value.spec.project !== spec.project) throw owned(record.value.spec);
    if (record && same(record.value.spec, spec)) return 'unchanged';
    this.#check(spec);
    if (record) this.#checkChange(record.value.spec, spec);
    const value: ClusterNetwork = record
      ? { ...record.value, spec }
      : { spec, number: this.#nextNumber(), createdAtMs: now };
    this.#networks.set(spec.name, value);
    this.#changes.push({ table: 'network', key: spec.name, value, expect: record?.modRevision ?? 0 });
    return record ? 'update' : 'create';
  }

  #check(spec: NetworkSpec): void {
    const { snapshot } = this.#context;
    const [problem] = networkProblems(spec);
    if (problem) throw new Fault('invalid', problem.message, { remedy: problem.remedy });
    if (spec.encrypted && snapshot.cluster?.encryption !== 'wireguard')
      throw new Fault('invalid', `network ${spec.name} asks for encryption, and the cluster does not encrypt`, {
        remedy: 'Gantry encrypts between nodes, for all networks or none: gantry cluster set encryption=wireguard',
      });
    for (const subnet of spec.subnets) {
      const wrong = rangeProblem(subnet);
      if (wrong) throw new Fault('invalid', wrong, { remedy: 'correct it under ipam: config:' });
      const owner = rangeOwner(snapshot, this.#networks.values(), spec, subnet.subnet);
      if (owner)
        throw new Fault('conflict', `subnet ${subnet.subnet} of network ${spec.name} overlaps ${owner}`, {
          remedy: 'choose another one',
        });
    }
    if (spec.subnets.some((a, i) => spec.subnets.some((b, j) => j > i && a.subnet === b.subnet)))
      throw new Fault('invalid', `network ${spec.name} names a subnet twice`, { remedy: 'keep one of them' });
  }

  #checkChange(before: NetworkSpec, after: NetworkSpec): void {
    const changed = (Object.keys(after) as (keyof NetworkSpec)[]).filter(
      (key) => !harmless.has(key) && !same(before[key], after[key]),
    );
    if (changed.length === 0) return;
    const users = [
      ...new Set(
        tasksOn(this.#context.snapshot, after.name).map((task) => qualifiedName(task.project, task.serviceName)),
      ),
    ];
    if (users.length === 0) return;
    throw new Fault(
      'conflict',
      `network ${after.name} cannot get another ${changed.join(', ')} under ${listed(users)}`,
      {
        remedy: `remove the services that are on it, or give the network another name`,
      },
    );
  }

  #nextNumber(): number {
    const taken = new Set([...this.#networks.values()].map(({ number }) => number));
    let number = 1;
    while (taken.has(number)) number++;
    return number;
  }
}

/** Faults: `not-found`, `conflict` (who is on it). */
export function removeNetwork(context: WishContext, name: string): Change[] {
  const { snapshot } = context;
  const record = snapshot.get('network', name);
  if (!record) throw new Fault('not-found', `there is no network ${name}`, { remedy: 'see gantry network ls' });
  const users = servicesOn(snapshot, name).map(({ spec }) => qualifiedName(spec.project, spec.name));
  if (users.length > 0)
    throw new Fault('conflict', `network ${name} is in use by ${listed(users)}`, {
      remedy: 'remove these services first, or take them off it',
    });
  return [{ table: 'network', key: name, value: undefined, expect: record.modRevision }, guardNetworks(context)];
}

/** Networks of projects that nobody is on any more. */
export function reapUnused(context: Pick<WishContext, 'snapshot' | 'now'>): Change[] {
  return reapNetworks(context.snapshot, () => guardNetworks(context));
}

/** Written with every change of the networks, and with every new membership. */
export function guardNetworks({ snapshot, now }: Pick<WishContext, 'snapshot' | 'now'>): Change {
  const expect = snapshot.get('guard', networkGuard)?.modRevision ?? 0;
  return { table: 'guard', key: networkGuard, value: { name: networkGuard, touchedAtMs: now }, expect };
}

function owned({ name, project }: NetworkSpec): Fault {
  return new Fault(
    'conflict',
    project === '' ? `network ${name} was made by hand` : `network ${name} belongs to project ${project}`,
    { remedy: 'write external: true to be on it, or give this one another name:' },
  );
}

function listed(names: readonly string[]): string {
  const few = [...names].sort().slice(0, 5);
  return few.join(', ') + (names.length > few.length ? ` and ${names.length - few.length} more` : '');
}
