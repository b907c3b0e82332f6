/** Limits that change under running tasks: which changes do, and what becomes of tasks, rollouts, rollbacks and plans with them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planTasks } from '#control-plane/controllers/plan.ts';
import { changesInPlace } from '#control-plane/reconcilers/in-place.ts';
import { restartService, rollbackService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { noControls } from '#proto/model/controls.ts';
import { noResources, type Resources } from '#proto/model/resources.ts';
import { containerSpec, defaults, type Service, type ServiceSpec, type TaskTemplate } from '#proto/model/service.ts';
import { aNode, aRevision, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const amounts = (fields: Partial<Resources>): Resources => ({ ...noResources, ...fields });

/** `web` on three nodes of 4 cores. */
function running(template: Partial<TaskTemplate> = {}, spec: Partial<ServiceSpec> = {}) {
  const web = aService('web', { template: aTemplate(template), ...spec });
  const cluster = new DecidedCluster(
    ['h1', 'h2', 'h3'].map((name) => aNode(name)),
    [web],
  );
  cluster.settle(web);
  // Long enough for what runs to be no news.
  cluster.now += 60_000;
  return { cluster, web };
}

const change = (cluster: DecidedCluster, web: Service, template: Partial<TaskTemplate>) => {
  const { spec } = cluster.service(web);
  return updateService(cluster.wish, web.id, { ...spec, template: { ...spec.template, ...template } });
};
const apply = (cluster: DecidedCluster, web: Service, template: Partial<TaskTemplate>) => {
  cluster.commit(change(cluster, web, template));
  cluster.settle(web);
};
/** Until the update's monitor has watched it for long enough. */
const watched = (cluster: DecidedCluster, web: Service) => {
  cluster.now += defaults.update.monitorMs;
  cluster.settle(web);
};
const ids = (cluster: DecidedCluster, web: Service) => cluster.active(web).map(({ id }) => id);

