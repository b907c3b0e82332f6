/** Autoscaling in the loop: what agents report moves the number of tasks, kept beside the spec, with the reason. */
import { afterEach, describe, expect, it } from 'vitest';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import { createService, scaleService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { Autoscale } from '#proto/model/autoscale.ts';
import { nodeId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { isActive } from '#proto/model/task.ts';
import { aNode, anAutoscale, aSpec, idOf } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const scopes: Scope[] = [];
afterEach(async () => {
  for (const scope of scopes.splice(0)) await scope.close();
});

/** A leader with one autoscaled service, whose tasks run as soon as they are assigned and use `cpuMillis` each. */
async function cluster(autoscale: Partial<Autoscale>, fields: Partial<ServiceSpec> = {}) {
  const clock = new FakeClock();
  const etcd = new MemoryEtcd({ clock, commitMs: 1, deliverMs: 1 });
  const store = etcd.open();
  const node = aNode('h1', { capacity: { ...noResources, cpuMillis: 64_000, memoryBytes: 2 ** 36 } });
  etcd.commit([{ table: 'node', key: node.id, value: node, expect: 0 }], undefined);
  void store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
  await clock.pass(10);
  const liveness = new BeatLiveness(clock);
  const usage = new UsageDesk(clock);
  const load = { cpuMillis: 700, silent: false };
  const active = () => [...store.snapshot.all('task')].filter((task) => isActive(task));
  const turn = () => {
    liveness.beat(node.id);
    const tasks = active().flatMap(({ id, state }) =>
      state === 'running' ? [{ taskId: id, cpuMillis: load.cpuMillis, memoryBytes: 0, connections: 0 }] : [],
    );
    if (!load.silent) usage.take({ tasks, services: [] }, (id) => store.snapshot.task(id)?.serviceId);
    const started = [...store.snapshot.all('task')].flatMap((task): Change[] => {
      const { modRevision: expect } = store.snapshot.get('task', task.id)!;
      const state = isActive(task) ? 'running' : 'shutdown';
      if (task.nodeId === '' || task.state === state) return [];
      return [{ table: 'task', key: task.id, value: { ...task, state }, expect }];
    });
    if (started.length > 0) void store.commit(started).catch(() => {});
    clock.after(500, turn);
  };
  turn();
  const random = seededRandom(1);
  const lead = (epoch: number) => {
    const scope = new Scope();
    scopes.push(scope);
    void runControllers(
      { store, clock, random, log: silentLog, liveness, usage, removeVolume: async () => {} },
      epoch,
      scope,
    );
    return scope;
  };
  const scope = lead(1);
  const context = () => ({ snapshot: store.snapshot, now: clock.now(), newId: () => newId(random) });
  const spec = aSpec('web', { replicas: 1, ...fields, autoscale: anAutoscale(autoscale) });
  void store.commit(createService(context(), spec));
  await clock.pass(3_000);
  const service = () => [...store.snapshot.all('service')][0]!;
  return { clock, etcd, store, usage, load, active, spec, context, service, lead, scope };
}

describe('an autoscaled service', () => {
  it('begins with its replicas, and gets more when its tasks do more, with the reason', async () => {
    const { clock, load, active, service } = await cluster({});
    expect(active()).toHaveLength(1);
    load.cpuMillis = 2_000;
    await clock.pass(10_000);
    load.cpuMillis = 700;
    expect(active().length).toBeGreaterThanOrEqual(3);
    expect(service().autoscaled?.why).toMatch(/^cpu \d+ % of 70 %$/);
    expect(active().at(-1)!.why).toMatch(/^autoscaled to \d+: cpu \d+ % of 70 %$/);
  });

  it('keeps its number over an apply of the same file with something else changed', async () => {
    const { clock, store, load, active, spec, context, service } = await cluster({});
    load.cpuMillis = 2_000;
    await clock.pass(4_500);
    load.cpuMillis = 700;
    await clock.pass(10_000);
    const before = active().length;
    expect(before).toBeGreaterThan(1);
    void store.commit(updateService(context(), service().id, { ...spec, labels: { changed: 'yes' } }));
    await clock.pass(8_000);
    expect(active()).toHaveLength(before);
    expect(service().spec.labels).toEqual({ changed: 'yes' });
  });

  it('loses what it has too much after its window, and writes nothing while nothing changes', async () => {
    const { clock, etcd, load, active } = await cluster({}, { replicas: 6 });
    await clock.pass(5_000);
    const before = etcd.revision;
    await clock.pass(30_000);
    expect(etcd.revision).toBe(before);
    load.cpuMillis = 100;
    await clock.pass(50_000);
    expect(active()).toHaveLength(6);
    await clock.pass(25_000);
    expect(active().length).toBeLessThanOrEqual(2);
  });

  it('keeps its number while nobody measures', async () => {
    const { clock, load, active } = await cluster({}, { replicas: 4 });
    load.silent = true;
    await clock.pass(300_000);
    expect(active()).toHaveLength(4);
  });

  it('has a whole window of grace after a change of leader', async () => {
    const { clock, store, load, active, lead, scope } = await cluster({}, { replicas: 5 });
    load.cpuMillis = 10;
    await clock.pass(40_000);
    await scope.close();
    void store.takeLeadership(store.leadership, { epoch: 2, replica: 'm1', address: '' }).catch(() => {});
    await clock.pass(10);
    lead(store.leadership?.epoch ?? 1);
    await clock.pass(55_000);
    expect(active()).toHaveLength(5);
    await clock.pass(15_000);
    expect(active()).toHaveLength(1);
  });

  it('obeys new bounds at once', async () => {
    const { clock, store, active, spec, context, service } = await cluster({});
    const autoscale = anAutoscale({ min: 3 });
    void store.commit(updateService(context(), service().id, { ...spec, autoscale }));
    await clock.pass(1_000);
    expect(active()).toHaveLength(3);
  });

  it('has no task while nobody calls, and one at once when somebody does, by one commit', async () => {
    const { clock, etcd, usage, active, service } = await cluster({ min: 0, cpuPercent: 0, idleMs: 10_000 });
    expect(active()).toHaveLength(1);
    usage.take({ tasks: [], services: [{ serviceId: service().id, connections: 3 }] }, () => undefined);
    await clock.pass(9_000);
    expect(active()).toHaveLength(1);
    // Of the last two seconds no node has reported yet.
    await clock.pass(2_500);
    expect(active()).toHaveLength(1);
    await clock.pass(3_000);
    expect(active()).toHaveLength(0);
    await clock.pass(60_000);
    const before = etcd.revision;
    usage.called(service().id, nodeId(idOf('h1')));
    usage.called(service().id, nodeId(idOf('h1')));
    await clock.pass(5);
    expect(active().map(({ why, state }) => `${state}: ${why}`)).toEqual([
      'assigned: autoscaled to 1: a request arrived at h1',
    ]);
    expect(etcd.revision - before).toBe(1);
    await clock.pass(8_000);
    expect(active()).toHaveLength(1);
  });

  it('keeps its last task while somebody has a connection open', async () => {
    const { clock, usage, active, store } = await cluster({ min: 0, cpuPercent: 0, idleMs: 5_000 });
    for (let second = 0; second < 30; second += 2) {
      const tasks = active().map(({ id }) => ({ taskId: id, cpuMillis: 0, memoryBytes: 0, connections: 1 }));
      usage.take({ tasks, services: [] }, (id) => store.snapshot.task(id)?.serviceId);
      await clock.pass(2_000);
    }
    expect(active()).toHaveLength(1);
    await clock.pass(10_000);
    expect(active()).toHaveLength(0);
  });

  it('goes by its schedule, on the second', async () => {
    const schedule = [{ cron: '* * * * *', timezone: '', min: 4, max: 6 }];
    const { clock, store, active, spec, context, service } = await cluster({});
    const autoscale = anAutoscale({ schedule });
    void store.commit(updateService(context(), service().id, { ...spec, autoscale }));
    await clock.pass(61_000 + 3_000);
    expect(active()).toHaveLength(4);
    expect(service().autoscaled?.why).toBe('at least 4 by the schedule * * * * *');
  });

  it('cannot be scaled by hand: it says what to do instead', async () => {
    const { context, service } = await cluster({ min: 1, max: 4 });
    expect(() => scaleService(context(), service().id, 3)).toThrow(/autoscaled between 1 and 4/);
  });
});
