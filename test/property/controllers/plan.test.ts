/** What a plan says is what the cluster then comes to, seat by seat: on generated clusters, for edits of every kind. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { planTasks } from '#control-plane/controllers/plan.ts';
import { createService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec, defaults, type Placement, type ServiceSpec } from '#proto/model/service.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const placement: fc.Arbitrary<Placement> = fc.record({
  constraints: fc.constantFrom([], [], ['node.labels.zone == a'], ['node.labels.zone != b']),
  spread: fc.constantFrom([], ['node.labels.zone']),
  maxReplicasPerNode: fc.constantFrom(0, 0, 1, 2),
  platforms: fc.constant([]),
  strategy: fc.constantFrom('' as const, 'spread' as const, 'binpack' as const),
  affinities: fc.constantFrom(
    [],
    [],
    [{ service: 'demo/s0', scope: 'node', apart: true, preferred: true }],
    [{ service: 'demo/s0', scope: 'node.labels.zone', apart: false, preferred: true }],
  ),
});

const spec = (name: string): fc.Arbitrary<ServiceSpec> =>
  fc
    .record({
      mode: fc.constantFrom('replicated' as const, 'replicated' as const, 'global' as const),
      replicas: fc.integer({ min: 0, max: 6 }),
      image: fc.integer({ min: 1, max: 3 }),
      memoryBytes: fc.constantFrom(0, 1, 3),
      order: fc.constantFrom('stop-first' as const, 'start-first' as const),
      parallelism: fc.constantFrom(0, 1, 1, 2),
      delayMs: fc.constantFrom(0, 0, 60),
      monitorMs: fc.constantFrom(0, 0, 30),
      placement,
    })
    .map(({ mode, replicas, image, memoryBytes, order, parallelism, delayMs, monitorMs, placement }) =>
      aSpec(name, {
        mode,
        replicas: mode === 'global' ? 0 : replicas,
        placement,
        update: { ...defaults.update, order, parallelism, delayMs, monitorMs },
        template: aTemplate({
          container: containerSpec(`web:${image}`),
          reservations: { ...noResources, memoryBytes },
        }),
      }),
    );

const node = fc.record({
  zone: fc.constantFrom('a', 'b', 'c'),
  memoryBytes: fc.integer({ min: 2, max: 12 }),
  availability: fc.constantFrom('active' as const, 'active' as const, 'active' as const, 'drain' as const),
});

const scene = fc.record({
  nodes: fc.array(node, { minLength: 1, maxLength: 6 }),
  services: fc
    .array(fc.nat(), { minLength: 0, maxLength: 3 })
    .chain((list) => fc.tuple(...list.map((_, i) => spec(`s${i}`)))),
  /** Which service is edited; one more than there are: a new one. */
  edited: fc.nat({ max: 3 }),
  next: spec('x'),
});

const weight = { start: 1, stop: -1, change: 0 };
const seatOf = ({ slot, nodeName }: Pick<Task, 'slot' | 'nodeName'>) => `${slot} ${nodeName}`;

it('a plan is what then happens, on 500 clusters', () => {
  fc.assert(
    fc.property(scene, ({ nodes, services, edited, next }) => {
      const cluster = new DecidedCluster(
        nodes.map(({ zone, memoryBytes, availability }, index) =>
          aNode(`h${index + 1}`, {
            labels: { zone },
            availability,
            capacity: { ...noResources, cpuMillis: 4_000, memoryBytes },
          }),
        ),
        services.map((spec) => aService(spec.name, spec)),
      );
      const records = services.map((spec) => cluster.snapshot.serviceNamed('demo', spec.name)!);
      for (const service of records) cluster.settle(service, { passMs: 100 });
      const before = records[edited % (records.length + 1)];
      fc.pre(!before || before.spec.mode === next.mode);
      const spec = { ...next, name: before?.spec.name ?? 'x' };
      const changes = before ? updateService(cluster.wish, before.id, spec) : createService(cluster.wish, spec);
      const id = changes.find((change) => change.table === 'service')?.key;
      if (id === undefined) return;
      const seats = new Map<string, number>();
      const waiting: number[] = [];
      const count = (seat: string, by: number) => seats.set(seat, (seats.get(seat) ?? 0) + by);
      for (const task of before ? cluster.active(before) : []) if (task.nodeId !== '') count(seatOf(task), 1);
      for (const { action, slot, node, reason } of [
        ...planTasks(cluster.snapshot, changes, cluster.now).values(),
      ].flat()) {
        // Of tasks that come and go on the way nobody will ever hear.
        expect(reason).not.toContain('plan0');
        if (node !== '') count(seatOf({ slot, nodeName: node }), weight[action]);
        else if (action === 'start') waiting.push(slot);
      }
      const others = [...cluster.snapshot.all('task')].filter((task) => task.serviceId !== id && isActive(task));
      cluster.commit(changes);
      const service = cluster.snapshot.serviceNamed('demo', spec.name)!;
      cluster.settle(service, { passMs: 100 });
      const real = cluster.active(service);
      // Nothing stops that was never there.
      expect(Math.min(0, ...seats.values())).toBe(0);
      const planned = [...seats].flatMap(([seat, times]) => Array<string>(times).fill(seat));
      expect(planned.sort()).toEqual(real.flatMap((task) => (task.nodeId === '' ? [] : [seatOf(task)])).sort());
      expect(real.flatMap(({ nodeId, slot }) => (nodeId === '' ? [slot] : []))).toEqual(
        expect.arrayContaining(waiting),
      );
      for (const task of others) expect(cluster.snapshot.task(task.id)).toEqual(task);
    }),
    { numRuns: 500 },
  );
});
