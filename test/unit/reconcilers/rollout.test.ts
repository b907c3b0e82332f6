/** Rollouts in whole stories: gates, failures, ways back, and the versions that are written down. */
import { describe, expect, it } from 'vitest';
import { pauseRollout, resumeRollout } from '#control-plane/reconcilers/rollout-changes.ts';
import {
  restartService,
  rollbackService,
  scaleService,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec, defaults, type Gate, type Service, type ServiceSpec } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const update = (fields: Partial<ServiceSpec['update']> = {}) => ({ ...defaults.update, monitorMs: 1_000, ...fields });
const canary = (fields: Partial<Gate> = {}): Gate => ({ kind: 'canary', count: 1, percent: 0, holdMs: 0, ...fields });
const pauseAt = (fields: Partial<Gate>): Gate => ({ kind: 'pause', count: 0, percent: 0, holdMs: 0, ...fields });

/** Runs `web:1` in 4 seats on 4 nodes. */
function running(spec: Partial<ServiceSpec> = {}): { cluster: DecidedCluster; web: Service } {
  const web = aService('web', { replicas: 4, ...spec });
  const nodes = ['h1', 'h2', 'h3', 'h4'].map((name) => aNode(name));
  const cluster = new DecidedCluster(nodes, [web]);
  cluster.settle(web);
  return { cluster, web };
}

function change(cluster: DecidedCluster, web: Service, fields: Partial<ServiceSpec>): void {
  cluster.commit(updateService(cluster.wish, web.id, { ...cluster.service(web).spec, ...fields }));
}

const withImage = (image: string, env: readonly string[] = []) =>
  ({ template: aTemplate({ container: containerSpec(image, { env }) }) }) as const;

/** Lets `seconds` pass, deciding every half of one. */
function pass(cluster: DecidedCluster, web: Service, seconds: number): void {
  for (let half = 0; half < seconds * 2; half++) {
    cluster.settle(web);
    cluster.now += 500;
  }
  cluster.settle(web);
}

/** The revision of each seat's active task, by seat. */
function revisions(cluster: DecidedCluster, web: Service): number[] {
  return cluster.active(web).map(({ revision }) => revision);
}

function fail(cluster: DecidedCluster, web: Service, revision: number, fields: Partial<Task> = {}): void {
  const task = cluster.active(web).find((one) => one.revision === revision)!;
  const at = { startedAtMs: cluster.now, finishedAtMs: cluster.now };
  cluster.report(task, { state: 'failed', exitCode: 3, error: 'exit code 3', ...at, ...fields });
}

describe('a canary', () => {
  it('goes first, and the others follow when it has been well for as long as it is watched', () => {
    const { cluster, web } = running({ update: update({ parallelism: 2, gates: [canary({ holdMs: 10_000 })] }) });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 2);
    expect(revisions(cluster, web)).toEqual([2, 1, 1, 1]);
    const { rollout } = cluster.service(web);
    expect(rollout).toMatchObject({ state: 'held', message: expect.stringContaining('canary: 1 of 4 seats') });
    expect(rollout.holdUntilMs - cluster.now).toBeGreaterThan(5_000);
    pass(cluster, web, 9);
    expect(revisions(cluster, web).filter((revision) => revision === 2).length).toBeGreaterThan(1);
    pass(cluster, web, 10);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('waits for as long as nobody says go on', () => {
    const { cluster, web } = running({ update: update({ gates: [canary({ count: 0, percent: 50 })] }) });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 3_600);
    expect(revisions(cluster, web)).toEqual([2, 2, 1, 1]);
    expect(cluster.service(web).rollout).toMatchObject({
      state: 'held',
      message: 'canary: 2 of 4 seats run revision 2; gantry rollout resume web',
      holdUntilMs: 0,
    });
    cluster.commit(resumeRollout({ ...cluster.wish, by: 'ann' }, web.id));
    pass(cluster, web, 5);
    expect(cluster.service(web).rollout).toMatchObject({
      state: 'completed',
      message: 'to revision 2, resumed by ann',
    });
  });

  it('reverts when it fails while it is watched, whatever the policy says of failures', () => {
    const policy = update({ failureAction: 'continue', maxFailureRatio: 1, gates: [canary({ holdMs: 60_000 })] });
    const { cluster, web } = running({ update: policy });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 20);
    const task = cluster.active(web).find((one) => one.revision === 2)!;
    cluster.report(task, { health: 'unhealthy' });
    cluster.decide(web);
    expect(cluster.service(web)).toMatchObject({ revision: 1, rolledBackFrom: 2, rollout: { state: 'rolling-back' } });
    expect(cluster.service(web).rollout.message).toMatch(/: canary web\.1 .* of revision 2 on h\d: /);
    pass(cluster, web, 3);
    expect(cluster.service(web).rollout.state).toBe('rolled-back');
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('keeps its share while the service is scaled: new seats get what is known to work', () => {
    const { cluster, web } = running({ update: update({ gates: [canary()] }) });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 3);
    cluster.commit(scaleService(cluster.wish, web.id, 8));
    pass(cluster, web, 3);
    expect(revisions(cluster, web)).toEqual([2, 1, 1, 1, 1, 1, 1, 1]);
  });
});

