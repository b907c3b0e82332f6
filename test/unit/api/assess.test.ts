/** How far a service is, and how that is streamed. */
import { describe, expect, it } from 'vitest';
import { type AssessOptions, assess } from '#control-plane/api/assess.ts';
import { progress } from '#control-plane/api/progress.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { defaults, idleRollout, type Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aService, aTask, idOf } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { operatorLab } from '#test/support/operator.ts';

function judged(service: Service, tasks: readonly Task[], options: Partial<AssessOptions> = {}) {
  const snapshot = new LiveSnapshot();
  snapshot.apply('service', service.id, service, 1);
  for (const name of ['h1', 'h2']) {
    const node = aNode(name);
    snapshot.apply('node', keyOf('node', node), node, 1);
  }
  for (const task of tasks) snapshot.apply('task', task.id, task, 1);
  return assess(snapshot, service.id, 'demo/web', { now: 100_000, sinceMs: 0, rollback: false, ...options });
}

const two = aService('web', { replicas: 2 });
const task = (slot: number, fields: Partial<Task> = {}) =>
  aTask(`web${slot}${fields.state ?? ''}${fields.createdAtMs ?? 0}`, {
    serviceId: two.id,
    slot,
    nodeName: 'h1',
    ...fields,
  });

describe('a service', () => {
  it('has converged when all wanted tasks of its revision run', () => {
    expect(judged(two, [task(1), task(2)])).toMatchObject({ outcome: 'converged', running: 2, wanted: 2 });
  });
  it('waits for health where it is checked', () => {
    expect(judged(two, [task(1), task(2, { health: 'starting' })])).toMatchObject({
      outcome: 'progressing',
      running: 1,
      message: 'web.2 runs; waiting for its health check',
    });
  });
  it('waits as long as what it depends on needs, and not for what will not come', () => {
    const on = { service: 'db', condition: 'service_healthy', restart: false, required: true } as const;
    const web = aService('web', { replicas: 1, dependsOn: [on] });
    const pending = task(1, { state: 'pending', message: 'waits for db to be healthy' });
    const standing = (fields: Partial<Task>) => {
      const db = aService('db', { replicas: 1 });
      const snapshot = new LiveSnapshot();
      for (const service of [web, db]) snapshot.apply('service', service.id, service, 1);
      const first = aTask('db1', { serviceId: db.id, serviceName: 'db', ...fields });
      for (const one of [pending, first]) snapshot.apply('task', one.id, one, 1);
      return assess(snapshot, web.id, 'demo/web', { now: 100_000, sinceMs: 0, rollback: false });
    };
    expect(standing({ health: 'starting' })).toMatchObject({
      outcome: 'progressing',
      message: 'waits for db to be healthy',
    });
    expect(standing({ health: '' })).toMatchObject({
      outcome: 'failed',
      message: 'waits for db to be healthy in vain: db.1 (db100) has no health check',
    });
  });
  it('counts what ended well, where it is not to run again', () => {
    const job = aService('web', {
      replicas: 2,
      restart: { condition: 'on-failure', delayMs: 0, maxAttempts: 0, windowMs: 0 },
    });
    expect(judged(job, [task(1, { state: 'complete' }), task(2)])).toMatchObject({ outcome: 'converged', running: 2 });
    expect(judged(two, [task(1, { state: 'complete' }), task(2)])).toMatchObject({ outcome: 'progressing' });
  });
  it('waits for tasks of the revision before to leave', () => {
    expect(
      judged({ ...two, revision: 2 }, [
        task(1, { revision: 2 }),
        task(2, { revision: 2 }),
        task(1, { createdAtMs: 1 }),
      ]),
    ).toMatchObject({ outcome: 'progressing', message: 'replacing 1 of the revision before' });
  });
  it('waits for what is more than wanted to leave', () => {
    expect(judged(two, [task(1), task(2), task(3)])).toMatchObject({
      outcome: 'progressing',
      message: 'stopping 1 more than wanted',
    });
  });
  it('has failed when its rollout is paused, with the reason', () => {
    const rollout = {
      ...idleRollout,
      state: 'paused',
      message: 'web.1 failed',
      startedAtMs: 1,
      finishedAtMs: 2,
    } as const;
    expect(judged({ ...two, rollout }, [task(1), task(2)])).toMatchObject({
      outcome: 'failed',
      message: 'the rollout stopped: web.1 failed (gantry logs web · gantry rollout undo web)',
    });
  });
  it('has failed when it was rolled back, unless that was the wish', () => {
    const service: Service = {
      ...two,
      rollout: { ...idleRollout, state: 'rolled-back', message: 'new tasks failed', startedAtMs: 1, finishedAtMs: 2 },
    };
    expect(judged(service, [task(1), task(2)])).toMatchObject({
      outcome: 'failed',
      message: 'rolled back: new tasks failed',
    });
    expect(judged(service, [task(1), task(2)], { rollback: true })).toMatchObject({ outcome: 'converged' });
  });
  it('has failed after three failures of one seat, with the newest reason', () => {
    const failed = (at: number) =>
      task(1, { state: 'failed', createdAtMs: at, stateAtMs: at, finishedAtMs: at, exitCode: 3 });
    expect(judged(two, [failed(1), failed(2), task(2)])).toMatchObject({
      outcome: 'progressing',
      message: 'web.1 failed: it ended with exit code 3; trying again',
    });
    expect(judged(two, [failed(1), failed(2), { ...failed(3), error: 'no such file: /x' }, task(2)])).toMatchObject({
      outcome: 'failed',
      message: 'web.1 failed 3 times: no such file: /x',
    });
    expect(judged(two, [failed(1), failed(2), failed(3), task(1), task(2)])).toMatchObject({ outcome: 'converged' });
    expect(judged(two, [failed(1), failed(2), failed(3), task(2)], { sinceMs: 4 })).toMatchObject({
      outcome: 'progressing',
    });
  });
  it('has failed after the first failure where nothing is to be restarted', () => {
    const once = aService('web', {
      replicas: 1,
      restart: { condition: 'none', delayMs: 0, maxAttempts: 0, windowMs: 0 },
    });
    expect(judged(once, [task(1, { state: 'rejected', error: 'there is no image x' })])).toMatchObject({
      outcome: 'failed',
      message: 'web.1 failed 1 time: there is no image x',
    });
  });
  it('says at once why a task is pending, and gives up after a while', () => {
    const pending = (createdAtMs: number) =>
      task(2, { state: 'pending', message: 'no node has the label zone=a', createdAtMs });
    const message = 'web.2 is pending: no node has the label zone=a';
    expect(judged(two, [task(1), pending(99_000)])).toMatchObject({ outcome: 'progressing', message });
    expect(judged(two, [task(1), pending(80_000)])).toMatchObject({ outcome: 'failed', message });
  });
  it('says why a node cannot make a task, and gives up when all that is waited for is stuck for a while', () => {
    const error = 'image not available: registry r:5000 is not reached';
    const stuck = task(2, { state: 'preparing', message: 'asking r:5000', error });
    const since = (ms: number) => ({ stuckSinceMs: new Map([[stuck.id, ms]]) });
    const trying = { outcome: 'progressing', message: `web.2 is preparing: ${error}; trying again` };
    expect(judged(two, [task(1), stuck], since(99_000))).toMatchObject(trying);
    expect(judged(two, [task(1), stuck])).toMatchObject(trying);
    expect(judged(two, [task(1), stuck], since(95_000))).toMatchObject({
      outcome: 'failed',
      message: `web.2 is preparing: ${error}; h1 goes on trying`,
    });
    const other = task(1, { state: 'preparing', message: 'pulling' });
    expect(judged(two, [other, stuck], since(1))).toMatchObject(trying);
  });
  it('gives up sooner where every node refuses for a reason that only people change', () => {
    const service = aService('web', {
      replicas: 2,
      placement: { ...defaults.placement, constraints: ['node.labels.gpu == yes'] },
    });
    const pending = (at: Service, createdAtMs: number) =>
      judged(at, [task(1), task(2, { state: 'pending', message: 'no node fits', createdAtMs })], { sinceMs: 1 });
    expect(pending(service, 94_000)).toMatchObject({ outcome: 'failed', message: 'web.2 is pending: no node fits' });
    expect(pending(service, 96_000)).toMatchObject({ outcome: 'progressing' });
    expect(pending(two, 94_000)).toMatchObject({ outcome: 'progressing' });
  });
  it('gives a changed spec its time, however long a task has been pending before', () => {
    const pending = task(2, { state: 'pending', message: 'no node fits', createdAtMs: 5 });
    expect(judged(two, [task(1), pending], { sinceMs: 99_000 })).toMatchObject({ outcome: 'progressing' });
  });
  it('wants one task for each node in global mode', () => {
    expect(judged(aService('web', { mode: 'global', replicas: 0 }), [])).toMatchObject({
      outcome: 'progressing',
      wanted: 2,
    });
  });
  it('is removed when it is gone', () => {
    expect(assess(new LiveSnapshot(), two.id, 'demo/web', { now: 0, sinceMs: 0, rollback: false })).toMatchObject({
      outcome: 'converged',
      message: 'removed',
    });
  });
});

