/** Jobs and their schedules, in whole stories. */
import { describe, expect, it } from 'vitest';
import { runJob, suspendJob } from '#control-plane/reconcilers/job-changes.ts';
import {
  createService,
  restartService,
  scaleService,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { hasCompleted } from '#proto/model/completion.ts';
import type { Iteration, Schedule } from '#proto/model/job.ts';
import { containerSpec, defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isTerminal, type Task } from '#proto/model/task.ts';
import { aNode, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const policy = (fields: Partial<ServiceSpec['restart']> = {}) => ({ ...defaults.jobRestart, ...fields });
const every = (cron: string, fields: Partial<Schedule> = {}): Schedule => ({ ...defaults.schedule, cron, ...fields });

/** A job on three nodes, as its file was just applied. */
class JobStory {
  readonly cluster: DecidedCluster;
  readonly service: Service;

  constructor(spec: Partial<ServiceSpec> = {}, nodes = ['h1', 'h2', 'h3']) {
    this.cluster = new DecidedCluster(nodes.map((name) => aNode(name)));
    // Into the middle of a minute.
    this.cluster.now = Date.parse('2026-01-01T00:00:30Z');
    const job = aSpec('job', { mode: 'replicated-job', replicas: 3, restart: policy(), ...spec });
    this.cluster.commit(createService(this.cluster.wish, job));
    this.service = [...this.cluster.snapshot.all('service')][0]!;
  }

  /** Decides until nothing changes; what is assigned runs. */
  settle(): this {
    this.cluster.settle(this.service);
    return this;
  }
  pass(ms: number): this {
    this.cluster.now += ms;
    return this.settle();
  }
  get spec(): ServiceSpec {
    return this.cluster.service(this.service).spec;
  }
  get iterations(): readonly Iteration[] {
    return this.cluster.service(this.service).job!.iterations;
  }
  /** `number state` of each. */
  get states(): string {
    return this.iterations.map(({ number, state }) => `${number} ${state}`).join(', ');
  }
  get running(): Task[] {
    return this.cluster.active(this.service).filter(({ state }) => state === 'running');
  }
  at(slot: number): Task {
    return this.running.find((task) => task.slot === slot)!;
  }
  end(task: Task, exitCode = 0): this {
    const { now } = this.cluster;
    const state = exitCode === 0 ? 'complete' : 'failed';
    this.cluster.report(task, { state, exitCode, finishedAtMs: now, stateAtMs: now });
    return this.settle();
  }
  endAll(exitCode = 0): this {
    for (const task of this.running) this.end(task, exitCode);
    return this;
  }
  update(fields: Partial<ServiceSpec>): this {
    this.cluster.commit(updateService(this.cluster.wish, this.service.id, { ...this.spec, ...fields }));
    return this.settle();
  }
  problem(wish: () => unknown): string {
    try {
      wish();
      return 'none';
    } catch (error) {
      if (!isFault(error)) throw error;
      return `${error.code}: ${error.message}`;
    }
  }
}

const slotsOf = (tasks: readonly Task[]) => tasks.map(({ slot }) => slot);

describe('a job', () => {
  it('runs its completions, and is complete with the last', () => {
    const story = new JobStory().settle();
    expect(slotsOf(story.running)).toEqual([1, 2, 3]);
    expect(story.end(story.at(1)).end(story.at(3)).states).toBe('1 running');
    story.end(story.at(2));
    expect(story.iterations[0]).toMatchObject({ state: 'complete', completed: 3, failed: 0, message: 'applied' });
    expect(hasCompleted(story.cluster.service(story.service), [])).toBe(true);
    expect(story.pass(3_600_000).running).toEqual([]);
  });

  it('runs no more at once than it may', () => {
    const story = new JobStory({ replicas: 5, maxConcurrent: 2 }).settle();
    expect(slotsOf(story.running)).toEqual([1, 2]);
    expect(slotsOf(story.end(story.at(2)).running)).toEqual([1, 3]);
    expect(story.endAll().endAll().endAll().states).toBe('1 complete');
    expect(story.cluster.tasks(story.service)).toHaveLength(5);
  });

  it('tries again what has failed, behind what has not, as often as its policy says', () => {
    const story = new JobStory({ replicas: 2, maxConcurrent: 1, restart: policy({ maxAttempts: 1 }) }).settle();
    story.end(story.at(1), 3);
    expect(slotsOf(story.running)).toEqual([2]);
    story.end(story.at(2));
    expect(slotsOf(story.running)).toEqual([1]);
    story.end(story.at(1), 4);
    expect(story.iterations[0]).toMatchObject({ state: 'failed', completed: 1, failed: 1, exitCode: 4 });
    expect(story.iterations[0]!.message).toMatch(/^job\.1 \(\w+\) on h\d: exit code 4$/);
    expect(story.pass(3_600_000).running).toEqual([]);
    expect(story.cluster.tasks(story.service)[1]!.why).toBe('not restarted: exit code 4, and all 1 attempts are used');
  });

  it('goes on with the others when one has failed for good', () => {
    const story = new JobStory({ replicas: 3, maxConcurrent: 1, restart: policy({ condition: 'none' }) }).settle();
    story.end(story.at(1), 1).end(story.at(2)).end(story.at(3));
    expect(story.iterations[0]).toMatchObject({ state: 'failed', completed: 2, failed: 1, exitCode: 1 });
  });

  it('does again elsewhere what a dead node had not completed, and nothing else; that is no attempt', () => {
    const story = new JobStory({ restart: policy({ condition: 'none' }) }).settle();
    const { cluster, service } = story;
    const [first, second] = [story.at(1), story.at(2)];
    story.end(first);
    cluster.put('node', aNode(second.nodeName, { state: 'down' }));
    story.settle();
    expect(slotsOf(story.running)).toEqual([2, 3]);
    expect(story.at(2).nodeName).not.toBe(second.nodeName);
    story.endAll();
    expect(story.states).toBe('1 complete');
    expect(cluster.tasks(service).filter(({ slot }) => slot === 1)).toHaveLength(1);
  });

  it('leaves a drained node when its task has stopped there', () => {
    const story = new JobStory({ replicas: 1 }).settle();
    const before = story.at(1);
    story.cluster.put('node', aNode(before.nodeName, { availability: 'drain' }));
    story.settle();
    expect(story.at(1).nodeName).not.toBe(before.nodeName);
    expect(story.endAll().states).toBe('1 complete');
  });

  it('runs anew when what runs has changed, in place of what is under way, and not for a label', () => {
    const story = new JobStory({ replicas: 1 }).settle();
    story.update({ labels: { team: 'a' } });
    expect(story.states).toBe('1 running');
    const old = story.at(1);
    story.cluster.commit(
      updateService(story.cluster.wish, story.service.id, {
        ...story.spec,
        template: aTemplate({ container: containerSpec('web:2') }),
      }),
    );
    story.cluster.decide(story.service);
    // The new one waits until the old one has stopped.
    expect(story.cluster.tasks(story.service).filter(({ state }) => !isTerminal(state))).toMatchObject([
      { id: old.id, wanted: 'shutdown', why: 'replaced by iteration 2: applied' },
    ]);
    expect(story.settle().states).toBe('1 replaced, 2 running');
    expect(story.at(1)).toMatchObject({ iteration: 2, revision: 3 });
    expect(story.cluster.service(story.service).rollout.state).toBe('idle');
  });

  it('runs once more when asked to, and is not scaled', () => {
    const story = new JobStory({ replicas: 1 }).settle();
    const { cluster, service } = story;
    const again = () => runJob(cluster.wish, service.id);
    expect(story.problem(again)).toBe('conflict: iteration 1 of demo/job is under way');
    story.endAll();
    cluster.commit(again());
    expect(story.settle().states).toBe('1 complete, 2 running');
    cluster.commit(restartService(cluster.wish, service.id));
    expect(story.settle().states).toBe('1 complete, 2 replaced, 3 running');
    expect(story.problem(() => scaleService(cluster.wish, service.id, 2))).toBe(
      'invalid: service demo/job is a job: it is not scaled',
    );
  });

  it('forgets the tasks of old iterations, and then the iterations', () => {
    const story = new JobStory({ replicas: 2 }).settle();
    for (let count = 0; count < 6; count++) {
      story.endAll();
      story.cluster.commit(runJob(story.cluster.wish, story.service.id));
      story.settle();
    }
    expect(story.endAll().pass(120_000).states).toBe('5 complete, 6 complete, 7 complete');
    expect(story.cluster.tasks(story.service)).toHaveLength(6);
  });
});

describe('a job of one task on every node', () => {
  it('runs once on each, and on one that joins later', () => {
    const story = new JobStory({ mode: 'global-job', replicas: 0 }).settle();
    expect(story.running.map(({ nodeName }) => nodeName).sort()).toEqual(['h1', 'h2', 'h3']);
    expect(story.endAll().iterations).toMatchObject([{ state: 'complete', completed: 3 }]);
    story.cluster.put('node', aNode('h4'));
    story.settle();
    expect(story.states).toBe('1 running');
    expect(story.running.map(({ nodeName }) => nodeName)).toEqual(['h4']);
    expect(story.endAll().iterations).toMatchObject([{ state: 'complete', completed: 4 }]);
  });

  it('waits for no node that is down, and runs there when it is back', () => {
    const story = new JobStory({ mode: 'global-job', replicas: 0 }, ['h1', 'h2']).settle();
    story.cluster.put('node', aNode('h2', { state: 'down' }));
    expect(story.settle().endAll().states).toBe('1 complete');
    story.cluster.put('node', aNode('h2'));
    expect(story.settle().running.map(({ nodeName }) => nodeName)).toEqual(['h2']);
    // What was completed before a drain stays so.
    story.endAll();
    story.cluster.put('node', aNode('h1', { availability: 'drain' }));
    story.settle();
    story.cluster.put('node', aNode('h1'));
    expect(story.settle().running).toEqual([]);
  });
});

describe('a schedule', () => {
  const minute = (fields: Partial<Schedule> = {}) =>
    new JobStory({ replicas: 1, schedule: every('* * * * *', fields) });
  const due = ({ iterations }: JobStory) =>
    iterations.map(({ dueAtMs, state }) => `${new Date(dueAtMs).toISOString().slice(14, 19)} ${state}`).join(', ');

  it('begins with its first instant, and asks to be looked at then', () => {
    const story = minute().settle();
    expect(story.states).toBe('');
    const { wakeAtMs } = story.cluster.decide(story.service);
    expect(new Date(wakeAtMs).toISOString()).toBe('2026-01-01T00:01:00.000Z');
    expect(due(story.pass(29_999))).toBe('');
    expect(due(story.pass(1))).toBe('01:00 running');
    expect(due(story.pass(30_000))).toBe('01:00 running');
  });

  it('commits the instant together with its tasks', () => {
    const story = minute().settle();
    story.cluster.now += 30_000;
    const { changes } = story.cluster.decide(story.service);
    expect(changes.map(({ table }) => table)).toEqual(['service', 'task']);
    expect(changes[0]).toMatchObject({ value: { job: { decidedUntilMs: Date.parse('2026-01-01T00:01:00Z') } } });
  });

  it('does nothing twice when the clock is set back', () => {
    const story = minute().settle().pass(30_000).endAll();
    story.cluster.now -= 20_000;
    expect(due(story.settle())).toBe('01:00 complete');
    expect(due(story.pass(20_000))).toBe('01:00 complete');
  });

  it.each([
    ['allow', '01:00 running, 02:00 running'],
    ['forbid', '01:00 running, 02:00 skipped'],
    ['replace', '01:00 replaced, 02:00 running'],
  ] as const)('with an iteration under way, overlap: %s', (overlap, words) => {
    const story = minute({ overlap }).settle().pass(30_000).pass(60_000);
    expect(due(story)).toBe(words);
    expect(story.running.map(({ iteration }) => iteration)).toEqual(
      { allow: [1, 2], forbid: [1], replace: [2] }[overlap],
    );
  });

  it.each([
    ['last', '05:00 running'],
    ['all', '01:00 running, 02:00 running, 03:00 running, 04:00 running, 05:00 running'],
    ['none', '05:00 skipped'],
  ] as const)('after five minutes in which nobody led, catch-up: %s', (catchUp, words) => {
    const story = minute({ catchUp })
      .settle()
      .pass(5 * 60_000);
    expect(due(story)).toBe(words);
  });

  it('says of which instants none was there', () => {
    const story = minute()
      .settle()
      .pass(5 * 60_000);
    expect(story.iterations[0]!.message).toBe('those due from 2026-01-01T00:01:00.000Z on were missed');
  });

  it('lets what it catches up on wait its turn, where it may not overlap', () => {
    const story = minute({ catchUp: 'all', overlap: 'forbid' })
      .settle()
      .pass(3 * 60_000);
    expect(due(story)).toBe('01:00 running');
    expect(due(story.endAll())).toBe('01:00 complete, 02:00 running');
    expect(due(story.endAll().endAll())).toBe('01:00 complete, 02:00 complete, 03:00 complete');
  });

  it('begins nothing later than its deadline', () => {
    const story = minute({ catchUp: 'all', startingDeadlineMs: 70_000 })
      .settle()
      .pass(3 * 60_000);
    expect(due(story)).toBe('01:00 skipped, 02:00 skipped, 03:00 running');
  });

  it('catches up on the last hundred at most, and lets no more than twenty be under way', () => {
    const story = new JobStory({
      replicas: 1,
      schedule: every('* * * * * *', { catchUp: 'all', keepFailed: 100 }),
    }).settle();
    story.pass(3_600_000);
    const states = Object.groupBy(story.iterations, ({ state }) => state);
    expect([states.running?.length, states.skipped?.length]).toEqual([20, 80]);
    expect(story.iterations[0]!.dueAtMs).toBe(Date.parse('2026-01-01T01:00:30Z') - 99_000);
  });

  it('rests while it is suspended, and catches up on nothing of that time', () => {
    const story = minute({ catchUp: 'all' }).settle();
    const { cluster, service } = story;
    cluster.commit(suspendJob(cluster.wish, service.id, true));
    expect(due(story.pass(5 * 60_000))).toBe('');
    // Applying the file again is no resumption.
    story.update({ labels: { again: 'yes' } });
    expect(due(story.pass(60_000))).toBe('');
    cluster.commit(suspendJob(cluster.wish, service.id, false));
    expect(due(story.pass(59_999))).toBe('07:00 running');
    story.update({ schedule: every('* * * * *', { suspend: true }) });
    expect(story.problem(() => suspendJob(cluster.wish, service.id, false))).toBe(
      'precondition: the Compose file suspends job demo/job',
    );
  });

  it('goes by another expression from when it is applied, and what is under way goes on', () => {
    const story = minute().settle().pass(30_000);
    story.update({ schedule: every('*/10 * * * *'), template: aTemplate({ container: containerSpec('web:2') }) });
    expect(due(story.pass(5 * 60_000))).toBe('01:00 running');
    expect(story.endAll().states).toBe('1 complete');
    expect(due(story.pass(4 * 60_000))).toBe('01:00 complete, 10:00 running');
    expect(story.running).toMatchObject([{ revision: 2, iteration: 2 }]);
  });

  it('lets an iteration by hand run beside it, and remembers three of each kind', () => {
    const story = minute({ keepSucceeded: 2 }).settle();
    story.cluster.commit(runJob(story.cluster.wish, story.service.id));
    story.settle().endAll();
    expect(story.iterations[0]).toMatchObject({ dueAtMs: 0, state: 'complete', message: 'asked for' });
    for (let count = 0; count < 5; count++) story.pass(60_000).endAll();
    expect(story.states).toBe('5 complete, 6 complete');
  });
});
