/** Over random graphs of services and random lives of their tasks: nobody begins before its conditions hold, and everybody once they do. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { restartService } from '#control-plane/reconcilers/service-changes.ts';
import type { Dependency, DependencyCondition } from '#proto/model/order.ts';
import { defaults, type Service } from '#proto/model/service.ts';
import { isActive, isTerminal, type Task } from '#proto/model/task.ts';
import { aNode, aService } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const most = 5;
interface Made {
  readonly replicas: number;
  /** Its tasks end by themselves; those of others become healthy. */
  readonly ends: boolean;
  /** To those before it. */
  readonly edges: readonly { readonly strict: boolean; readonly required: boolean; readonly present: boolean }[];
}
const edge = fc.record({ strict: fc.boolean(), required: fc.boolean(), present: fc.boolean() });
const made: fc.Arbitrary<Made> = fc.record({
  replicas: fc.nat(2),
  ends: fc.boolean(),
  edges: fc.array(edge, { maxLength: most }),
});
const graph = fc.array(made, { minLength: 2, maxLength: most });
const event = fc.record({
  kind: fc.constantFrom('decide', 'decide', 'decide', 'advance', 'advance', 'advance', 'fail', 'sick', 'renew'),
  pick: fc.nat(1_000),
});

function servicesOf(nodes: readonly Made[]): Service[] {
  const conditionOf = (target: number, strict: boolean): DependencyCondition => {
    if (!strict) return 'service_started';
    return nodes[target]!.ends ? 'service_completed_successfully' : 'service_healthy';
  };
  return nodes.map(({ replicas, ends, edges }, index) => {
    const dependsOn = edges.slice(0, index).flatMap(({ present, strict, required }, target): Dependency[] => {
      const condition = conditionOf(target, strict);
      return present ? [{ service: `s${target}`, condition, restart: false, required }] : [];
    });
    return aService(`s${index}`, {
      replicas,
      dependsOn,
      restart: { ...defaults.restart, condition: ends ? 'on-failure' : 'any' },
      update: { ...defaults.update, parallelism: 0, monitorMs: 0, failureAction: 'continue' },
    });
  });
}

/** The condition in the plainest words. None of these services is missing or given up, so an optional one counts like any other. */
function holdsByHand(cluster: DecidedCluster, { service: name, condition }: Dependency): boolean {
  const service = cluster.snapshot.serviceNamed('demo', name)!;
  const tasks = [...cluster.snapshot.tasksOfService(service.id)].filter(
    ({ revision }) => revision === service.revision,
  );
  const good = (task: Task) =>
    condition === 'service_healthy'
      ? task.state === 'running' && task.health === 'healthy'
      : condition === 'service_started'
        ? task.startedAtMs > 0
        : task.state === 'complete';
  const slots = new Set(tasks.filter(good).map(({ slot }) => slot));
  return slots.size >= service.spec.replicas;
}

/** One step of a live task towards what its service is for. */
function advance(cluster: DecidedCluster, task: Task, isJob: boolean): void {
  if (task.nodeId === '' || isTerminal(task.state)) return;
  if (!isActive(task)) cluster.report(task, { state: 'shutdown', finishedAtMs: cluster.now });
  else if (task.state !== 'running')
    cluster.report(task, { state: 'running', startedAtMs: cluster.now, health: 'starting' });
  else if (isJob) cluster.report(task, { state: 'complete', finishedAtMs: cluster.now });
  else if (task.health !== 'healthy') cluster.report(task, { health: 'healthy' });
}

const ends = ({ spec }: Service) => spec.restart.condition === 'on-failure';

function decideAndCheck(cluster: DecidedCluster, service: Service): void {
  const { revision, spec } = cluster.service(service);
  const begun = () => cluster.tasks(service).some((task) => task.revision === revision && task.nodeId !== '');
  const before = begun();
  const may = spec.dependsOn.every((dependency) => holdsByHand(cluster, dependency));
  const { waits } = cluster.decide(service);
  if (!before && begun()) expect(may).toBe(true);
  expect(waits).toBe(!before && !may);
}

describe('services that depend on each other', () => {
  it('begin when their conditions hold, never before, and all of them in the end', () => {
    fc.assert(
      fc.property(graph, fc.array(event, { maxLength: 60 }), (nodes, events) => {
        const services = servicesOf(nodes);
        const cluster = new DecidedCluster([aNode('h1'), aNode('h2')], services);
        for (const { kind, pick } of events) {
          cluster.now += 100;
          const service = services[pick % services.length]!;
          const tasks = cluster.tasks(service);
          const task = tasks[pick % Math.max(1, tasks.length)];
          if (kind === 'decide') decideAndCheck(cluster, service);
          else if (kind === 'renew') cluster.commit(restartService(cluster.wish, service.id));
          else if (!task) continue;
          else if (kind === 'advance') advance(cluster, task, ends(service));
          else if (task.state !== 'running') continue;
          else if (kind === 'fail') cluster.report(task, { state: 'failed', exitCode: 1, finishedAtMs: cluster.now });
          else if (task.health === 'healthy') cluster.report(task, { health: 'unhealthy' });
        }
        for (let round = 0; round < 40; round++) {
          cluster.now += 60_000;
          for (const service of services) {
            decideAndCheck(cluster, service);
            for (const task of cluster.tasks(service)) advance(cluster, task, ends(service));
          }
        }
        for (const service of services) {
          const { revision, spec } = cluster.service(service);
          const done = cluster
            .tasks(service)
            .filter((task) => task.revision === revision && (task.state === 'running' || task.state === 'complete'));
          expect(new Set(done.map(({ slot }) => slot)).size).toBe(spec.replicas);
        }
      }),
      { numRuns: 300 },
    );
  });
});
