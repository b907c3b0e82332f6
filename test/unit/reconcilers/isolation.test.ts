/** `x-on-unhealthy: isolate`: who runs on for inspection while another one has its seat, and when that is over. */
import { describe, expect, it } from 'vitest';
import { explainTask, planTasks } from '#control-plane/controllers/plan.ts';
import { removeService, scaleService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec, defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isIsolated, isServing, type Task } from '#proto/model/task.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const healthCheck = { ...defaults.healthCheck, test: ['CMD', 'true'], onUnhealthy: 'isolate' } as const;
const template = aTemplate({ container: containerSpec('web:1', { healthCheck }) });

/** `web` on three nodes, healthy. */
function running(spec: Partial<ServiceSpec> = {}) {
  const web = aService('web', { template, ...spec });
  const cluster = new DecidedCluster(
    ['h1', 'h2', 'h3'].map((name) => aNode(name)),
    [web],
  );
  settle(cluster, web);
  cluster.now += 60_000;
  return { cluster, web };
}

/** Whoever comes up is healthy. */
function settle(cluster: DecidedCluster, web: Service) {
  cluster.settle(web);
  for (const task of cluster.active(web)) if (task.health === '') cluster.report(task, { health: 'healthy' });
  cluster.settle(web);
}

function sicken(cluster: DecidedCluster, web: Service, slot: number): Task {
  const task = cluster.active(web).find((one) => one.slot === slot)!;
  const sick = { ...task, health: 'unhealthy', message: 'unhealthy: GET /up: 503' } as const;
  cluster.put('task', sick);
  return sick;
}

const now = (cluster: DecidedCluster, { id }: Task) => cluster.snapshot.task(id)!;

