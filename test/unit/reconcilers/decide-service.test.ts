/** What is decided about a service, seat by seat, in whole stories. */
import { describe, expect, it } from 'vitest';
import {
  createService,
  removeService,
  restartService,
  rollbackService,
  scaleService,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { containerSpec, defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isActive } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nodes = () => ['h1', 'h2', 'h3'].map((name) => aNode(name));
const update = (fields: Partial<ServiceSpec['update']> = {}) => ({ ...defaults.update, monitorMs: 1_000, ...fields });

function running(spec: Partial<ServiceSpec> = {}): { cluster: DecidedCluster; web: Service } {
  const web = aService('web', spec);
  const cluster = new DecidedCluster(nodes(), [web]);
  cluster.settle(web);
  return { cluster, web };
}

function changeImage(cluster: DecidedCluster, web: Service, image: string): void {
  const { spec } = cluster.service(web);
  cluster.commit(
    updateService(cluster.wish, web.id, { ...spec, template: aTemplate({ container: containerSpec(image) }) }),
  );
}

describe('a replicated service', () => {
  it('goes from its record to assigned tasks with addresses in one decision', () => {
    const web = aService('web');
    const cluster = new DecidedCluster(nodes(), [web]);
    cluster.decide(web);
    const tasks = cluster.tasks(web);
    expect(tasks.map(({ slot, state, nodeName }) => [slot, state, nodeName])).toEqual([
      [1, 'assigned', 'h1'],
      [2, 'assigned', 'h2'],
      [3, 'assigned', 'h3'],
    ]);
    expect(tasks.map(({ address }) => address)).toEqual(['10.192.1.2', '10.192.2.2', '10.192.3.2']);
    expect(tasks[0]!.why).toBe('scaled to 3');
    expect(cluster.decide(web).changes).toEqual([]);
  });

  it('gets a VIP of its own, also where it is dnsrr', () => {
    const cluster = new DecidedCluster(nodes());
    for (const name of ['a', 'b']) cluster.commit(createService(cluster.wish, aSpec(name)));
    cluster.commit(createService(cluster.wish, aSpec('c', { endpointMode: 'dnsrr' })));
    for (const service of [...cluster.snapshot.all('service')]) cluster.decide(service);
    const vips = [...cluster.snapshot.all('service')].map(({ vip }) => vip);
    expect(vips).toEqual(['10.224.0.2', '10.224.0.3', '10.224.0.4']);
  });

  it('scales down first what does not run, then from the fullest node, then the highest slot', () => {
    const { cluster, web } = running({ replicas: 5 });
    const sick = cluster.active(web).find(({ slot }) => slot === 1)!;
    cluster.report(sick, { health: 'unhealthy' });
    cluster.commit(scaleService(cluster.wish, web.id, 3));
    cluster.settle(web);
    const left = cluster.active(web);
    expect(left.map(({ slot }) => slot)).toEqual([2, 3, 4]);
    expect(new Set(left.map(({ nodeName }) => nodeName)).size).toBe(3);
    expect(cluster.tasks(web).find(({ id }) => id === sick.id)).toMatchObject({
      wanted: 'shutdown',
      why: 'scaled to 3',
    });
  });

  it('fills the lowest free slots again when it is scaled up', () => {
    const { cluster, web } = running({ replicas: 4 });
    cluster.commit(scaleService(cluster.wish, web.id, 2));
    cluster.settle(web);
    cluster.commit(scaleService(cluster.wish, web.id, 6));
    cluster.settle(web);
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(cluster.active(web).filter(({ why }) => why === 'scaled to 6')).toHaveLength(4);
  });

  it('replaces the tasks of a node that is down elsewhere, in the decision that sees it', () => {
    const { cluster, web } = running();
    cluster.put('node', { ...cluster.snapshot.node(aNode('h3').id)!, state: 'down' });
    cluster.decide(web);
    const slot = cluster.tasks(web).filter((task) => task.slot === 3);
    expect(slot.map(({ state, wanted }) => [state, wanted])).toEqual([
      ['running', 'running'],
      ['assigned', 'running'],
    ]);
    expect(slot[1]!.nodeName).not.toBe('h3');
    expect(slot[1]!.why).toMatch(/^replaces web\.3 \(.{5}\): node h3 is down$/);
  });

  it('leaves what it cannot place pending with the reason, and places it when there is room', () => {
    const big = aTemplate({ reservations: { cpuMillis: 3_000, memoryBytes: 0, pids: 0, generic: [] } });
    const { cluster, web } = running({ replicas: 4, template: big });
    const pending = cluster.active(web).filter(({ state }) => state === 'pending');
    expect(pending.map(({ message }) => message)).toEqual([
      'no node fits (3 in all): 3 without room for 3 cores of CPU',
    ]);
    expect(cluster.decide(web)).toMatchObject({ unplaced: 1, changes: [] });
    cluster.put('node', aNode('h4'));
    cluster.decide(web);
    expect(cluster.active(web).at(-1)).toMatchObject({ nodeName: 'h4', state: 'assigned', message: '' });
  });

  it('drains a node stop-first: the old task ends before its replacement begins elsewhere', () => {
    const { cluster, web } = running();
    cluster.put('node', { ...cluster.snapshot.node(aNode('h2').id)!, availability: 'drain' });
    cluster.decide(web);
    const old = cluster.tasks(web).filter(({ nodeName }) => nodeName === 'h2');
    expect(old).toMatchObject([{ wanted: 'shutdown', why: 'node h2 is drained' }]);
    expect(cluster.active(web)).toHaveLength(2);
    cluster.settle(web);
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).not.toContain('h2');
    expect(cluster.active(web)).toHaveLength(3);
  });

  it('drains a node start-first: the old task runs until its replacement does', () => {
    const { cluster, web } = running({ update: update({ order: 'start-first' }) });
    cluster.put('node', { ...cluster.snapshot.node(aNode('h2').id)!, availability: 'drain' });
    cluster.decide(web);
    expect(cluster.active(web)).toHaveLength(4);
    cluster.decide(web);
    expect(cluster.active(web)).toHaveLength(4);
    cluster.obey(web);
    cluster.decide(web);
    expect(cluster.active(web)).toHaveLength(3);
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).not.toContain('h2');
  });

  it('moves tasks away when labels no longer meet its constraints', () => {
    const web = aService('web', { placement: { ...defaults.placement, constraints: ['node.labels.disk == ssd'] } });
    const cluster = new DecidedCluster(
      nodes().map((node) => ({ ...node, labels: { disk: 'ssd' } })),
      [web],
    );
    cluster.settle(web);
    cluster.put('node', { ...cluster.snapshot.node(aNode('h1').id)!, labels: { disk: 'hdd' } });
    cluster.settle(web);
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).not.toContain('h1');
    expect(cluster.tasks(web).some(({ why }) => why === 'node h1 is no longer node.labels.disk == ssd')).toBe(true);
  });

  it('is gone with all its records once its last task has stopped', () => {
    const { cluster, web } = running();
    cluster.commit(removeService(cluster.wish, web.id));
    cluster.decide(web);
    expect(cluster.active(web)).toEqual([]);
    expect(cluster.service(web).removing).toBe(true);
    cluster.obey(web);
    cluster.decide(web);
    expect(cluster.snapshot.service(web.id)).toBeUndefined();
    expect(cluster.snapshot.count('task') + cluster.snapshot.count('revision')).toBe(0);
  });

  it('keeps five ended tasks for a slot, and younger ones while their addresses rest', () => {
    const { cluster, web } = running({ replicas: 1 });
    for (let run = 0; run < 12; run++) {
      cluster.now += 20_000;
      cluster.report(cluster.active(web)[0]!, { state: 'failed', exitCode: 1, finishedAtMs: cluster.now });
      cluster.settle(web);
    }
    expect(cluster.tasks(web).filter((task) => !isActive(task)).length).toBe(5);
  });
});