describe('a change of limits alone', () => {
  it('makes a revision that the same tasks adopt at once, with the digest of the one before', () => {
    const { cluster, web } = running();
    const digest = `sha256:${'a'.repeat(64)}`;
    cluster.put('revision', { ...cluster.snapshot.revisionOf(web.id, 1)!, imageDigest: digest });
    const before = ids(cluster, web);
    apply(cluster, web, {
      limits: amounts({ cpuMillis: 500 }),
      controls: { ...noControls, cpuShares: 5 },
      bandwidth: { egressBitsPerSecond: 1e6, ingressBitsPerSecond: 0 },
    });
    expect(ids(cluster, web)).toEqual(before);
    expect(cluster.active(web).map(({ revision, pid }) => [revision, pid])).toEqual([
      [2, 0],
      [2, 0],
      [2, 0],
    ]);
    expect(cluster.service(web).rollout.state).toBe('updating');
    watched(cluster, web);
    expect(cluster.service(web)).toMatchObject({
      revision: 2,
      previousRevision: 1,
      rollout: { state: 'completed', message: 'revision 1 to 2, in place' },
    });
    expect(cluster.snapshot.revisionOf(web.id, 2)).toMatchObject({ imageDigest: digest, origin: 1 });
  });

  it('gives larger reservations where the nodes have room, and counts them', () => {
    const { cluster, web } = running({ reservations: amounts({ cpuMillis: 1_000 }) });
    const before = ids(cluster, web);
    apply(cluster, web, { reservations: amounts({ cpuMillis: 4_000 }) });
    expect(ids(cluster, web)).toEqual(before);
    expect(cluster.active(web).every(({ reservations }) => reservations.cpuMillis === 4_000)).toBe(true);
    const other = aService('other', { replicas: 1, template: aTemplate({ reservations: amounts({ cpuMillis: 1 }) }) });
    cluster.put('service', other);
    cluster.put('revision', aRevision(other));
    cluster.decide(other);
    expect(cluster.tasks(other)[0]!.message).toContain('without room');
  });

  it('replaces a task whose node has no room for more, and says so', () => {
    const { cluster, web } = running({ reservations: amounts({ cpuMillis: 1_000 }) }, { replicas: 1 });
    const guest = aService('guest', {
      replicas: 1,
      template: aTemplate({ reservations: amounts({ cpuMillis: 2_500 }) }),
    });
    cluster.put('service', {
      ...guest,
      spec: { ...guest.spec, placement: { ...defaults.placement, constraints: ['node.hostname == h1'] } },
    });
    cluster.put('revision', aRevision(guest));
    cluster.settle(guest);
    const [old] = cluster.active(web);
    expect(old!.nodeName).toBe('h1');
    const wish = change(cluster, web, { reservations: amounts({ cpuMillis: 2_000 }) });
    const why =
      'revision 2 replaces revision 1: node h1 has no room for it any more: it needs 1 cores, 0.5 cores of 4 cores free';
    expect(planTasks(cluster.snapshot, wish, cluster.now).get(web.id)).toMatchObject([
      { action: 'stop', node: 'h1', reason: why },
      { action: 'start', node: 'h2' },
    ]);
    cluster.commit(wish);
    cluster.settle(web);
    expect(cluster.active(web)).toMatchObject([{ nodeName: 'h2', revision: 2 }]);
    expect(cluster.tasks(web).find(({ id }) => id === old!.id)!.why).toBe(why);
  });

  it('is planned as a change of each task where it is', () => {
    const { cluster, web } = running();
    const wish = change(cluster, web, { limits: amounts({ memoryBytes: 1 << 30 }) });
    expect(planTasks(cluster.snapshot, wish, cluster.now).get(web.id)).toEqual(
      [1, 2, 3].map((slot) => ({
        action: 'change',
        slot,
        node: `h${slot}`,
        reason: 'revision 2 has other limits: its process goes on',
      })),
    );
  });

  it('goes back in place too, by hand, to the revision of before', () => {
    const { cluster, web } = running();
    const before = ids(cluster, web);
    apply(cluster, web, { limits: amounts({ cpuMillis: 500 }) });
    watched(cluster, web);
    cluster.commit(rollbackService(cluster.wish, web.id));
    cluster.settle(web);
    watched(cluster, web);
    expect(ids(cluster, web)).toEqual(before);
    expect(cluster.service(web)).toMatchObject({ revision: 1, rollout: { state: 'rolled-back' } });
    expect(cluster.active(web).every(({ revision }) => revision === 1)).toBe(true);
  });

  it('is watched as any update: a task that ends soon after it pauses it, or takes it back in place', () => {
    for (const failureAction of ['pause', 'rollback'] as const) {
      const { cluster, web } = running({}, { update: { ...defaults.update, failureAction } });
      apply(cluster, web, { limits: amounts({ memoryBytes: 2 ** 20 }) });
      const [first, ...others] = cluster.active(web);
      cluster.now += 3_000;
      const end = { state: 'failed', oomKilled: true, finishedAtMs: cluster.now } as const;
      cluster.report(first!, { ...end, startedAtMs: 1, error: 'killed: it needed more than its memory limit' });
      cluster.settle(web);
      const { rollout, revision } = cluster.service(web);
      const goesBack = failureAction === 'rollback';
      expect([rollout.state, revision]).toEqual(goesBack ? ['rolling-back', 1] : ['paused', 2]);
      expect(rollout.message).toMatch(/web\.1 \(.{5}\) of revision 2 on h\d: killed: it needed more/);
      expect(ids(cluster, web)).toEqual(expect.arrayContaining(others.map(({ id }) => id)));
      if (!goesBack) continue;
      expect(cluster.active(web).every((task) => task.revision === 1)).toBe(true);
      watched(cluster, web);
      expect(cluster.service(web).rollout.state).toBe('rolled-back');
    }
  });

  it('has failed where a node cannot set them for so long, and not where it can after all', () => {
    for (const gives of [true, false]) {
      const { cluster, web } = running();
      apply(cluster, web, { limits: amounts({ memoryBytes: 2 ** 20 }) });
      const error = 'limits not changed: 9 bytes of memory are in use';
      cluster.put('task', { ...cluster.active(web)[0]!, error });
      cluster.settle(web);
      cluster.now += 4_000;
      if (gives) cluster.put('task', { ...cluster.active(web)[0]!, error: '' });
      cluster.settle(web);
      cluster.now += 1_000;
      cluster.settle(web);
      expect(cluster.service(web).rollout.state).toBe(gives ? 'completed' : 'paused');
      if (!gives) expect(cluster.service(web).rollout.message).toContain(error);
    }
  });

  it('does not hold against it what ends later', () => {
    const { cluster, web } = running({}, { update: { ...defaults.update, failureAction: 'rollback' } });
    apply(cluster, web, { limits: amounts({ memoryBytes: 2 ** 20 }) });
    watched(cluster, web);
    cluster.now += 1;
    cluster.report(cluster.active(web)[0]!, { state: 'failed', startedAtMs: 1, finishedAtMs: cluster.now });
    cluster.settle(web);
    expect(cluster.service(web)).toMatchObject({ revision: 2, rollout: { state: 'completed' } });
  });

  it('reaches tasks that wait for a node', () => {
    const { cluster, web } = running({ reservations: amounts({ cpuMillis: 4_000 }) }, { replicas: 4 });
    expect(cluster.active(web).filter(({ state }) => state === 'pending')).toHaveLength(1);
    apply(cluster, web, { reservations: amounts({ cpuMillis: 2_000 }) });
    expect(cluster.active(web).filter(({ state }) => state === 'running')).toHaveLength(4);
    expect(cluster.tasks(web)).toHaveLength(4);
  });
});

