/** Who waits for whom to start and to stop, and who is renewed with whom. */
import { describe, expect, it } from 'vitest';
import { renewDependents } from '#control-plane/reconcilers/dependents.ts';
import { removeService, restartService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { Dependency } from '#proto/model/order.ts';
import { containerSpec, defaults, idleRollout, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isActive } from '#proto/model/task.ts';
import { aNode, anAutoscale, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nodes = () => ['h1', 'h2'].map((name) => aNode(name));
const on = (service: string, fields: Partial<Dependency> = {}): Dependency => ({
  service,
  condition: 'service_started',
  restart: false,
  required: true,
  ...fields,
});
const healthy = { condition: 'service_healthy' } as const;
const completed = { condition: 'service_completed_successfully' } as const;
const db = (spec: Partial<ServiceSpec> = {}, fields: Partial<Service> = {}) =>
  aService('db', { replicas: 1, ...spec }, fields);
const web = (dependency: Dependency, spec: Partial<ServiceSpec> = {}) =>
  aService('web', { replicas: 2, dependsOn: [dependency], ...spec });
const image = (name: string) => aTemplate({ container: containerSpec(name) });
const messages = (cluster: DecidedCluster, service: Service) => cluster.active(service).map(({ message }) => message);
const placed = (cluster: DecidedCluster, service: Service) =>
  cluster.active(service).filter(({ nodeId }) => nodeId !== '').length;

describe('a service that depends on another one', () => {
  it('is nowhere until all tasks of that one have started', () => {
    const [first, second] = [db({ replicas: 2 }), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [second, first]);
    expect(cluster.decide(second).waits).toBe(true);
    expect(messages(cluster, second)).toEqual(['waits for db to start', 'waits for db to start']);
    cluster.decide(first);
    cluster.report(cluster.tasks(first)[0]!, { state: 'running', startedAtMs: cluster.now });
    cluster.decide(second);
    expect(placed(cluster, second)).toBe(0);
    cluster.report(cluster.tasks(first)[1]!, { state: 'running', startedAtMs: cluster.now });
    expect(cluster.decide(second).waits).toBe(false);
    expect(placed(cluster, second)).toBe(2);
  });

  it('waits for as many as there are to be, and for none of a service that nobody calls', () => {
    const autoscale = anAutoscale({ min: 0 });
    const asleep = { replicas: 0, why: 'no request for 60 s', atMs: 0 };
    const [first, second] = [db({ replicas: 2, autoscale }, { autoscaled: asleep }), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [second, first]);
    cluster.decide(first);
    expect(cluster.decide(second).waits).toBe(false);
    expect(placed(cluster, second)).toBe(2);
  });

  it('says why a task of that one is on no node, but not what that one waits for itself', () => {
    const nowhere = { placement: { ...defaults.placement, constraints: ['node.labels.zone == z'] } };
    const [first, second] = [db({ replicas: 1, ...nowhere }), web(on('db'))];
    const third = aService('third', { replicas: 1, dependsOn: [on('web')] });
    const cluster = new DecidedCluster(nodes(), [first, second, third]);
    for (const service of [first, second, third]) cluster.decide(service);
    cluster.decide(third);
    expect(messages(cluster, second)[0]).toMatch(
      /^waits for db to start \(db\.1 \(.{5}\): no node fits \(2 in all\): 2 .*node\.labels\.zone == z\)$/,
    );
    expect(messages(cluster, third)).toEqual(['waits for web to start']);
  });

  it('waits until it is healthy, and no more once it has begun', () => {
    const [first, second] = [db(), web(on('db', healthy))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.decide(first);
    const [task] = cluster.tasks(first);
    cluster.report(task!, { state: 'running', health: 'starting' });
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toBe('waits for db to be healthy');
    cluster.report(task!, { state: 'running', health: 'healthy' });
    cluster.settle(second);
    expect(placed(cluster, second)).toBe(2);
    // The dependency is gone for a while: nobody who depends on it is held up by that.
    cluster.report(task!, { state: 'failed', health: 'unhealthy' });
    cluster.report(cluster.active(second)[0]!, { state: 'failed', startedAtMs: 1, finishedAtMs: 9_000 });
    cluster.settle(second);
    expect(placed(cluster, second)).toBe(2);
  });

  it('says that it waits in vain for the health of what has no check', () => {
    const [first, second] = [db(), web(on('db', healthy))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.settle(first);
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toMatch(
      /^waits for db to be healthy in vain: db\.1 \(.....\) has no health check$/,
    );
  });

  it('waits for an end with 0, and in vain for another one', () => {
    const policy = { ...defaults.restart, condition: 'on-failure', maxAttempts: 1 } as const;
    const [first, second] = [db({ restart: policy }), web(on('db', completed))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.settle(first);
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toBe('waits for db to complete');
    cluster.report(cluster.active(first)[0]!, { state: 'failed', exitCode: 3, finishedAtMs: cluster.now });
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toBe('waits for db to complete');
    cluster.settle(first);
    cluster.report(cluster.active(first)[0]!, { state: 'failed', exitCode: 3, finishedAtMs: cluster.now });
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toMatch(/^waits for db to complete in vain: db\.1 \(.....\): exit code 3$/);
    cluster.commit(restartService(cluster.wish, first.id));
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toBe('waits for db to complete');
    cluster.settle(first);
    cluster.report(cluster.active(first)[0]!, { state: 'complete', finishedAtMs: cluster.now });
    cluster.settle(second);
    expect(placed(cluster, second)).toBe(2);
  });

  it('waits for none that is missing, has failed or was scaled to 0 where it can do without', () => {
    const second = web(on('db', { ...completed, required: false }));
    const cluster = new DecidedCluster(nodes(), [second]);
    cluster.settle(second);
    expect(placed(cluster, second)).toBe(2);
    const needing = new DecidedCluster(nodes(), [web(on('db'))]);
    needing.decide(second);
    expect(messages(needing, second)[0]).toBe('waits for db to start in vain: there is no such service');
    const idle = new DecidedCluster(nodes(), [db({ replicas: 0 }), second]);
    idle.settle(second);
    expect(placed(idle, second)).toBe(2);
  });

  it('keeps its old tasks until the new revision of the other one is healthy', () => {
    const [first, second] = [db(), web(on('db', healthy))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.decide(first);
    cluster.report(cluster.tasks(first)[0]!, { state: 'running', health: 'healthy' });
    cluster.settle(second);
    for (const service of [first, second]) {
      const { spec } = cluster.service(service);
      cluster.commit(updateService(cluster.wish, service.id, { ...spec, template: image('web:2') }));
    }
    cluster.settle(second);
    expect(cluster.active(second).map(({ revision, state }) => `${revision} ${state}`)).toEqual([
      '1 running',
      '1 running',
    ]);
    // One that ends meanwhile is followed by one of the revision it had.
    cluster.report(cluster.active(second)[0]!, { state: 'failed', startedAtMs: 1, finishedAtMs: 9_000 });
    cluster.settle(second);
    expect(cluster.active(second).map(({ revision }) => revision)).toEqual([1, 1]);
    cluster.settle(first);
    cluster.report(cluster.active(first)[0]!, { state: 'running', health: 'healthy' });
    for (let round = 0; round < 10; round++) {
      cluster.settle(second);
      cluster.now += 5_000;
    }
    expect(cluster.active(second).map(({ revision }) => revision)).toEqual([2, 2]);
  });

  it('waits on with a newer revision that comes before the first one has begun', () => {
    const [first, second] = [db(), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.decide(second);
    cluster.commit(restartService(cluster.wish, second.id));
    cluster.settle(second);
    expect(cluster.active(second).map(({ revision, nodeId }) => `${revision} ${nodeId}`)).toEqual(['2 ', '2 ']);
  });

  it('waits in vain for one whose rollout stopped', () => {
    const paused = { ...idleRollout, state: 'paused', message: 'db.1 failed' } as const;
    const [first, second] = [db({}, { rollout: paused }), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.decide(second);
    expect(messages(cluster, second)[0]).toBe('waits for db to start in vain: its rollout stopped: db.1 failed');
  });
});

describe('removing services', () => {
  it('stops those that depend on others first', () => {
    const [first, second] = [db(), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [first, second]);
    cluster.settle(first);
    cluster.settle(second);
    cluster.commit([...removeService(cluster.wish, first.id), ...removeService(cluster.wish, second.id)]);
    cluster.decide(first);
    expect(cluster.tasks(first).every(isActive)).toBe(true);
    cluster.settle(second);
    expect(cluster.snapshot.service(second.id)).toBeUndefined();
    cluster.settle(first);
    expect(cluster.snapshot.service(first.id)).toBeUndefined();
  });

  it('stops one alone at once, and two that depend on each other as well', () => {
    const [first, second] = [db({ dependsOn: [on('web')] }), web(on('db'))];
    const cluster = new DecidedCluster(nodes(), [db(), second]);
    cluster.settle(first);
    cluster.settle(second);
    cluster.put('service', first);
    cluster.commit([...removeService(cluster.wish, first.id), ...removeService(cluster.wish, second.id)]);
    cluster.settle(first);
    expect(cluster.snapshot.service(first.id)).toBeUndefined();
  });
});

describe('a dependency with restart: true', () => {
  const chain = () => [
    db(),
    web(on('db', { restart: true })),
    aService('edge', { replicas: 1, dependsOn: [on('web', { restart: true })] }),
    aService('other', { replicas: 1, dependsOn: [on('db')] }),
  ];
  const revisions = (cluster: DecidedCluster, services: readonly Service[]) =>
    services.map((service) => cluster.service(service).revision);

  it('renews its dependents with it, and theirs, but not those that did not ask for it', () => {
    const services = chain();
    const cluster = new DecidedCluster(nodes(), services);
    const wish = restartService(cluster.wish, services[0]!.id);
    const { changes, dependents } = renewDependents(cluster.wish, wish);
    expect(dependents.map(({ service, because }) => `${service.spec.name} for ${because}`)).toEqual([
      'web for db',
      'edge for web',
    ]);
    cluster.commit(changes);
    expect(revisions(cluster, services)).toEqual([2, 2, 2, 1]);
    expect(cluster.service(services[1]!).rollout.message).toBe('it depends on db');
  });

  it('renews once what the wish renews anyway, and with the spec that the wish gives it', () => {
    const services = chain();
    const cluster = new DecidedCluster(nodes(), services);
    const [first, second] = services as [Service, Service];
    const wish = [
      ...updateService(cluster.wish, first.id, { ...first.spec, template: image('db:2') }),
      ...updateService(cluster.wish, second.id, { ...second.spec, replicas: 5 }),
    ];
    const { changes } = renewDependents(cluster.wish, wish);
    const keys = changes.map(({ table, key }) => `${table} ${key}`);
    expect(new Set(keys).size).toBe(keys.length);
    cluster.commit(changes);
    expect(cluster.service(second)).toMatchObject({ revision: 3, spec: { replicas: 5 }, previousRevision: 1 });
  });

  it('renews nobody where only the number of replicas changes', () => {
    const services = chain();
    const cluster = new DecidedCluster(nodes(), services);
    const wish = updateService(cluster.wish, services[0]!.id, { ...services[0]!.spec, replicas: 3 });
    expect(renewDependents(cluster.wish, wish).dependents).toEqual([]);
  });
});