describe('an unhealthy task that is to be isolated', () => {
  it('leaves its seat to another one in the same commit, and runs on without calls', () => {
    const { cluster, web } = running();
    const sick = sicken(cluster, web, 2);
    cluster.decide(web);
    const isolated = now(cluster, sick);
    expect(isolated).toMatchObject({
      wanted: 'running',
      state: 'running',
      why: 'isolated: unhealthy: GET /up: 503',
      isolatedUntilMs: cluster.now + 3_600_000,
    });
    expect(isServing({ ...isolated, health: 'healthy' })).toBe(false);
    const next = cluster.active(web).find(({ slot }) => slot === 2)!;
    expect(next).toMatchObject({ state: 'assigned', startAfterMs: 0 });
    expect(next.why).toBe(`restarts web.2 (${sick.id.slice(0, 5)}): unhealthy: GET /up: 503`);
    settle(cluster, web);
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([1, 2, 3]);
    expect(isIsolated(now(cluster, sick))).toBe(true);
    expect(explainTask(cluster.snapshot, isolated).summary).toMatch(
      /^web\.2 \(.{5}\) is on h\d, isolated until .* UTC: /,
    );
  });

  it('keeps what it has reserved of its node', () => {
    const reservations = { ...noResources, memoryBytes: 5 * 2 ** 30 };
    const { cluster, web } = running({ template: { ...template, reservations }, replicas: 3 });
    const nodes = new Set(cluster.active(web).map(({ nodeName }) => nodeName));
    expect(nodes.size).toBe(3);
    const sick = sicken(cluster, web, 1);
    cluster.decide(web);
    // Of 8 GiB on each node there is no room for another one: what is isolated makes way.
    expect(now(cluster, sick)).toMatchObject({ wanted: 'shutdown' });
    expect(now(cluster, sick).why).toMatch(/^web\.1 \(.{5}\) found no place beside it$/);
    const waiting = cluster.active(web).find(({ slot }) => slot === 1)!;
    expect(waiting).toMatchObject({ nodeName: '', state: 'pending' });
    expect(waiting.message).toBe(`waits for room beside web.1 (${sick.id.slice(0, 5)}), which was isolated and stops`);
    settle(cluster, web);
    expect(cluster.active(web).find(({ slot }) => slot === 1)).toMatchObject({ state: 'running' });
  });

  it('is one of so many at once; what more becomes unhealthy is ended by its agent, as ever', () => {
    const { cluster, web } = running({ isolation: { atMost: 2, forMs: 60_000 } });
    const sick = [1, 2, 3].map((slot) => sicken(cluster, web, slot));
    cluster.decide(web);
    const states = sick.map((task) => now(cluster, task));
    expect(states.map(isIsolated)).toEqual([true, true, false]);
    expect(states[2]).toMatchObject({
      isolationRefused: true,
      wanted: 'running',
      why: 'not isolated: 2 of 2 isolated already',
    });
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([1, 2, 3]);
    cluster.report(states[2]!, { state: 'failed', error: 'unhealthy: GET /up: 503', finishedAtMs: cluster.now });
    cluster.decide(web);
    expect(cluster.active(web).find(({ slot }) => slot === 3)!.why).toMatch(/^restarts web\.3 .*: unhealthy: GET/);
  });

  it('is stopped when its time is up, and the loop is told to look then', () => {
    const { cluster, web } = running({ isolation: { atMost: 1, forMs: 60_000 } });
    const sick = sicken(cluster, web, 1);
    expect(cluster.decide(web).wakeAtMs).toBeLessThanOrEqual(cluster.now + 60_000);
    settle(cluster, web);
    cluster.now += 59_999;
    cluster.decide(web);
    expect(isIsolated(now(cluster, sick))).toBe(true);
    cluster.now += 1;
    cluster.decide(web);
    expect(now(cluster, sick)).toMatchObject({ wanted: 'shutdown', why: 'its isolation is over' });
    settle(cluster, web);
    expect(cluster.active(web)).toHaveLength(3);
  });

  it('stays when it gets well again, and counts for nothing', () => {
    const { cluster, web } = running();
    const sick = sicken(cluster, web, 1);
    settle(cluster, web);
    cluster.put('task', { ...now(cluster, sick), health: 'healthy', message: 'running' });
    settle(cluster, web);
    expect(isIsolated(now(cluster, sick))).toBe(true);
    expect(cluster.active(web).filter(({ slot }) => slot === 1)).toHaveLength(1);
  });

  it.each<[string, (cluster: DecidedCluster, web: Service) => void]>([
    ['its service is removed', (cluster, web) => cluster.commit(removeService(cluster.wish, web.id))],
    ['its seat is given up', (cluster, web) => cluster.commit(scaleService(cluster.wish, web.id, 0))],
    [
      'another revision comes',
      (cluster, web) =>
        cluster.commit(
          updateService(cluster.wish, web.id, { ...web.spec, template: { ...template, runtime: 'crun' } }),
        ),
    ],
    [
      'its node is drained',
      (cluster) => {
        for (const node of cluster.snapshot.all('node'))
          if (node.name === 'h1') cluster.put('node', { ...node, availability: 'drain' });
      },
    ],
  ])('is stopped when %s', (_, happen) => {
    const { cluster, web } = running();
    const onFirst = cluster.active(web).find(({ nodeName }) => nodeName === 'h1')!;
    const sick = sicken(cluster, web, onFirst.slot);
    settle(cluster, web);
    happen(cluster, web);
    cluster.decide(web);
    expect(cluster.snapshot.task(sick.id)?.wanted).toBe('shutdown');
  });

  it('outlives the way back from the revision that it failed in', () => {
    const { cluster, web } = running({
      update: { ...defaults.update, failureAction: 'rollback', monitorMs: 5_000 },
    });
    cluster.commit(updateService(cluster.wish, web.id, { ...web.spec, template: { ...template, runtime: 'crun' } }));
    cluster.decide(web);
    cluster.obey(web);
    cluster.decide(web);
    cluster.obey(web);
    const moved = cluster.active(web).find(({ revision }) => revision === 2)!;
    const sick = sicken(cluster, web, moved.slot);
    settle(cluster, web);
    cluster.now += 10_000;
    settle(cluster, web);
    expect(cluster.service(web)).toMatchObject({ revision: 1 });
    expect(cluster.service(web).rollout.message).toContain('unhealthy: GET /up: 503');
    expect(isIsolated(now(cluster, sick))).toBe(true);
    expect(cluster.active(web).map(({ revision }) => revision)).toEqual([1, 1, 1]);
  });

  it('is none where nothing would come in its place', () => {
    const { cluster, web } = running({ restart: { ...defaults.restart, maxAttempts: 1 } });
    const first = sicken(cluster, web, 1);
    settle(cluster, web);
    cluster.put('task', { ...now(cluster, first), wanted: 'shutdown', state: 'shutdown', finishedAtMs: cluster.now });
    const second = sicken(cluster, web, 1);
    cluster.decide(web);
    expect(now(cluster, second)).toMatchObject({
      isolationRefused: true,
      why: 'not isolated: its restart policy allows no replacement',
    });
  });

  it('is named by a plan that would stop it', () => {
    const { cluster, web } = running();
    sicken(cluster, web, 3);
    settle(cluster, web);
    const planned = planTasks(cluster.snapshot, scaleService(cluster.wish, web.id, 2), cluster.now).get(web.id)!;
    expect(planned.filter(({ action }) => action === 'stop').map(({ slot }) => slot)).toEqual([3, 3]);
  });
});