describe('gates', () => {
  it('are met one after the other, and none after the last seat', () => {
    const gates = [pauseAt({ percent: 50 }), pauseAt({ count: 1 }), pauseAt({ count: 9 }), pauseAt({ percent: 25 })];
    const { cluster, web } = running({ update: update({ parallelism: 0, gates }) });
    change(cluster, web, withImage('web:2'));
    const over: number[] = [];
    for (let round = 0; round < 2; round++) {
      pass(cluster, web, 5);
      expect(cluster.service(web).rollout.state).toBe('held');
      over.push(revisions(cluster, web).filter((revision) => revision === 2).length);
      cluster.commit(resumeRollout(cluster.wish, web.id));
    }
    expect(over).toEqual([1, 2]);
    pass(cluster, web, 5);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('do not stop a restart', () => {
    const { cluster, web } = running({ update: update({ gates: [canary()] }) });
    cluster.commit(restartService(cluster.wish, web.id));
    pass(cluster, web, 10);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });
});

describe('a rollout by hand', () => {
  it('stops where it is, and goes on', () => {
    const { cluster, web } = running({ update: update() });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    cluster.commit(pauseRollout({ ...cluster.wish, by: 'ann' }, web.id));
    pass(cluster, web, 10);
    expect(revisions(cluster, web)).toEqual([2, 1, 1, 1]);
    expect(cluster.service(web).rollout).toMatchObject({ state: 'paused', message: 'paused by ann' });
    cluster.commit(resumeRollout(cluster.wish, web.id));
    pass(cluster, web, 10);
    expect(revisions(cluster, web)).toEqual([2, 2, 2, 2]);
  });

  it('goes on past the failure that it stopped at, and not past another one', () => {
    const { cluster, web } = running({ update: update() });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    fail(cluster, web, 2);
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('paused');
    cluster.now += 1_000;
    cluster.commit(resumeRollout(cluster.wish, web.id));
    cluster.now += 10;
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('updating');
    pass(cluster, web, 1.5);
    const newest = cluster
      .active(web)
      .filter(({ revision }) => revision === 2)
      .at(-1)!;
    cluster.report(newest, { state: 'rejected', error: 'no such image' });
    cluster.settle(web);
    expect(cluster.service(web).rollout).toMatchObject({
      state: 'paused',
      message: expect.stringContaining('no such image'),
    });
  });

  it('refuses to pause or resume what is not under way', () => {
    const { cluster, web } = running();
    expect(() => pauseRollout(cluster.wish, web.id)).toThrow('service demo/web has no rollout under way');
    expect(() => resumeRollout(cluster.wish, web.id)).toThrow('service demo/web has no rollout under way');
  });
});

describe('a rollout and what fails meanwhile', () => {
  it('leaves seats whose turn has not come at their revision when a node goes down', () => {
    const { cluster, web } = running({ update: update({ monitorMs: 60_000 }) });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    const old = cluster.active(web).find(({ revision }) => revision === 1)!;
    cluster.put('node', { ...cluster.snapshot.node(old.nodeId as never)!, state: 'down' });
    pass(cluster, web, 2);
    expect(revisions(cluster, web)).toEqual([2, 1, 1, 1]);
    expect(cluster.service(web).rollout.state).toBe('updating');
  });

  it.each(['stop-first', 'start-first'] as const)(
    'replaces what must leave its node by the same, once, before its turn (%s)',
    (order) => {
      const { cluster, web } = running({ update: update({ monitorMs: 60_000, order }) });
      change(cluster, web, withImage('web:2'));
      cluster.settle(web);
      const old = cluster.active(web).find(({ revision }) => revision === 1)!;
      cluster.put('node', { ...cluster.snapshot.node(old.nodeId as never)!, availability: 'drain' });
      const before = cluster.tasks(web).length;
      cluster.settle(web);
      expect(cluster.tasks(web)).toHaveLength(before + 1);
      expect(revisions(cluster, web)).toEqual([2, 1, 1, 1]);
      expect(cluster.active(web).map(({ nodeId }) => nodeId)).not.toContain(old.nodeId);
    },
  );

  it('replaces a seat that is over by the revision it went over to, once, when that node is drained', () => {
    const { cluster, web } = running({ update: update({ order: 'start-first', monitorMs: 60_000 }) });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    const over = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.put('node', { ...cluster.snapshot.node(over.nodeId as never)!, availability: 'drain' });
    cluster.decide(web);
    cluster.commit(rollbackService(cluster.wish, web.id));
    const before = cluster.tasks(web).length;
    pass(cluster, web, 61);
    expect(cluster.tasks(web).length - before).toBeLessThanOrEqual(2);
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('counts as failed what its node cannot prepare, and says why', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback', order: 'start-first' }) });
    change(cluster, web, withImage('web:2'));
    cluster.decide(web);
    const next = cluster.active(web).find(({ revision }) => revision === 2)!;
    cluster.report(next, { state: 'preparing', error: 'image not available: registry:5000 does not answer' });
    cluster.now += 4_900;
    cluster.decide(web);
    expect(cluster.service(web).rollout.state).toBe('updating');
    cluster.now += 200;
    cluster.decide(web);
    expect(cluster.service(web).rollout).toMatchObject({
      state: 'rolling-back',
      message: expect.stringContaining('image not available: registry:5000 does not answer'),
    });
    cluster.settle(web);
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('counts as failed what no node takes', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    const big = aTemplate({ reservations: { ...noResources, cpuMillis: 99_000 } });
    change(cluster, web, { template: big });
    pass(cluster, web, 14);
    expect(cluster.active(web).filter(({ state }) => state === 'pending')).toHaveLength(1);
    pass(cluster, web, 5);
    expect(cluster.service(web).rollout).toMatchObject({
      state: 'rolled-back',
      message: expect.stringContaining('no node fits'),
    });
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('pauses a restart that fails: there is nothing to go back to', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 10);
    cluster.commit(restartService(cluster.wish, web.id));
    cluster.settle(web);
    fail(cluster, web, 3);
    cluster.settle(web);
    expect(cluster.service(web)).toMatchObject({ revision: 3, rollout: { state: 'paused' } });
    expect(cluster.service(web).spec.template.container.image).toBe('web:2');
  });

  it('pauses with both reasons where the way back is gone', () => {
    const attached = (network: string) =>
      aTemplate({ networks: [{ network, aliases: [], ipv4Address: '' }], container: containerSpec('web:1') });
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    cluster.put('service', {
      ...cluster.service(web),
      spec: { ...cluster.service(web).spec, template: attached('lost') },
    });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    fail(cluster, web, 2);
    cluster.settle(web);
    expect(cluster.service(web).rollout.state).toBe('paused');
    expect(cluster.service(web).rollout.message).toMatch(/exit code 3; it cannot go back: network lost, .* is gone$/);
  });
});

describe('a way back', () => {
  it('follows rollback_config: start-first back from a stop-first update', () => {
    const { cluster, web } = running({ update: update(), rollback: update({ order: 'start-first', parallelism: 4 }) });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 10);
    cluster.commit(rollbackService(cluster.wish, web.id));
    cluster.decide(web);
    expect(revisions(cluster, web).sort()).toEqual([1, 1, 1, 1, 2, 2, 2, 2]);
  });

  it('brings what is down back at once, whatever the parallelism', () => {
    const { cluster, web } = running({ update: update({ parallelism: 3 }), rollback: update({ parallelism: 1 }) });
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    for (let seat = 0; seat < 3; seat++) fail(cluster, web, 2, {});
    cluster.commit(rollbackService(cluster.wish, web.id));
    cluster.settle(web);
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('leads past versions that were never rolled out to their end', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'pause' }) });
    for (const [image, revision] of [
      ['web:bad', 2],
      ['web:worse', 3],
    ] as const) {
      change(cluster, web, { ...withImage(image), update: update({ failureAction: 'rollback' }) });
      if (revision === 2) change(cluster, web, { update: update() });
      cluster.settle(web);
      const { revision: now } = cluster.service(web);
      fail(cluster, web, now);
      cluster.settle(web);
    }
    pass(cluster, web, 5);
    expect(cluster.service(web).spec.template.container.image).toBe('web:1');
    expect(cluster.service(web).rollout.state).toBe('rolled-back');
    expect(revisions(cluster, web)).toEqual([1, 1, 1, 1]);
  });

  it('does not lead back to what failed when it is taken twice, and says where that is', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    change(cluster, web, withImage('web:bad'));
    cluster.settle(web);
    fail(cluster, web, 2);
    pass(cluster, web, 5);
    expect(() => rollbackService(cluster.wish, web.id)).toThrow(
      /^service demo\/web went back already, from version 2 \(web\.1 .* exit code 3\) to 3$/,
    );
    cluster.commit(rollbackService(cluster.wish, web.id, 2));
    expect(cluster.service(web)).toMatchObject({ version: 4, rollout: { state: 'updating' } });
    expect(cluster.service(web).spec.template.container.image).toBe('web:bad');
    // And if that fails once more, it goes back once more.
    cluster.settle(web);
    fail(cluster, web, cluster.service(web).revision);
    pass(cluster, web, 5);
    expect(cluster.service(web).spec.template.container.image).toBe('web:1');
  });

  it('restores the whole spec of any version that is kept, and keeps what was scaled since', () => {
    const { cluster, web } = running({ update: update({ parallelism: 0 }) });
    change(cluster, web, { ...withImage('web:2', ['COLOUR=red']), labels: { tier: 'front' } });
    pass(cluster, web, 5);
    change(cluster, web, { ...withImage('web:3', ['COLOUR=blue']), labels: {} });
    pass(cluster, web, 5);
    cluster.commit(scaleService(cluster.wish, web.id, 6));
    cluster.commit(scaleService(cluster.wish, web.id, 2));
    pass(cluster, web, 5);
    const before = cluster.service(web);
    cluster.commit(rollbackService(cluster.wish, web.id, 2));
    const after = cluster.service(web);
    expect(after.spec).toMatchObject({ labels: { tier: 'front' }, replicas: 2 });
    expect(after.spec.template.container).toMatchObject({ image: 'web:2', env: ['COLOUR=red'] });
    expect(after.revision).toBe(2);
    expect(after.version).toBe(before.version + 1);
    pass(cluster, web, 5);
    expect(after.spec.template).toEqual(cluster.service(web).spec.template);
    expect(() => rollbackService(cluster.wish, web.id, 77)).toThrow('service demo/web has no version 77');
    expect(() => rollbackService(cluster.wish, web.id, after.version)).toThrow('is at version 5 already');
  });

  it('by the file, before the end of an update, leaves the tasks that were not replaced yet', () => {
    const { cluster, web } = running({ update: update() });
    const first = cluster.service(web).spec;
    const before = cluster.active(web).map(({ id }) => id);
    change(cluster, web, withImage('web:2'));
    cluster.settle(web);
    cluster.commit(updateService(cluster.wish, web.id, first));
    pass(cluster, web, 5);
    expect(cluster.active(web).filter(({ id }) => before.includes(id))).toHaveLength(3);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });
});

