/** Evening out nodes over time: who moves, how fast, and that it ends. */
import { afterEach, describe, expect, it } from 'vitest';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { rebalanceGuard } from '#control-plane/controllers/rebalancer.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Table, Tables } from '#control-plane/store/records.ts';
import { keyOf } from '#control-plane/store/snapshot.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { Node } from '#proto/model/node.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { isActive, isTerminal, type Task } from '#proto/model/task.ts';
import { aCluster, aNode, aSpec } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const scopes: Scope[] = [];
afterEach(async () => {
  for (const scope of scopes.splice(0)) await scope.close();
});

/** Two nodes, a service that runs on them, and agents that take a while for everything; `comesUp`: which tasks do. */
async function running(
  spec: Partial<ServiceSpec>,
  settings: Partial<ClusterConfig> = {},
  comesUp: (task: Task) => boolean = () => true,
) {
  const clock = new FakeClock();
  const etcd = new MemoryEtcd({ clock, commitMs: 1, deliverMs: 1 });
  const store = etcd.open();
  const put = <T extends Table>(table: T, value: Tables[T]) => {
    const key = keyOf(table, value);
    const expect = etcd.get(table, key)?.modRevision ?? 0;
    etcd.commit([{ table, key, value, expect } as never], undefined);
  };
  const beating = new Set<Node>();
  const liveness = new BeatLiveness(clock);
  const join = (...names: string[]) => {
    for (const name of names) {
      const node = aNode(name, { stateAtMs: clock.now() });
      beating.add(node);
      liveness.beat(node.id);
      put('node', node);
    }
  };
  put('cluster', aCluster(settings));
  join('h1', 'h2');
  void store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
  await clock.pass(10);
  const beat = () => {
    for (const { id } of beating) liveness.beat(id);
    clock.after(200, beat);
  };
  beat();
  let starts = 0;
  let settled = false;
  let fewest = Number.POSITIVE_INFINITY;
  const active = () => [...store.snapshot.all('task')].filter((task) => isActive(task));
  const up = () => active().filter(({ state }) => state === 'running');
  store.subscribe(({ changes }) => {
    if (settled) fewest = Math.min(fewest, up().length);
    for (const change of changes) {
      if (change.table !== 'task' || !change.after || isTerminal(change.after.state)) continue;
      const { after } = change;
      if (after.state === 'assigned' && change.before?.state !== 'assigned') starts++;
      clock.after(after.wanted === 'running' ? 300 : 2_000, () => {
        const task = etcd.get('task', after.id)?.value;
        if (!task || isTerminal(task.state) || task.nodeId === '') return;
        const stateAtMs = clock.now();
        if (!isActive(task)) put('task', { ...task, state: 'shutdown', stateAtMs });
        else if (!comesUp(task)) put('task', { ...task, state: 'failed', error: 'no', stateAtMs });
        else if (task.state === 'assigned')
          put('task', { ...task, state: 'running', stateAtMs, startedAtMs: stateAtMs });
      });
    }
  });
  const scope = new Scope();
  scopes.push(scope);
  const random = seededRandom(1);
  void runControllers(
    { store, clock, random, log: silentLog, liveness, usage: new UsageDesk(clock), removeVolume: async () => {} },
    1,
    scope,
  );
  const wish = { snapshot: store.snapshot, now: clock.now(), newId: () => newId(random) };
  etcd.commit(createService(wish, aSpec('web', spec)), undefined);
  await clock.pass(30_000);
  settled = true;
  const counts = () => {
    const perNode = new Map([...beating].map(({ name }) => [name, 0]));
    for (const { nodeName } of active()) perNode.set(nodeName, perNode.get(nodeName)! + 1);
    return [...perNode.values()].sort((a, b) => a - b);
  };
  return { clock, put, join, active, counts, starts: () => starts, fewest: () => fewest };
}

describe('the rebalancer', () => {
  it('evens out 30 tasks over two new nodes within a minute, in 14 moves, with all of them up all the time', async () => {
    const { clock, join, counts, starts, fewest, active } = await running({ replicas: 30 });
    expect(counts()).toEqual([15, 15]);
    join('h3', 'h4');
    await clock.pass(60_000);
    expect(counts()).toEqual([7, 7, 8, 8]);
    expect(starts()).toBe(30 + 14);
    expect(fewest()).toBe(30);
    expect(active().filter(({ successorOf }) => successorOf !== '')[0]?.why).toMatch(
      /^moved from h\d: h\d has \d+ of it, h\d \d/,
    );
    await clock.pass(600_000);
    expect(starts()).toBe(30 + 14);
  });

  it('begins one move at a time of a service, and no more in a minute than allowed', async () => {
    const { clock, join, starts } = await running({ replicas: 12 }, { rebalancePerMinute: 4 });
    join('h3', 'h4');
    await clock.pass(5_000 + 61_000);
    expect(starts()).toBeGreaterThan(12 + 3);
    expect(starts()).toBeLessThanOrEqual(12 + 5);
  });

  it('moves nothing where the cluster or the service says so, nor a single task', async () => {
    for (const [spec, settings] of [
      [{ replicas: 8, rebalance: 'off' }, {}],
      [{ replicas: 8 }, { rebalancePerMinute: 0 }],
      [{ replicas: 1 }, {}],
    ] as const) {
      const { clock, join, starts } = await running(spec, settings);
      join('h3', 'h4');
      await clock.pass(120_000);
      expect(starts()).toBe(spec.replicas);
    }
  });

  it('moves what is asked for, also where it is off', async () => {
    const { clock, put, join, counts } = await running({ replicas: 8 }, { rebalancePerMinute: 0 });
    join('h3', 'h4');
    await clock.pass(60_000);
    put('guard', { name: rebalanceGuard, touchedAtMs: clock.now() });
    await clock.pass(30_000);
    expect(counts()).toEqual([2, 2, 2, 2]);
  });

  it('leaves alone whose successors do not come up', async () => {
    const { clock, join, counts, active } = await running({ replicas: 8 }, {}, ({ successorOf }) => successorOf === '');
    join('h3', 'h4');
    await clock.pass(300_000);
    expect(counts()).toEqual([0, 0, 4, 4]);
    expect(active().every(({ state }) => state === 'running')).toBe(true);
  });
});