describe('together with what needs new tasks', () => {
  it('a change that follows it goes to the tasks that went over, and the others are replaced', () => {
    const { cluster, web } = running({}, { update: { ...defaults.update, monitorMs: 1_000 } });
    cluster.commit(change(cluster, web, { container: containerSpec('web:2') }));
    cluster.settle(web);
    const [first] = cluster.active(web).filter(({ revision }) => revision === 2);
    expect(cluster.active(web).filter(({ revision }) => revision === 1)).toHaveLength(2);
    apply(cluster, web, { limits: amounts({ cpuMillis: 500 }) });
    for (let round = 0; round < 4; round++) {
      cluster.now += 2_000;
      cluster.settle(web);
    }
    const active = cluster.active(web);
    expect(active.every(({ revision }) => revision === 3)).toBe(true);
    expect(active.some(({ id }) => id === first!.id)).toBe(true);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('a restart is one: its tasks do not go over to it, nor to the limits that come after it', () => {
    const { cluster, web } = running({}, { replicas: 1 });
    const [old] = ids(cluster, web);
    cluster.commit(restartService(cluster.wish, web.id));
    cluster.commit(change(cluster, web, { limits: amounts({ cpuMillis: 500 }) }));
    cluster.settle(web);
    expect(ids(cluster, web)).not.toContain(old);
  });

  it('nothing changes while a rollout is paused', () => {
    const { cluster, web } = running({}, { replicas: 1 });
    cluster.commit(change(cluster, web, { limits: amounts({ cpuMillis: 500 }) }));
    const service = cluster.service(web);
    cluster.put('service', { ...service, rollout: { ...service.rollout, state: 'paused' } });
    cluster.settle(web);
    expect(cluster.active(web)).toMatchObject([{ revision: 1 }]);
  });
});

describe('what changes in place', () => {
  const live: readonly ((template: TaskTemplate) => TaskTemplate)[] = [
    (one) => ({ ...one, limits: { ...one.limits, cpuMillis: one.limits.cpuMillis + 1 } }),
    (one) => ({ ...one, limits: { ...one.limits, pids: one.limits.pids + 1 } }),
    (one) => ({ ...one, reservations: { ...one.reservations, memoryBytes: one.reservations.memoryBytes + 1 } }),
    (one) => ({ ...one, controls: { ...one.controls, cpusetCpus: `${one.controls.cpusetCpus}0` } }),
    (one) => ({ ...one, controls: { ...one.controls, memorySwappiness: 1 + (one.controls.memorySwappiness ?? 0) } }),
    (one) => ({
      ...one,
      bandwidth: { ...one.bandwidth, ingressBitsPerSecond: one.bandwidth.ingressBitsPerSecond + 1 },
    }),
  ];
  const fixed: typeof live = [
    (one) => ({ ...one, container: { ...one.container, image: `${one.container.image}x` } }),
    (one) => ({ ...one, container: { ...one.container, shmBytes: one.container.shmBytes + 1 } }),
    (one) => ({ ...one, container: { ...one.container, oomScoreAdj: one.container.oomScoreAdj + 1 } }),
    (one) => ({ ...one, runtime: `${one.runtime}x` }),
    (one) => ({ ...one, networks: [...one.networks, { network: 'x', aliases: [], ipv4Address: '' }] }),
    (one) => ({
      ...one,
      reservations: {
        ...one.reservations,
        generic: [...one.reservations.generic, { kind: 'gpu', count: 1, names: [] }],
      },
    }),
  ];

  it('is all that cgroups and queues hold, and nothing else', () => {
    const edits = fc.array(fc.nat({ max: live.length + fixed.length - 1 }), { maxLength: 5 });
    fc.assert(
      fc.property(edits, (numbers) => {
        const all = [...live, ...fixed];
        const before = aTemplate();
        const after = numbers.reduce((template, number) => all[number]!(template), before);
        expect(changesInPlace(before, after)).toBe(numbers.length > 0 && numbers.every((one) => one < live.length));
      }),
    );
  });
});