describe('the history', () => {
  const told = (cluster: DecidedCluster, web: Service) =>
    [...cluster.snapshot.versionsOfService(web.id)]
      .sort((a, b) => a.number - b.number)
      .map(({ number, kind, outcome, by }) => `${number} ${kind} ${outcome} ${by}`.trim());

  it('has a version for each change, how it ended and who asked; one for many scalings', () => {
    const { cluster, web } = running({ update: update({ failureAction: 'rollback' }) });
    const by = (name: string) => ({ ...cluster.wish, by: name });
    const { spec } = cluster.service(web);
    cluster.commit(updateService(by('ann'), web.id, { ...spec, ...withImage('web:2') }));
    pass(cluster, web, 10);
    for (const replicas of [5, 6, 7]) cluster.commit(scaleService(by('bob'), web.id, replicas));
    pass(cluster, web, 1);
    cluster.commit(updateService(by('ann'), web.id, { ...cluster.service(web).spec, ...withImage('web:bad') }));
    cluster.settle(web);
    fail(cluster, web, 4);
    pass(cluster, web, 5);
    expect(told(cluster, web)).toEqual([
      '1 apply',
      '2 apply completed ann',
      '3 scale completed bob',
      '4 apply rolled-back ann',
      '5 rollback completed',
    ]);
    expect(cluster.snapshot.versionOf(web.id, 4)!.message).toMatch(/^web\.1 .* exit code 3$/);
    expect(cluster.snapshot.versionOf(web.id, 5)!.why).toMatch(/^to version 3: web\.1 /);
  });

  it('is bounded, and what it shows can be gone back to, the pinned image included', () => {
    const { cluster, web } = running({ replicas: 1, update: update({ parallelism: 0, monitorMs: 0 }) });
    for (let at = 2; at <= 30; at++) {
      change(cluster, web, withImage(`web:${at}`));
      cluster.settle(web);
      cluster.now += 120_000;
      cluster.settle(web);
    }
    const versions = [...cluster.snapshot.versionsOfService(web.id)];
    expect(versions).toHaveLength(10);
    for (const { number, revision, spec } of versions) {
      const record = cluster.snapshot.revisionOf(web.id, revision);
      expect(record?.template, `version ${number}`).toEqual(spec.template);
    }
    expect([...cluster.snapshot.revisionsOfService(web.id)].length).toBeLessThanOrEqual(12);
  });

  it('goes with the service', async () => {
    const { removeService } = await import('#control-plane/reconcilers/service-changes.ts');
    const { cluster, web } = running();
    change(cluster, web, { labels: { a: 'b' } });
    cluster.commit(removeService(cluster.wish, web.id));
    cluster.settle(web);
    expect(cluster.snapshot.count('version') + cluster.snapshot.count('revision')).toBe(0);
  });
});