describe('restarts', () => {
  it('come at once and in the same decision after the first failure', () => {
    const { cluster, web } = running();
    cluster.report(cluster.active(web)[0]!, { state: 'failed', exitCode: 3, finishedAtMs: cluster.now + 100 });
    cluster.decide(web);
    const next = cluster.active(web)[0]!;
    expect(next).toMatchObject({ slot: 1, state: 'assigned', startAfterMs: 0 });
    expect(next.why).toMatch(/^restarts web\.1 \(.{5}\): exit code 3$/);
  });

  it('F20: wait longer with every quick failure, up to 30 s, and not at all after a stable run', () => {
    const { cluster, web } = running({ replicas: 1 });
    const waits: number[] = [];
    const fail = (ranMs: number) => {
      const task = cluster.active(web)[0]!;
      cluster.now += ranMs;
      cluster.report(task, {
        state: 'failed',
        exitCode: 1,
        startedAtMs: cluster.now - ranMs,
        finishedAtMs: cluster.now,
      });
      cluster.decide(web);
      const next = cluster.active(web)[0]!;
      waits.push(next.startAfterMs === 0 ? 0 : next.startAfterMs - next.createdAtMs);
      cluster.now = Math.max(cluster.now, next.startAfterMs);
    };
    for (let run = 0; run < 11; run++) fail(10);
    expect(waits).toEqual([0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    fail(60_000);
    expect(waits.at(-1)).toBe(0);
  });

  it('end when the attempts are used, and the last task says so', () => {
    const { cluster, web } = running({
      replicas: 1,
      restart: { condition: 'any', delayMs: 0, maxAttempts: 2, windowMs: 0 },
    });
    for (let run = 0; run < 3; run++) {
      cluster.report(cluster.active(web)[0]!, {
        state: 'failed',
        exitCode: 1,
        startedAtMs: cluster.now,
        finishedAtMs: cluster.now,
      });
      cluster.settle(web);
    }
    expect(cluster.active(web)).toEqual([]);
    expect(cluster.tasks(web).at(-1)!.why).toBe('not restarted: exit code 1, and all 2 attempts are used');
  });

  it('do not follow a completed task where the policy is on-failure', () => {
    const { cluster, web } = running({ replicas: 1, restart: { ...defaults.restart, condition: 'on-failure' } });
    cluster.report(cluster.active(web)[0]!, { state: 'complete', finishedAtMs: cluster.now });
    cluster.settle(web);
    expect(cluster.tasks(web)).toMatchObject([
      { state: 'complete', why: 'not restarted: completed, and the policy is on-failure' },
    ]);
  });
});

describe('a global service', () => {
  it('has one task on every suitable node, also on one that comes later', () => {
    const { cluster, web } = running({ mode: 'global' });
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).toEqual(['h1', 'h2', 'h3']);
    cluster.put('node', aNode('h4'));
    cluster.settle(web);
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).toEqual(['h1', 'h2', 'h3', 'h4']);
  });

  it('leaves a drained node and does not come back until it is active', () => {
    const { cluster, web } = running({ mode: 'global' });
    const h2 = cluster.snapshot.node(aNode('h2').id)!;
    cluster.put('node', { ...h2, availability: 'drain' });
    cluster.settle(web);
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).toEqual(['h1', 'h3']);
    cluster.put('node', h2);
    cluster.settle(web);
    expect(cluster.active(web)).toHaveLength(3);
  });

  it('keeps no task waiting for a node that is down, so that it comes back to what is wanted then', () => {
    const { cluster, web } = running({ mode: 'global', update: update({ monitorMs: 0 }) });
    const h4 = aNode('h4', { subnet: '' });
    cluster.put('node', h4);
    cluster.settle(web);
    expect(cluster.active(web).map(({ state }) => state)).toContain('pending');
    cluster.put('node', { ...h4, state: 'down' });
    cluster.settle(web);
    changeImage(cluster, web, 'web:2');
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('completed');
    cluster.put('node', aNode('h4'));
    cluster.settle(web);
    expect(
      cluster
        .active(web)
        .map(({ nodeName, revision }) => `${nodeName} ${revision}`)
        .sort(),
    ).toEqual(['h1 2', 'h2 2', 'h3 2', 'h4 2']);
  });

  it('is not through with a rollout before nodes that were not heard have what it is to', () => {
    const { cluster, web } = running({ mode: 'global', update: update({ monitorMs: 0 }) });
    const h3 = cluster.snapshot.node(aNode('h3').id)!;
    cluster.put('node', { ...h3, state: 'unknown' });
    changeImage(cluster, web, 'web:2');
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('updating');
    expect(
      cluster
        .active(web)
        .map(({ revision }) => revision)
        .sort(),
    ).toEqual([1, 2, 2]);
    cluster.put('node', h3);
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('completed');
    expect(cluster.active(web).map(({ revision }) => revision)).toEqual([2, 2, 2]);
  });
});

