/** Preemption against an oracle that tries every set of victims on every node. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import { preempt } from '#control-plane/scheduler/preempt.ts';
import { serviceId, taskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import type { Port } from '#proto/model/service.ts';
import { isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTask, aTemplate, idOf } from '#test/support/builders.ts';

const priorities = { low: 0, mid: 50, high: 100, top: 500 } as const;
const names = Object.keys(priorities) as (keyof typeof priorities)[];
const hostPort: Port = { target: 80, published: 8080, protocol: 'tcp', mode: 'host' };
const gpu = (count: number): GenericResource[] => (count === 0 ? [] : [{ kind: 'gpu', count, names: [] }]);

const ask = fc.record({
  cpuMillis: fc.integer({ min: 0, max: 4 }),
  memoryBytes: fc.integer({ min: 0, max: 4 }),
  gpus: fc.constantFrom(0, 0, 1, 2),
  port: fc.constantFrom(false, false, true),
});
const task = fc.record({
  service: fc.constantFrom(...names),
  node: fc.nat(2),
  state: fc.constantFrom('running' as const, 'running' as const, 'assigned' as const, 'failed' as const),
  wanted: fc.constantFrom('running' as const, 'running' as const, 'running' as const, 'shutdown' as const),
  createdAtMs: fc.nat(3),
  ask,
});
const cluster = fc.record({
  nodes: fc.array(
    fc.record({
      cpuMillis: fc.integer({ min: 1, max: 8 }),
      memoryBytes: fc.integer({ min: 1, max: 8 }),
      gpus: fc.nat(2),
    }),
    { minLength: 1, maxLength: 3 },
  ),
  tasks: fc.array(task, { maxLength: 9 }),
  ask,
  priority: fc.constantFrom(1, 50, 100, 1_000),
});

function subsets<T>(items: readonly T[]): T[][] {
  return Array.from({ length: 1 << items.length }, (_, bits) => items.filter((__, at) => (bits >> at) & 1));
}

it('evicts exactly where some set of less important tasks would do, the least important ones, and none too many', () => {
  fc.assert(
    fc.property(cluster, (made) => {
      const nodes = made.nodes.map(({ gpus, ...capacity }, at) =>
        aNode(`h${at}`, { capacity: { ...capacity, pids: 0, generic: gpu(gpus) } }),
      );
      const tasks = made.tasks.map(({ service, node, ask, ...fields }, at): Task => {
        const on = nodes[node % nodes.length]!;
        return aTask('t', {
          ...fields,
          id: taskId(idOf(`t${at}`)),
          serviceId: serviceId(idOf(service)),
          nodeId: on.id,
          nodeName: on.name,
          reservations: { cpuMillis: ask.cpuMillis, memoryBytes: ask.memoryBytes, pids: 0, generic: gpu(ask.gpus) },
          generic: gpu(ask.gpus),
          hostPorts: ask.port ? [hostPort] : [],
        });
      });
      const spec = aSpec('api', {
        ports: made.ask.port ? [hostPort] : [],
        template: aTemplate({
          reservations: { ...made.ask, pids: 0, generic: gpu(made.ask.gpus) },
        }),
      });
      const request = requestOf(serviceId(idOf('api')), spec, spec.template);
      const ledgerOf = (present: readonly Task[]) => {
        const ledger = new Ledger();
        for (const name of names) ledger.setService(undefined, aService(name, { priority: priorities[name] }));
        for (const node of nodes) ledger.setNode(node.id, node);
        for (const task of present) ledger.setTask(task.id, task);
        return ledger;
      };
      const priorityOf = (task: Task) => priorities[names.find((name) => idOf(name) === task.serviceId)!];
      const fits = (node: Node, present: readonly Task[]) =>
        new Scheduler(ledgerOf(present)).open({ ...request, only: node.id }).pick() !== undefined;
      /** Every set that would do, on every node; what is stopping goes anyway. */
      const options = nodes.flatMap((node) => {
        const present = tasks.filter((task) => task.nodeId === node.id && occupiesNode(task) && isActive(task));
        return subsets(present.filter((task) => priorityOf(task) < made.priority))
          .filter((gone) =>
            fits(
              node,
              present.filter((task) => !gone.includes(task)),
            ),
          )
          .map((gone) => ({ node, gone }));
      });
      const most = (gone: readonly Task[]) => Math.max(-1, ...gone.map(priorityOf));
      const found = preempt(ledgerOf(tasks), request, made.priority, (id) =>
        tasks.filter(({ nodeId }) => nodeId === id),
      );
      expect(found !== undefined).toBe(options.length > 0);
      if (options.length === 0) return;
      const victims = found!.victims;
      const same = options.filter(({ node }) => node.id === found!.usage.node.id);
      expect(victims.every((task) => priorityOf(task) < made.priority && isActive(task))).toBe(true);
      expect(most(victims)).toBe(Math.min(...options.map(({ gone }) => most(gone))));
      expect(
        same.some(({ gone }) => gone.length === victims.length && gone.every((task) => victims.includes(task))),
      ).toBe(true);
      expect(
        same.some(({ gone }) => gone.length < victims.length && gone.every((task) => victims.includes(task))),
      ).toBe(false);
    }),
    { numRuns: 600 },
  );
});