describe('host ports', () => {
  const port = (published: number) =>
    ({ ports: [{ target: 80, published, protocol: 'tcp', mode: 'host' }] }) as Partial<ServiceSpec>;

  it('are those of a task for life: another one needs new tasks', () => {
    const { cluster, web } = running(port(80));
    change(cluster, web, port(81));
    expect(cluster.service(web)).toMatchObject({ revision: 2, rollout: { state: 'updating' } });
    pass(cluster, web, 60);
    expect(cluster.active(web).map(({ hostPorts }) => hostPorts[0]!.published)).toEqual([81, 81, 81, 81]);
  });
});

it('a spec of before policies for the way back goes back as it went forward', () => {
  expect(aSpec('web', { update: update({ order: 'start-first' }) }).rollback.order).toBe('start-first');
});

describe('host ports and start-first', () => {
  const port = (published: number) =>
    ({ ports: [{ target: 80, published, protocol: 'tcp', mode: 'host' }] }) as Partial<ServiceSpec>;
  const policy = update({ order: 'start-first', parallelism: 2 });

  it('go stop-first where the port is free on no other node, and say so', () => {
    const { cluster, web } = running({ ...port(80), update: policy });
    change(cluster, web, withImage('web:2'));
    cluster.decide(web);
    cluster.obey(web);
    cluster.decide(web);
    const leaving = cluster.tasks(web).filter(({ wanted }) => wanted === 'shutdown');
    expect(leaving.map(({ why }) => why)).toEqual([
      'revision 2 replaces revision 1 (stop-first, as host port 80/tcp is free nowhere else)',
      'revision 2 replaces revision 1 (stop-first, as host port 80/tcp is free nowhere else)',
    ]);
    pass(cluster, web, 10);
    expect(cluster.service(web).rollout.state).toBe('completed');
    expect(revisions(cluster, web)).toEqual([2, 2, 2, 2]);
  });

  it('go start-first to as many nodes as have the port free, and only there', () => {
    const { cluster, web } = running({ ...port(80), replicas: 3, update: policy });
    change(cluster, web, withImage('web:2'));
    cluster.decide(web);
    const next = cluster.active(web).filter(({ revision }) => revision === 2);
    expect(next).toMatchObject([
      { nodeName: 'h4', wanted: 'running' },
      { nodeName: 'h2', wanted: 'ready' },
    ]);
    pass(cluster, web, 10);
    expect(cluster.service(web).rollout.state).toBe('completed');
  });

  it('go stop-first on each node of a global service', () => {
    const { cluster, web } = running({ ...port(80), mode: 'global', replicas: 0, update: policy });
    change(cluster, web, withImage('web:2'));
    pass(cluster, web, 10);
    expect(cluster.service(web).rollout.state).toBe('completed');
    expect(revisions(cluster, web)).toEqual([2, 2, 2, 2]);
  });
});