describe('a rollout', () => {
  it('replaces one task at a time and waits until it has been well for a while', () => {
    const { cluster, web } = running({ update: update() });
    changeImage(cluster, web, 'web:2');
    const revisions = () => cluster.active(web).map(({ revision }) => revision);
    cluster.settle(web);
    expect(revisions()).toEqual([2, 1, 1]);
    expect(cluster.service(web).rollout.state).toBe('updating');
    cluster.now += 999;
    cluster.settle(web);
    expect(revisions()).toEqual([2, 1, 1]);
    for (const expected of [
      [2, 2, 1],
      [2, 2, 2],
    ]) {
      cluster.now += 1_000;
      cluster.settle(web);
      expect(revisions()).toEqual(expected);
    }
    cluster.now += 1_000;
    cluster.settle(web);
    expect(cluster.service(web).rollout).toMatchObject({ state: 'completed', message: 'revision 1 to 2' });
  });

  it('watches a new task by our own clock, whatever its node says when it began', () => {
    const { cluster, web } = running({ update: update() });
    changeImage(cluster, web, 'web:2');
    cluster.decide(web);
    cluster.obey(web);
    cluster.decide(web);
    const next = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(next, { state: 'running', startedAtMs: cluster.now - 3_600_000 });
    const moved = () => cluster.active(web).filter(({ revision }) => revision === 1).length;
    cluster.settle(web);
    expect(moved()).toBe(2);
    cluster.now += 1_000;
    cluster.settle(web);
    expect(moved()).toBe(1);
  });

  it('stops successors that a newer revision overtakes before they were up, and keeps the task that is', () => {
    const { cluster, web } = running({ replicas: 1, update: update({ order: 'start-first' }) });
    const [first] = cluster.active(web);
    for (let again = 0; again < 4; again++) {
      cluster.commit(restartService(cluster.wish, web.id));
      cluster.decide(web);
      cluster.decide(web);
    }
    const active = cluster.active(web);
    expect(active.map(({ revision }) => revision)).toEqual([1, 5]);
    expect(active[0]!.id).toBe(first!.id);
  });

  it('waits for a health check before it goes on', () => {
    const { cluster, web } = running({ update: update({ order: 'start-first' }) });
    changeImage(cluster, web, 'web:2');
    cluster.decide(web);
    const next = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(next, { state: 'running', health: 'starting', startedAtMs: cluster.now });
    cluster.now += 5_000;
    cluster.decide(web);
    expect(cluster.active(web)).toHaveLength(4);
    cluster.report(cluster.snapshot.task(next.id)!, { health: 'healthy' });
    cluster.decide(web);
    expect(cluster.active(web).filter(({ revision }) => revision === 1)).toHaveLength(2 + 1 - 1);
  });

  it('replaces the old task also where its successor completes before it was healthy', () => {
    const { cluster, web } = running({ replicas: 1, update: update({ order: 'start-first' }) });
    changeImage(cluster, web, 'web:2');
    cluster.decide(web);
    const next = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(next, { state: 'complete', startedAtMs: cluster.now, finishedAtMs: cluster.now });
    for (let round = 0; round < 6; round++) {
      cluster.decide(web);
      cluster.obey(web);
      cluster.now += 2_000;
    }
    expect(cluster.active(web).map(({ revision }) => revision)).toEqual([2]);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('does not end while the new task that is up is leaving and the old one is still there', () => {
    const { cluster, web } = running({ replicas: 1, update: update({ order: 'start-first' }) });
    changeImage(cluster, web, 'web:2');
    cluster.decide(web);
    const next = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.put('node', { ...cluster.snapshot.node(next.nodeId as never)!, availability: 'drain' });
    cluster.decide(web);
    cluster.report(cluster.snapshot.task(next.id)!, { state: 'running', startedAtMs: cluster.now });
    cluster.now += 5_000;
    cluster.decide(web);
    cluster.settle(web);
    cluster.now += 5_000;
    cluster.settle(web);
    expect(cluster.active(web).map(({ revision }) => revision)).toEqual([2]);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('pauses with the reason when the new tasks fail, and leaves the others alone', () => {
    const { cluster, web } = running({ update: update() });
    changeImage(cluster, web, 'web:bad');
    cluster.decide(web);
    cluster.obey(web);
    cluster.decide(web);
    const bad = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(bad, { state: 'rejected', error: 'no such image: web:bad' });
    cluster.decide(web);
    const { rollout } = cluster.service(web);
    expect(rollout.state).toBe('paused');
    expect(rollout.message).toMatch(/^web\.1 \(.{5}\) of revision 2 on h1: no such image: web:bad$/);
    cluster.now += 60_000;
    cluster.decide(web);
    expect(cluster.active(web).filter(({ revision }) => revision === 1)).toHaveLength(2);
  });

  it('goes back by itself where the policy says rollback', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    changeImage(cluster, web, 'web:bad');
    cluster.decide(web);
    cluster.obey(web);
    cluster.decide(web);
    const bad = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(bad, { state: 'failed', exitCode: 1, finishedAtMs: cluster.now });
    cluster.decide(web);
    expect(cluster.service(web)).toMatchObject({ revision: 1, rollout: { state: 'rolling-back' } });
    cluster.settle(web);
    cluster.now += 2_000;
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('rolled-back');
    expect(cluster.active(web).map(({ revision }) => revision)).toEqual([1, 1, 1]);
    expect(cluster.service(web).spec.template.container.image).toBe('web:1');
  });
});

describe('wishes', () => {
  it('change nothing when nothing differs', () => {
    const { cluster, web } = running();
    const { spec } = cluster.service(web);
    expect(updateService(cluster.wish, web.id, structuredClone(spec))).toEqual([]);
    expect(scaleService(cluster.wish, web.id, spec.replicas)).toEqual([]);
  });

  it('make a new revision only of a new template, and a rollback comes back to the old number', () => {
    const { cluster, web } = running();
    cluster.commit(updateService(cluster.wish, web.id, { ...cluster.service(web).spec, aliases: ['www'] }));
    expect(cluster.service(web)).toMatchObject({ revision: 1, rollout: { state: 'idle' } });
    changeImage(cluster, web, 'web:2');
    expect(cluster.service(web)).toMatchObject({
      version: 3,
      revision: 3,
      previousVersion: 2,
      previousRevision: 1,
      rollout: { state: 'updating' },
    });
    cluster.commit(rollbackService(cluster.wish, web.id));
    expect(cluster.service(web)).toMatchObject({
      version: 4,
      revision: 1,
      previous: undefined,
      rolledBackFrom: 3,
      rollout: { state: 'rolling-back' },
    });
  });

  it('keep a scale over a rollback', () => {
    const { cluster, web } = running();
    changeImage(cluster, web, 'web:2');
    cluster.commit(scaleService(cluster.wish, web.id, 7));
    cluster.commit(rollbackService(cluster.wish, web.id));
    expect(cluster.service(web).spec).toMatchObject({ replicas: 7, template: { container: { image: 'web:1' } } });
  });

  it('restart by a new revision of the same template', () => {
    const { cluster, web } = running({ update: update({ parallelism: 0, monitorMs: 0 }) });
    const before = new Set(cluster.active(web).map(({ id }) => id));
    cluster.commit(restartService(cluster.wish, web.id));
    cluster.settle(web);
    expect(cluster.active(web)).toHaveLength(3);
    expect(cluster.active(web).some(({ id }) => before.has(id))).toBe(false);
  });

  it('refuse in words what cannot be', () => {
    const { cluster, web } = running();
    const { spec } = cluster.service(web);
    const container = containerSpec('web:1', { containerName: 'my-web' });
    const named = running({ replicas: 1, template: aTemplate({ container }) });
    const refusals = [
      () => createService(cluster.wish, spec),
      () => rollbackService(cluster.wish, web.id),
      () => updateService(cluster.wish, web.id, { ...spec, mode: 'global' }),
      () => scaleService(cluster.wish, web.id, -1),
      () => scaleService(named.cluster.wish, named.web.id, 2),
    ];
    const codes = refusals.map((refusal) => {
      try {
        return refusal().length;
      } catch (error) {
        return isFault(error) ? error.code : error;
      }
    });
    expect(codes).toEqual(['exists', 'precondition', 'invalid', 'invalid', 'invalid']);
  });
});
