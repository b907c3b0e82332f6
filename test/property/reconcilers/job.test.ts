/** A job under failures of every kind, against a list of what became of each completion that anybody could keep by hand. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { defaults } from '#proto/model/service.ts';
import { isTerminal, type Task } from '#proto/model/task.ts';
import { aNode, aSpec } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

/** What happens to one of the tasks that run, or to the node it is on. `pick` chooses which. */
const event = fc.record({
  pick: fc.nat(1_000),
  what: fc.oneof(
    { weight: 5, arbitrary: fc.constant('completes' as const) },
    { weight: 3, arbitrary: fc.constant('fails' as const) },
    { weight: 1, arbitrary: fc.constant('is refused' as const) },
    { weight: 1, arbitrary: fc.constant('its node dies' as const) },
    { weight: 1, arbitrary: fc.constant('its node is drained' as const) },
  ),
  afterMs: fc.nat(20_000),
});

const job = fc.record({
  replicas: fc.integer({ min: 1, max: 9 }),
  maxConcurrent: fc.nat(4),
  maxAttempts: fc.integer({ min: 1, max: 3 }),
  condition: fc.constantFrom('on-failure' as const, 'none' as const),
  windowMs: fc.constantFrom(0, 5_000, 60_000),
});

/** Who was told to leave, or whose node was lost, takes no attempt, and must not make one forgotten either: seven tasks of a seat within 61 s. */
const forgottenFailure: [
  typeof job extends fc.Arbitrary<infer T> ? T : never,
  (typeof event extends fc.Arbitrary<infer T> ? T : never)[],
] = [
  { replicas: 3, maxConcurrent: 0, maxAttempts: 2, condition: 'on-failure', windowMs: 0 },
  [
    { pick: 178, what: 'fails', afterMs: 0 },
    { pick: 166, what: 'its node dies', afterMs: 0 },
    { pick: 929, what: 'completes', afterMs: 0 },
    { pick: 159, what: 'fails', afterMs: 18_440 },
    { pick: 49, what: 'its node dies', afterMs: 11_243 },
    { pick: 303, what: 'its node is drained', afterMs: 12_935 },
    { pick: 343, what: 'fails', afterMs: 17_376 },
  ],
];

interface Policy {
  readonly maxAttempts: number;
  readonly condition: 'on-failure' | 'none';
  readonly windowMs: number;
}

/** Kept by hand: which slots are done, and which have failed too often. */
class Tally {
  readonly done = new Set<number>();
  readonly givenUp = new Set<number>();
  readonly #policy: Policy;

  constructor(policy: Policy) {
    this.#policy = policy;
  }

  failed(slot: number, begunAtMs: readonly number[], now: number): void {
    const { maxAttempts, condition, windowMs } = this.#policy;
    const again = begunAtMs.slice(1).filter((atMs) => windowMs === 0 || atMs > now - windowMs).length;
    if (condition === 'none' || again >= maxAttempts) this.givenUp.add(slot);
  }
}

describe('a job', () => {
  it('completes every slot that does not fail for good exactly once, never more at once than it may', () => {
    fc.assert(
      fc.property(job, fc.array(event, { maxLength: 60 }), (job, events) => {
        const { replicas, maxConcurrent, ...policy } = job;
        const cluster = new DecidedCluster(['h1', 'h2', 'h3'].map((name) => aNode(name)));
        const restart = { ...defaults.jobRestart, ...policy };
        const spec = aSpec('job', { mode: 'replicated-job', replicas, maxConcurrent, restart });
        cluster.commit(createService(cluster.wish, spec));
        const [service] = [...cluster.snapshot.all('service')];
        const tally = new Tally(policy);
        /** When tasks of a slot began that ended by themselves. */
        const begun = new Map<number, number[]>();
        const iteration = () => cluster.service(service!).job!.iterations[0]!;
        const look = () => {
          cluster.settle(service!);
          const live = cluster.tasks(service!).filter(({ state }) => !isTerminal(state));
          if (maxConcurrent > 0) expect(live.length).toBeLessThanOrEqual(maxConcurrent);
          expect(new Set(live.map(({ slot }) => slot)).size).toBe(live.length);
          for (const { slot } of live) expect(tally.done.has(slot) || tally.givenUp.has(slot)).toBe(false);
          const open = replicas - tally.done.size - tally.givenUp.size;
          expect(live.length).toBe(maxConcurrent === 0 ? open : Math.min(maxConcurrent, open));
          return live;
        };
        const end = (task: Task, what: (typeof events)[number]['what']) => {
          const { now } = cluster;
          const ended = { stateAtMs: now, finishedAtMs: now };
          if (what === 'its node dies' || what === 'its node is drained') {
            const fields = what === 'its node dies' ? { state: 'down' as const } : { availability: 'drain' as const };
            cluster.put('node', aNode(task.nodeName, fields));
            cluster.settle(service!);
            cluster.put('node', aNode(task.nodeName));
            return;
          }
          begun.set(task.slot, [...(begun.get(task.slot) ?? []), task.createdAtMs]);
          if (what === 'completes') {
            tally.done.add(task.slot);
            cluster.report(task, { state: 'complete', ...ended });
          } else {
            tally.failed(task.slot, begun.get(task.slot)!, now);
            cluster.report(task, { state: what === 'fails' ? 'failed' : 'rejected', exitCode: 1, ...ended });
          }
        };
        for (const { pick, what, afterMs } of events) {
          const live = look();
          if (live.length === 0) break;
          cluster.now += afterMs + 1;
          end(live[pick % live.length]!, what);
        }
        for (let live = look(); live.length > 0; live = look()) for (const task of live) end(task, 'completes');
        const { state, completed, failed } = iteration();
        expect({ completed, failed }).toEqual({ completed: tally.done.size, failed: tally.givenUp.size });
        expect(state).toBe(tally.givenUp.size > 0 ? 'failed' : 'complete');
        const complete = cluster.tasks(service!).filter((task) => task.state === 'complete');
        expect(complete.length).toBeLessThanOrEqual(tally.done.size);
        // Nothing more comes of it, whatever time passes.
        cluster.now += 3_600_000;
        expect(look()).toEqual([]);
      }),
      { numRuns: 150, examples: [forgottenFailure] },
    );
  });
});
