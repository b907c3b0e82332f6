/** A plan says what an apply would do, and does nothing. */
import { describe, expect, it } from 'vitest';
import { explainTask, planTasks } from '#control-plane/controllers/plan.ts';
import { createService, removeService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { Dependency, DependencyCondition } from '#proto/model/order.ts';
import { containerSpec, defaults } from '#proto/model/service.ts';
import { aNode, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

function cluster(...services: ReturnType<typeof aService>[]): DecidedCluster {
  const made = new DecidedCluster(
    ['h1', 'h2', 'h3'].map((name) => aNode(name)),
    services,
  );
  for (const service of services) made.settle(service);
  return made;
}

describe('a plan', () => {
  it('places the tasks of a new service as the apply then does', () => {
    const made = cluster();
    const changes = createService(made.wish, aSpec('web'));
    const [tasks] = [...planTasks(made.snapshot, changes, made.now).values()];
    expect(tasks!.map(({ action, slot, node }) => `${action} ${slot} ${node}`)).toEqual([
      'start 1 h1',
      'start 2 h2',
      'start 3 h3',
    ]);
    expect(made.snapshot.count('service')).toBe(0);
    made.commit(changes);
    const web = made.snapshot.serviceNamed('demo', 'web')!;
    made.settle(web);
    expect(made.active(web).map(({ nodeName }) => nodeName)).toEqual(tasks!.map(({ node }) => node));
  });

  it('tells every task that an update would replace, although a rollout does it one by one', () => {
    const web = aService('web');
    const made = cluster(web);
    const spec = { ...web.spec, template: aTemplate({ container: containerSpec('web:2') }) };
    const tasks = planTasks(made.snapshot, updateService(made.wish, web.id, spec), made.now).get(web.id)!;
    expect(tasks.filter(({ action }) => action === 'stop')).toHaveLength(3);
    expect(tasks.filter(({ action }) => action === 'start')).toHaveLength(3);
    expect(made.service(web).revision).toBe(1);
  });

  it('gives a seat that is new the reason that it is there for, not one of a task that comes and goes on the way', () => {
    const update = { ...defaults.update, order: 'start-first', delayMs: 3_000 } as const;
    const web = aService('web', { update });
    const made = cluster(web);
    const spec = { ...web.spec, replicas: 5, template: aTemplate({ container: containerSpec('web:2') }) };
    const tasks = planTasks(made.snapshot, updateService(made.wish, web.id, spec), made.now).get(web.id)!;
    const added = tasks.filter(({ slot }) => slot > 3).sort((a, b) => a.slot - b.slot);
    expect(added.map(({ action, slot, reason }) => `${action} ${slot}: ${reason}`)).toEqual([
      'start 4: scaled to 5',
      'start 5: scaled to 5',
    ]);
  });

  it('says what stops with a removed service, and nothing where nothing changes', () => {
    const old = aService('old', { replicas: 2 });
    const made = cluster(old);
    const tasks = planTasks(made.snapshot, removeService(made.wish, old.id), made.now).get(old.id)!;
    expect(tasks.map(({ action, reason }) => `${action}: ${reason}`)).toEqual([
      'stop: the service was removed',
      'stop: the service was removed',
    ]);
    expect(planTasks(made.snapshot, [], made.now).size).toBe(0);
  });

  it('lets who depends on others begin after them, and says so', () => {
    const made = cluster();
    const on = (service: string, condition: DependencyCondition): Dependency => ({
      service,
      condition,
      restart: false,
      required: true,
    });
    const restart = { ...defaults.restart, condition: 'none' } as const;
    const specs = [
      aSpec('web', {
        replicas: 1,
        dependsOn: [on('db', 'service_healthy'), on('job', 'service_completed_successfully')],
      }),
      aSpec('job', { replicas: 1, restart, dependsOn: [on('db', 'service_healthy')] }),
      aSpec('db', { replicas: 1 }),
    ];
    const changes = specs.flatMap((spec) => createService(made.wish, spec));
    const plans = [...planTasks(made.snapshot, changes, made.now).values()].flat();
    expect(plans.map(({ action, node, reason }) => `${action} on ${node}: ${reason}`)).toEqual([
      'start on h2: scaled to 1; waits for db to be healthy, and for job to complete',
      'start on h2: scaled to 1; waits for db to be healthy',
      'start on h1: scaled to 1',
    ]);
  });

  it('gives the reason for a task that no node takes', () => {
    const made = cluster();
    const placement = { ...defaults.placement, constraints: ['node.labels.gpu == yes'] };
    const changes = createService(made.wish, aSpec('web', { replicas: 1, placement }));
    expect([...planTasks(made.snapshot, changes, made.now).values()]).toEqual([
      [{ action: 'start', slot: 1, node: '', reason: 'no node fits (3 in all): 3 not node.labels.gpu == yes' }],
    ]);
  });
});

describe('why', () => {
  it('shows for a running task what each node says, its own place not counted against it', () => {
    const web = aService('web', {
      replicas: 1,
      template: aTemplate({ reservations: { cpuMillis: 4_000, memoryBytes: 0, pids: 0, generic: [] } }),
    });
    const made = cluster(web);
    made.put('node', { ...made.snapshot.node(aNode('h3').id)!, availability: 'pause' });
    const [task] = made.active(web);
    const { rules, rows, summary } = explainTask(made.snapshot, task!);
    expect(summary).toBe('web.1 is on h1, running: scaled to 1');
    expect(rows.map(({ node, chosen }) => [node, chosen])).toEqual([
      ['h1', true],
      ['h2', false],
      ['h3', false],
    ]);
    expect(rows[0]!.verdicts.every((verdict) => verdict === '')).toBe(true);
    expect(rows[2]!.verdicts[rules.indexOf('ready')]).toBe('takes no new tasks');
  });

  it('tells which tasks of other services leave for one of higher priority, and where it goes then', () => {
    const template = aTemplate({ reservations: { cpuMillis: 2_000, memoryBytes: 0, pids: 0, generic: [] } });
    const web = aService('web', { replicas: 2, template });
    const made = new DecidedCluster([aNode('h1')], [web]);
    made.settle(web);
    const spec = aSpec('api', { replicas: 1, priority: 5, template });
    const planned = planTasks(made.snapshot, createService(made.wish, spec), made.now);
    const tasks = [...planned.values()].flat();
    expect(tasks.map(({ action, node }) => [action, node])).toEqual([
      ['start', 'h1'],
      ['stop', 'h1'],
      ['start', ''],
    ]);
    expect(tasks[1]?.reason).toBe('preempted by demo/api (priority 5)');
  });
});