describe('progress', () => {
  it('tells each step until the service has converged', async () => {
    const lab = operatorLab();
    await lab.put('service', two);
    const updates = progress(
      lab.parts,
      { services: [two.id], revision: 0, rollback: false },
      new AbortController().signal,
    );
    expect((await updates.next()).value).toMatchObject({
      done: false,
      services: [{ name: 'demo/web', running: 0, wanted: 2 }],
    });
    await lab.put('task', task(1), task(2, { state: 'starting' }));
    expect((await updates.next()).value).toMatchObject({
      done: false,
      services: [{ running: 1, message: 'web.2 is starting' }],
    });
    await lab.put('task', { ...task(2, { state: 'starting' }), state: 'running' });
    expect((await updates.next()).value).toMatchObject({
      done: true,
      services: [{ outcome: 'converged', running: 2 }],
    });
    expect((await updates.next()).done).toBe(true);
  });
  it('takes a rollback of before for history, and one on the way for a failure', async () => {
    const lab = operatorLab();
    const rolledBack: Service = {
      ...two,
      rollout: { ...idleRollout, state: 'rolled-back', message: 'web.1 failed', startedAtMs: 1, finishedAtMs: 2 },
    };
    await lab.put('service', rolledBack);
    await lab.put('task', task(1), task(2));
    const request = { services: [two.id], revision: 0, rollback: false };
    const before = progress(lab.parts, request, new AbortController().signal);
    expect((await before.next()).value).toMatchObject({ done: true, services: [{ outcome: 'converged' }] });
    await lab.put('service', {
      ...two,
      rollout: { ...idleRollout, state: 'updating', message: '', startedAtMs: 3, finishedAtMs: 0 },
    });
    const during = progress(lab.parts, request, new AbortController().signal);
    await during.next();
    await lab.put('service', { ...rolledBack, rollout: { ...rolledBack.rollout, finishedAtMs: 4 } });
    expect((await during.next()).value).toMatchObject({ done: true, services: [{ outcome: 'failed' }] });
  });
  it('takes a rollback for a failure of the wish also where it was over before anybody asked', async () => {
    const lab = operatorLab();
    const outcome = async (revision: number) => {
      const request = { services: [two.id], revision, rollback: false };
      const { value } = await progress(lab.parts, request, new AbortController().signal).next();
      return value?.services[0]?.outcome;
    };
    await lab.put('task', task(1), task(2));
    const wish = lab.store.snapshot.revision;
    const rollout = { ...idleRollout, state: 'rolled-back', message: 'no such image', finishedAtMs: 2 } as const;
    const back: Service = { ...two, version: 3, rolledBackFrom: 2, rollout };
    await lab.put('service', back);
    const { id: serviceId, spec, revision } = back;
    const version = { serviceId, number: 3, spec, revision, by: '', createdAtMs: 1, message: '' };
    await lab.put('version', { ...version, outcome: 'completed', kind: 'rollback', why: 'no such image' });
    expect(await outcome(wish)).toBe('failed');
    expect(await outcome(lab.store.snapshot.revision)).toBe('converged');
  });
  it('gives a stuck task seconds from its first error on, and no more', async () => {
    const clock = new FakeClock();
    const lab = operatorLab({ clock });
    await lab.put('service', two);
    const on = (fields: Partial<Task>) => ({ ...task(2), state: 'preparing' as const, ...fields });
    await lab.put('task', task(1), on({}));
    const updates = progress(
      lab.parts,
      { services: [two.id], revision: 0, rollback: false },
      new AbortController().signal,
    );
    await updates.next();
    // Long preparations are none of its troubles.
    await clock.pass(60_000);
    const first = updates.next();
    await lab.put('task', on({ error: 'no registry' }));
    await clock.pass(1_000);
    expect((await first).value).toMatchObject({
      done: false,
      services: [{ message: expect.stringMatching(/no registry; trying again/) }],
    });
    const last = updates.next();
    await clock.pass(6_000);
    expect((await last).value).toMatchObject({ done: true, services: [{ outcome: 'failed' }] });
  });
  it('ends when nobody listens any more', async () => {
    const lab = operatorLab();
    await lab.put('service', two);
    const controller = new AbortController();
    const updates = progress(lab.parts, { services: [two.id], revision: 0, rollback: false }, controller.signal);
    await updates.next();
    const last = updates.next();
    controller.abort();
    expect((await last).done).toBe(true);
  });
  it('names a service by its id where it was never there', async () => {
    const updates = progress(
      operatorLab().parts,
      { services: [idOf('gone')], revision: 0, rollback: false },
      new AbortController().signal,
    );
    expect((await updates.next()).value).toMatchObject({ done: true, services: [{ message: 'removed' }] });
  });
});
