/** The loop: at once, in one commit, each service by itself, and only while its epoch leads. */
import { afterEach, describe, expect, it } from 'vitest';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import { createService, removeService, scaleService } from '#control-plane/reconcilers/service-changes.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { containerSpec, emptyMount } from '#proto/model/service.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { aCluster, aNetwork, aNode, aSpec, aTemplate } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const scopes: Scope[] = [];
afterEach(async () => {
  for (const scope of scopes.splice(0)) await scope.close();
});

async function controllers() {
  const clock = new FakeClock();
  const etcd = new MemoryEtcd({ clock, commitMs: 1, deliverMs: 1 });
  const store = etcd.open();
  const nodes = ['h1', 'h2', 'h3'].map((name) => aNode(name));
  etcd.commit(
    nodes.map((node): Change => ({ table: 'node', key: node.id, value: node, expect: 0 })),
    undefined,
  );
  void store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
  await clock.pass(10);
  const liveness = new BeatLiveness(clock);
  const beating = new Set(nodes.map(({ id }) => id));
  const beat = () => {
    for (const id of beating) liveness.beat(id);
    clock.after(200, beat);
  };
  beat();
  const scope = new Scope();
  scopes.push(scope);
  const random = seededRandom(1);
  let ended = false;
  void runControllers(
    { store, clock, random, log: silentLog, liveness, usage: new UsageDesk(clock), removeVolume: async () => {} },
    1,
    scope,
  ).then(() => {
    ended = true;
  });
  const wish = { snapshot: store.snapshot, now: clock.now(), newId: () => newId(random) };
  const active = () => [...store.snapshot.all('task')].filter((task) => isActive(task));
  return { clock, etcd, store, nodes, beating, scope, wish, active, ended: () => ended };
}

function modOf(store: MemoryStore, id: string): number {
  return store.snapshot.get('task', id)!.modRevision;
}

function stateOf(store: MemoryStore, id: string): string | undefined {
  return store.snapshot.get('node', id)?.value.state;
}

