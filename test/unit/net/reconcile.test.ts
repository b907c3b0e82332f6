/** What others break is put right within a look, and told, whatever else goes on and goes wrong. The kernel is a plan that the test damages. */
import { beforeEach, expect, it } from 'vitest';
import type { NetworkRepair, NetworkWanted } from '#net/network.ts';
import type { LinksSeen, NetStep } from '#net/plan/diff.ts';
import { elementsOf, type NodePlan, type Surroundings } from '#net/plan/node-plan.ts';
import { type Kernel, Reconciler } from '#net/reconcile.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { idOf } from '#test/support/builders.ts';
import { networkWanted, peer } from '#test/support/endpoint.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

/** Between two looks, and between two attempts of what failed. */
const lookMs = 200;
const againMs = 1_000;

const far = (number: number) =>
  peer(`h${number}`, `10.91.0.${number}`, `10.192.${number}.0/24`, { nodeId: idOf(`h${number}`) as never });
const wantedOf = (peers: NetworkWanted['peers']): NetworkWanted =>
  networkWanted({ nodeId: idOf('h1'), address: '10.90.0.1', subnet: '10.192.1.0/24' }, { peers });
const around: Surroundings = {
  ...{ ports: new Set<string>(), macs: new Map<string, string>(), mtus: new Map<string, number>() },
  ...{ linkMtu: 1500, wireguardKey: '', bridged: false },
};

/** Holds what it is told to; `damage` is what somebody else has done since. */
class BrokenKernel implements Kernel {
  /** Undefined: as planned. */
  damage: Partial<LinksSeen> | undefined;
  /** What a look, or a step, meets: thrown once. */
  faults = new Map<'look' | 'read' | NetStep['kind'], Fault>();
  /** Runs when a step of the kind is taken, before it is. */
  readonly before = new Map<NetStep['kind'], () => void>();
  readonly taken: NetStep['kind'][] = [];
  #news = false;
  #plan: NodePlan | undefined;

  break(damage: Partial<LinksSeen>): void {
    this.damage = damage;
    this.#news = true;
  }

  meet(what: 'look' | 'read' | NetStep['kind']): void {
    const fault = this.faults.get(what);
    this.faults.delete(what);
    if (fault) throw fault;
  }

  readLinks(plan: NodePlan): LinksSeen {
    this.meet('read');
    this.#news = false;
    const seen = { ...(this.#plan ?? plan), ...this.damage };
    this.#plan = plan;
    return seen;
  }

  async readTables({ firewall }: NodePlan) {
    return { ip: { declarations: firewall.declarations, elements: elementsOf(firewall) }, ip6: undefined };
  }

  async take(step: NetStep): Promise<void> {
    this.before.get(step.kind)?.();
    this.before.delete(step.kind);
    this.meet(step.kind);
    const isOfTunnel = step.kind === 'forwarding' || step.kind === 'neighbour';
    if (isOfTunnel && this.#isGone()) throw new Fault('not-found', 'there is no link gantry-vx');
    this.taken.push(step.kind);
    // Made anew it has all it had: what else is missing of it is added to what is there.
    if (step.kind === 'tunnel') this.damage = undefined;
  }

  #isGone(): boolean {
    return this.damage !== undefined && 'tunnel' in this.damage && this.damage.tunnel === undefined;
  }

  async obstacles() {
    return [];
  }

  disturbed() {
    const links = this.#news;
    this.#news = false;
    return { links, table: false };
  }
}

let clock: FakeClock;
let kernel: BrokenKernel;
let told: string[];
let reconciler: Reconciler;
const missing = 'the tunnel gantry-vx was missing';
const busy = () => new Fault('unavailable', 'it changes faster than it can be read');

beforeEach(async () => {
  clock = new FakeClock();
  kernel = new BrokenKernel();
  told = [];
  reconciler = new Reconciler(
    { clock, log: silentLog, kernel },
    () => {
      kernel.meet('look');
      return around;
    },
    async () => {},
  );
  reconciler.onRepair(({ message }: NetworkRepair) => told.push(message));
  const applied = reconciler.apply(wantedOf([far(2)]));
  await clock.pass(0);
  await applied;
  expect(told).toEqual([]);
});

it('puts back what is missing within one look, and tells it once', async () => {
  kernel.break({ tunnel: undefined });
  await clock.pass(lookMs);
  expect(told.filter((text) => text === missing)).toEqual([missing]);
  expect(kernel.taken).toContain('tunnel');
  const { length } = told;
  await clock.pass(10 * againMs);
  expect(told).toHaveLength(length);
});

it('tells it where another step of the same look fails', async () => {
  kernel.faults.set('address-add', busy());
  kernel.break({ tunnel: undefined });
  await clock.pass(lookMs);
  expect(told).toContain(missing);
});

it.each(['tunnel', 'read'] as const)('tries again a second after a %s failed, and tells it then', async (what) => {
  kernel.faults.set(what, busy());
  kernel.break({ tunnel: undefined });
  await clock.pass(lookMs);
  expect(told).not.toContain(missing);
  await clock.pass(againMs + lookMs);
  expect(told.filter((text) => text === missing)).toEqual([missing]);
});

it('looks on after the host itself could not be looked at', async () => {
  kernel.faults.set('look', busy());
  await clock.pass(lookMs);
  kernel.break({ tunnel: undefined });
  await clock.pass(againMs + 2 * lookMs);
  expect(told).toContain(missing);
});

it('tells what is broken while something else is being put right', async () => {
  kernel.before.set('tunnel-set', () => kernel.break({ tunnel: undefined }));
  const { tunnel } = reconciler.planned!.plan;
  kernel.break({ tunnel: { ...tunnel!, device: { ...tunnel!.device, up: false } } });
  await clock.pass(lookMs);
  expect(told).toEqual([expect.stringContaining('was down'), ...told.slice(1)]);
  expect(told).not.toContain(missing);
  await clock.pass(lookMs);
  expect(told).toContain(missing);
});

it('tells it also where something else is wanted in that moment, and nothing of what is new', async () => {
  kernel.break({ tunnel: undefined });
  const applied = expect(reconciler.apply(wantedOf([far(2), far(3)]))).rejects.toThrow('no link gantry-vx');
  await clock.pass(againMs + lookMs);
  await applied;
  expect(told).toContain(missing);
  expect(told.join()).not.toContain('10.192.3.0');
});