describe('the controllers', () => {
  it('turn a new service into assigned tasks with one commit of their own, as soon as they see it', async () => {
    const { clock, etcd, store, wish, active } = await controllers();
    await clock.pass(1_000);
    const before = etcd.revision;
    void store.commit(createService(wish, aSpec('web')));
    await clock.pass(4);
    expect(active().map(({ state }: Task) => state)).toEqual(['assigned', 'assigned', 'assigned']);
    expect(etcd.revision - before).toBe(2);
    await clock.pass(60_000);
    expect(etcd.revision - before).toBe(2);
  });

  it('begin a service as soon as the one that it depends on has started, and stop them the other way round', async () => {
    const { clock, store, wish, active } = await controllers();
    await clock.pass(1_000);
    const on = { service: 'db', condition: 'service_started', restart: false, required: true } as const;
    const specs = [aSpec('web', { replicas: 1, dependsOn: [on] }), aSpec('db', { replicas: 1 })];
    void store.commit(specs.flatMap((spec) => createService(wish, spec)));
    await clock.pass(20);
    const [web, db] = ['web', 'db'].map((name) => () => active().find((task) => task.serviceName === name)!);
    expect([web!().state, web!().message, db!().state]).toEqual(['pending', 'waits for db to start', 'assigned']);
    const report = (task: Task, fields: Partial<Task>) =>
      void store.commit([
        { table: 'task', key: task.id, value: { ...task, ...fields }, expect: modOf(store, task.id) },
      ]);
    report(db!(), { state: 'running', startedAtMs: 1 });
    await clock.pass(20);
    expect(web!().state).toBe('assigned');
    const ids = [...store.snapshot.all('service')].map(({ id }) => id);
    void store.commit(ids.flatMap((id) => removeService(wish, id)));
    await clock.pass(20);
    expect(active().map(({ serviceName }) => serviceName)).toEqual(['db']);
    const stopping = [...store.snapshot.all('task')].find(({ serviceName }) => serviceName === 'web')!;
    report(stopping, { state: 'shutdown' });
    await clock.pass(20);
    expect(active()).toEqual([]);
  });

  it('stop a service that waited for one that depends on it, also when that one stays after all', async () => {
    const { clock, store, wish, active } = await controllers();
    await clock.pass(1_000);
    const on = { service: 'db', condition: 'service_started', restart: false, required: false } as const;
    const specs = [aSpec('db', { replicas: 1 }), aSpec('web', { replicas: 1, dependsOn: [on] })];
    void store.commit(specs.flatMap((spec) => createService(wish, spec)));
    await clock.pass(20);
    const db = active().find(({ serviceName }) => serviceName === 'db')!;
    void store.commit([
      { table: 'task', key: db.id, value: { ...db, state: 'running', startedAtMs: 1 }, expect: modOf(store, db.id) },
    ]);
    await clock.pass(20);
    const before = store.snapshot.serviceNamed('demo', 'web')!;
    const ids = [...store.snapshot.all('service')].map(({ id }) => id);
    void store.commit(ids.flatMap((id) => removeService(wish, id)));
    await clock.pass(20);
    expect(active().map(({ serviceName }) => serviceName)).toEqual(['db']);
    const expected = store.snapshot.get('service', before.id)!;
    const value = { ...expected.value, removing: false };
    void store.commit([{ table: 'service', key: before.id, value, expect: expected.modRevision }]);
    await clock.pass(20);
    expect(active().map(({ serviceName }) => serviceName)).not.toContain('db');
  });

  it('bring two new services that share a new volume to one node, in one commit that names it once', async () => {
    const { clock, etcd, store, wish, active } = await controllers();
    await clock.pass(1_000);
    const before = etcd.revision;
    const mounts = [emptyMount('volume', 'demo_data', '/data')];
    const spec = { replicas: 2, template: aTemplate({ container: containerSpec('db:1', { mounts }) }) };
    void store.commit(['db', 'backup'].flatMap((name) => createService(wish, aSpec(name, spec))));
    await clock.pass(20);
    expect(active().map(({ nodeName }) => nodeName)).toEqual(['h1', 'h1', 'h1', 'h1']);
    expect(store.snapshot.get('volume', 'demo_data')?.value.nodeName).toBe('h1');
    expect(etcd.revision - before).toBe(2);
  });

  it('replace the tasks of a silent node within two seconds', async () => {
    const { clock, store, nodes, beating, wish, active } = await controllers();
    void store.commit(createService(wish, aSpec('web', { replicas: 6 })));
    await clock.pass(5_000);
    beating.delete(nodes[2]!.id);
    await clock.pass(2_000);
    expect(stateOf(store, nodes[2]!.id)).toBe('down');
    expect(active()).toHaveLength(6);
    expect(active().map(({ nodeName }) => nodeName)).not.toContain('h3');
    beating.add(nodes[2]!.id);
    await clock.pass(300);
    expect(stateOf(store, nodes[2]!.id)).toBe('ready');
  });

  it('look again after a conflict, and after an outcome that nobody knows, without a task too many', async () => {
    const { clock, store, wish, active } = await controllers();
    await clock.pass(1_000);
    await Promise.all([store.commit(createService(wish, aSpec('web'))), clock.pass(1.5)]);
    store.failNext(
      { fault: new Fault('conflict', 'somebody was first'), applied: false },
      { fault: new Fault('timeout', 'no answer'), applied: true },
    );
    await clock.pass(30_000);
    expect(active()).toHaveLength(3);
    expect(new Set(active().map(({ address }) => address)).size).toBe(3);
  });

  it('go on with other services while the commits of one keep failing', async () => {
    const { clock, etcd, store, wish, active } = await controllers();
    await clock.pass(1_000);
    const commit = etcd.commit.bind(etcd);
    const [bad] = createService(wish, aSpec('bad'));
    etcd.commit = (changes, epoch) => {
      const touchesBad = changes.some((change) => change.table === 'task' && change.value?.serviceName === 'bad');
      if (epoch !== undefined && touchesBad) throw new Fault('exhausted', 'too large');
      return commit(changes, epoch);
    };
    void store.commit([bad!, ...createService(wish, aSpec('web'))]);
    await clock.pass(2_000);
    expect(active().map(({ serviceName }) => serviceName)).toEqual(['web', 'web', 'web']);
    etcd.commit = commit;
    await clock.pass(15_000);
    expect(active()).toHaveLength(6);
  });

  it('start thousands of tasks in transactions that the store takes', async () => {
    const { clock, store, wish, active } = await controllers();
    for (const name of ['h4', 'h5', 'h6', 'h7', 'h8', 'h9']) {
      const node = aNode(name);
      void store.commit([
        { table: 'node', key: node.id, value: { ...node, subnet: `10.200.${name.slice(1)}0.0/22` }, expect: 0 },
      ]);
    }
    await clock.pass(1_000);
    void store.commit(createService(wish, aSpec('web', { replicas: 4_000 })));
    await clock.pass(1_000);
    expect(active()).toHaveLength(4_000);
    const service = store.snapshot.serviceNamed('demo', 'web')!;
    void store.commit(scaleService({ ...wish, now: clock.now() }, service.id, 0));
    await clock.pass(1_000);
    expect(active()).toHaveLength(0);
  });

  it('end when another leader has taken over, and write nothing from then on', async () => {
    const { clock, etcd, store, wish, active, ended } = await controllers();
    await clock.pass(1_000);
    const other = etcd.open();
    void other.takeLeadership(other.leadership, { epoch: 2, replica: 'm2', address: '' });
    void store.commit(createService(wish, aSpec('web')));
    await clock.pass(1_000);
    expect(active()).toEqual([]);
    expect(ended()).toBe(true);
  });

  it('end with their scope', async () => {
    const { clock, scope, ended } = await controllers();
    await scope.close();
    await clock.pass(1);
    expect(ended()).toBe(true);
  });

  it('remove a project’s network with its last service, and look at who is beside tasks that changed', async () => {
    const { clock, etcd, store, wish, active } = await controllers();
    const attached = aTemplate({ networks: [{ network: 'demo_default', aliases: [], ipv4Address: '' }] });
    const network = aNetwork('demo_default');
    etcd.commit([{ table: 'network', key: network.spec.name, value: network, expect: 0 }], undefined);
    etcd.commit(createService(wish, aSpec('web', { replicas: 2, template: attached })), undefined);
    const side = aSpec('side', { replicas: 2, template: aTemplate({ networkMode: 'service:web' }) });
    etcd.commit(createService(wish, side), undefined);
    await clock.pass(500);
    const places = (name: string) =>
      active()
        .filter(({ serviceName }) => serviceName === name)
        .map(({ slot, nodeName, address }) => [slot, nodeName, address])
        .sort();
    expect(places('side')).toEqual(places('web'));
    expect(places('side')).toHaveLength(2);
    expect(store.snapshot.count('network')).toBe(1);
    for (const { id } of [...store.snapshot.all('service')])
      etcd.commit(removeService({ ...wish, snapshot: store.snapshot }, id), undefined);
    await clock.pass(500);
    expect(store.snapshot.count('network')).toBe(1);
    for (const task of [...store.snapshot.all('task')]) {
      const expect = store.snapshot.get('task', task.id)!.modRevision;
      etcd.commit([{ table: 'task', key: task.id, value: { ...task, state: 'shutdown' }, expect }], undefined);
    }
    await clock.pass(1_000);
    expect(store.snapshot.count('service')).toBe(0);
    expect(store.snapshot.count('network')).toBe(0);
  });

  it('F13: look at all nodes a few times, not once for each of the many that a new leader first hears in one moment', async () => {
    const clock = new FakeClock();
    const etcd = new MemoryEtcd({ clock });
    const store = etcd.open();
    const nodes = Array.from({ length: 300 }, (_, index) => aNode(`n${index}x`));
    etcd.commit(
      nodes.map((node): Change => ({ table: 'node', key: node.id, value: node, expect: 0 })),
      undefined,
    );
    void store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
    await clock.pass(10);
    /** Each look takes a millisecond. */
    let looks = 0;
    const slow = late(clock, () => looks);
    const liveness = new (class extends BeatLiveness {
      override lastBeatAt(node: NodeId) {
        if (node === nodes[0]!.id) looks++;
        return super.lastBeatAt(node);
      }
    })(slow);
    const scope = new Scope();
    scopes.push(scope);
    const kernel = { clock: slow, random: seededRandom(1), log: silentLog };
    void runControllers(
      { ...kernel, store, liveness, usage: new UsageDesk(slow), removeVolume: async () => {} },
      1,
      scope,
    );
    await clock.pass(10);
    const before = looks;
    for (const [index, { id }] of nodes.entries()) clock.after(index / 10, () => liveness.beat(id));
    await clock.pass(40);
    expect(looks - before).toBeGreaterThan(2);
    expect(looks - before).toBeLessThan(20);
  });

  it('F13: look at services that wait for a place for many nodes together, in a part of their time, and miss no place', async () => {
    const count = 100;
    const nodes = Array.from({ length: 300 }, (_, index) => aNode(`n${index}x`));
    const { clock, etcd, store, wish, liveness, looks } = await decided(nodes);
    const placement = { ...aSpec('web').placement, constraints: ['node.labels.disk == ssd'] };
    const specs = [
      ...Array.from({ length: count }, (_, index) => aSpec(`web${index}`, { replicas: 1, placement })),
      aSpec('everywhere', { mode: 'global' }),
    ];
    etcd.commit(
      specs.flatMap((spec) => createService(wish, spec)),
      undefined,
    );
    await clock.pass(1_000);
    const before = { looks: looks.count, ms: looks.clock.monotonic() };
    // One after the other: a commit each.
    for (const [index, { id }] of nodes.entries())
      clock.after(index * 5, () => {
        const { value, modRevision: expect } = store.snapshot.get('node', id)!;
        const runtimes = ['runc', `v${index}`];
        etcd.commit([{ table: 'node', key: id, value: { ...value, runtimes }, expect }], undefined);
      });
    for (let ms = 0; ms < 3_000; ms += 10) {
      for (const { id } of nodes) liveness.beat(id);
      await clock.pass(10);
    }
    const passedMs = looks.clock.monotonic() - before.ms;
    expect(looks.count - before.looks).toBeGreaterThan(count);
    expect(looks.count - before.looks).toBeLessThan(passedMs / 2);
    const { value, modRevision } = store.snapshot.get('node', nodes[7]!.id)!;
    const labels = { disk: 'ssd' };
    etcd.commit([{ table: 'node', key: value.id, value: { ...value, labels }, expect: modRevision }], undefined);
    await clock.pass(5_000);
    expect([...store.snapshot.tasksOnNode(value.id)]).toHaveLength(count + 1);
  });

  it('F13: look at no service because the agents of its nodes are away and come back, or leases end that hold no singletons of it', async () => {
    const nodes = Array.from({ length: 20 }, (_, index) => aNode(`n${index}x`));
    const { clock, etcd, store, wish, liveness, looks } = await decided(nodes);
    const specs = ['web', 'api'].map((name) => aSpec(name, { replicas: 40 }));
    etcd.commit(
      [...specs, aSpec('everywhere', { mode: 'global' })].flatMap((spec) => createService(wish, spec)),
      undefined,
    );
    await clock.pass(1_000);
    const before = looks.count;
    for (const away of ['unconnected', 'running'] as const)
      for (let ms = 0; ms < 5_000; ms += 100) {
        for (const { id } of nodes) liveness.beat(id, away);
        await clock.pass(100);
        if (ms === 4_000)
          expect([...store.snapshot.all('node')].every((node) => node.away !== '')).toBe(away === 'unconnected');
      }
    for (const fenced of [true, false]) {
      const records = nodes.map(({ id }) => store.snapshot.get('node', id)!);
      etcd.commit(
        records.map(({ value, modRevision: expect }): Change => {
          return { table: 'node', key: value.id, value: { ...value, fenced }, expect };
        }),
        undefined,
      );
      await clock.pass(100);
    }
    expect(looks.count - before).toBe(0);
  });
});

/** The clock of a process that is that much behind with its work. */
function late(clock: FakeClock, byMs: () => number): Clock {
  return {
    now: () => clock.now() + byMs(),
    monotonic: () => clock.monotonic() + byMs(),
    boottime: () => clock.boottime() + byMs(),
    after: (ms, action) => clock.after(ms, action),
    sleep: (ms, signal) => clock.sleep(ms, signal),
  };
}

/** Controllers to whom each look at a service takes a millisecond. */
async function decided(nodes: readonly Node[]) {
  const clock = new FakeClock();
  const etcd = new MemoryEtcd({ clock });
  const store = etcd.open();
  const config: Change = { table: 'cluster', key: 'config', value: aCluster({ rebalancePerMinute: 0 }), expect: 0 };
  etcd.commit(
    [config, ...nodes.map((node): Change => ({ table: 'node', key: node.id, value: node, expect: 0 }))],
    undefined,
  );
  void store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
  await clock.pass(10);
  const looks = { count: 0, clock: late(clock, (): number => looks.count) };
  const { snapshot } = store;
  const tasksOfService = snapshot.tasksOfService.bind(snapshot);
  snapshot.tasksOfService = (id) => {
    looks.count++;
    return tasksOfService(id);
  };
  const liveness = new BeatLiveness(looks.clock);
  for (const { id } of nodes) liveness.beat(id);
  const scope = new Scope();
  scopes.push(scope);
  const random = seededRandom(1);
  const kernel = { clock: looks.clock, random, log: silentLog };
  void runControllers(
    { ...kernel, store, liveness, usage: new UsageDesk(looks.clock), removeVolume: async () => {} },
    1,
    scope,
  );
  const wish = { snapshot, now: clock.now(), newId: () => newId(random) };
  return { clock, etcd, store, wish, liveness, looks };
}
