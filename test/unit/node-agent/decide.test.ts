/** Holds the next step of a task to its contract, by cases and whatever is seen. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  cleanupDelayMs,
  type Decision,
  decide,
  type Effect,
  effects,
  type TaskSeen,
  type TaskWanted,
} from '#node-agent/task/decide.ts';
import { type ContainerSpec, containerSpec } from '#proto/model/service.ts';
import { isTerminal, mayAdvance, taskStates, wantedStates } from '#proto/model/task.ts';
import { aTask, aTemplate } from '#test/support/builders.ts';

const now = { wallMs: 1_000_000, monotonicMs: 50_000 };

function wanted(
  task: Parameters<typeof aTask>[1] = {},
  removed = false,
  fields: Partial<ContainerSpec> = {},
): TaskWanted {
  const template = aTemplate({ container: containerSpec('web:1', { stopGracePeriodMs: 5_000, ...fields }) });
  return { task: aTask('t1', task), template, imageDigest: '', links: [], removed };
}

function seen(fields: Partial<TaskSeen> = {}): TaskSeen {
  return {
    state: 'assigned',
    image: false,
    rootfs: false,
    mounts: false,
    network: false,
    container: 'none',
    limited: true,
    limitAgainAtMs: 0,
    exit: undefined,
    leased: true,
    fenced: undefined,
    emptied: false,
    busy: new Set(),
    retryAtMs: 0,
    verdict: undefined,
    unhealthy: undefined,
    drained: false,
    hooksRun: 0,
    preStop: undefined,
    signalledAtMs: undefined,
    killed: false,
    endedAtMs: undefined,
    cleaned: false,
    ...fields,
  };
}

const prepared = { image: true, rootfs: true, mounts: true, network: true, state: 'preparing' } as const;
const hook = { command: ['x'], user: '', privileged: false, workingDir: '', env: [] };
const hooks = { postStart: [hook, hook], preStop: [hook] };
const exit = { exitCode: 0, oomKilled: false, atMs: 1, lost: false };

/** The steps in short: effects by name, reports by state. */
const short = (decision: Decision) =>
  decision.steps.map((step) =>
    step.do === 'effect' ? step.effect : step.do === 'report' ? `→${step.state}` : step.do,
  );

describe('a task to be run', () => {
  it('begins with its image and its network at once', () => {
    expect(short(decide(wanted(), seen(), now))).toEqual(['→preparing', 'attach-network', 'ensure-image']);
  });

  it('does not begin twice what is under way', () => {
    const busy = new Set<Effect>(['attach-network', 'ensure-image']);
    expect(short(decide(wanted(), seen({ state: 'preparing', busy }), now))).toEqual([]);
  });

  it('is created only when all it needs is there', () => {
    expect(short(decide(wanted(), seen(prepared), now))).toEqual(['create']);
    expect(short(decide(wanted(), seen({ ...prepared, network: false }), now))).toEqual(['attach-network']);
    expect(short(decide(wanted(), seen({ ...prepared, mounts: false }), now))).toEqual(['prepare-mounts']);
  });

  it('waits after a failure, and says until when', () => {
    expect(decide(wanted(), seen({ state: 'preparing', retryAtMs: now.monotonicMs + 70 }), now)).toEqual({
      steps: [],
      againInMs: 70,
    });
  });

  it('is not prepared long before its delay is over: a failing preparation must wait too', () => {
    const far = decide(wanted({ startAfterMs: now.wallMs + 5_000 }), seen(), now);
    expect(far).toEqual({ steps: [], againInMs: 4_000 });
    expect(short(decide(wanted({ startAfterMs: now.wallMs + 900 }), seen(), now))[0]).toBe('→preparing');
  });

  it('waits for its address with what needs none, and is created when it has one', () => {
    const waits = wanted({ wanted: 'ready', address: '' });
    expect(short(decide(waits, seen({ state: 'preparing' }), now))).toEqual(['ensure-image']);
    expect(short(decide(waits, seen({ state: 'preparing', image: true }), now))).toEqual(['prepare-rootfs']);
    const ready = seen({ state: 'preparing', image: true, rootfs: true });
    expect(short(decide(waits, ready, now))).toEqual(['→ready']);
    expect(decide(waits, { ...ready, state: 'ready' }, now).steps).toEqual([]);
    const runs = wanted({ wanted: 'running', address: '10.192.1.2' });
    expect(short(decide(runs, { ...ready, state: 'ready' }, now))).toEqual(['attach-network', 'prepare-mounts']);
  });

  it('starts when created, or waits as ready for its turn or its delay', () => {
    const created = seen({ ...prepared, container: 'created' });
    expect(short(decide(wanted(), created, now))).toEqual(['→starting', 'start']);
    expect(short(decide(wanted({ wanted: 'ready' }), created, now))).toEqual(['→ready']);
    const delayed = decide(wanted({ startAfterMs: now.wallMs + 40 }), created, now);
    expect(short(delayed)).toEqual(['→ready']);
    expect(delayed.againInMs).toBe(40);
  });
});

describe('a task whose limits change', () => {
  const running = { ...prepared, state: 'running', container: 'running', limited: false } as const;

  it('has them set while it runs, once it is known to run, and again later where they were refused', () => {
    expect(short(decide(wanted(), seen(running), now))).toEqual(['limit']);
    expect(short(decide(wanted(), seen({ ...running, busy: new Set(['limit']) }), now))).toEqual([]);
    expect(short(decide(wanted(), seen({ ...running, state: 'starting' }), now))).toEqual(['→running']);
    const refused = seen({ ...running, limitAgainAtMs: now.monotonicMs + 70 });
    expect(decide(wanted(), refused, now)).toEqual({ steps: [], againInMs: 70 });
  });

  it('is stopped no later for limits that cannot be set', () => {
    const refused = { ...running, limitAgainAtMs: now.monotonicMs + 70, drained: true };
    expect(short(decide(wanted({ wanted: 'shutdown' }), seen(refused), now))).toEqual(['signal']);
    const late = { ...refused, signalledAtMs: now.monotonicMs - 5_000 };
    expect(short(decide(wanted({ wanted: 'shutdown' }), seen(late), now))).toEqual(['kill']);
  });
});

describe('a task to be stopped', () => {
  const running = { ...prepared, state: 'running', container: 'running' } as const;
  const stop = wanted({ wanted: 'shutdown' });

  it('is drained first, and signalled when that is done', () => {
    expect(short(decide(stop, seen(running), now))).toEqual(['drain']);
    expect(short(decide(stop, seen({ ...running, busy: new Set(['drain']) }), now))).toEqual([]);
    expect(short(decide(stop, seen({ ...running, drained: true }), now))).toEqual(['signal']);
  });

  it('is signalled at once where nobody can be served by it any more, and where its service wants no drain', () => {
    const unwell = { ...running, unhealthy: 'no answer', busy: new Set<Effect>(['drain']) };
    expect(short(decide(stop, seen(unwell), now))).toEqual(['signal']);
    expect(short(decide(stop, seen({ ...running, state: 'starting' }), now))).toEqual(['signal']);
    const hasty = aTemplate({ container: containerSpec('web:1', { drainMs: 0 }) });
    expect(short(decide({ ...stop, template: hasty }, seen(running), now))).toEqual(['signal']);
  });

  it('is signalled, then killed after its grace period, not before', () => {
    expect(short(decide(stop, seen({ ...running, drained: true }), now))).toEqual(['signal']);
    const signalled = { ...running, drained: true, signalledAtMs: now.monotonicMs - 4_000 };
    expect(decide(stop, seen(signalled), now)).toEqual({ steps: [], againInMs: 1_000 });
    expect(short(decide(stop, seen({ ...signalled, signalledAtMs: now.monotonicMs - 5_000 }), now))).toEqual(['kill']);
  });

  it('that was not started waits for what is under way, then is shut down', () => {
    expect(short(decide(stop, seen({ busy: new Set(['create']) }), now))).toEqual([]);
    expect(short(decide(stop, seen(prepared), now))).toEqual(['→shutdown']);
  });

  it('is told as it ended: by our signal shutdown, before it complete or failed', () => {
    expect(short(decide(stop, seen({ ...running, exit, signalledAtMs: 1 }), now))).toEqual(['→shutdown']);
    expect(short(decide(stop, seen({ ...running, exit }), now))).toEqual(['→complete']);
    expect(short(decide(stop, seen({ ...running, exit: { ...exit, exitCode: 2 } }), now))).toEqual(['→failed']);
  });

  it('that lost its monitor is failed, for its exit code is not known', () => {
    expect(short(decide(wanted(), seen({ ...running, exit: { ...exit, lost: true } }), now))).toEqual(['→failed']);
  });
});

describe('a task with hooks', () => {
  const started = { ...prepared, state: 'starting', container: 'running' } as const;
  const next = (fields: Partial<TaskSeen>, task = {}) => decide(wanted(task, false, hooks), seen(fields), now);
  const stop = { wanted: 'shutdown' } as const;

  it('counts as running when all of post_start have run, one after the other', () => {
    expect(short(next(started))).toEqual(['post-start']);
    expect(short(next({ ...started, busy: new Set(['post-start']) }))).toEqual([]);
    expect(short(next({ ...started, hooksRun: 1 }))).toEqual(['post-start']);
    expect(short(next({ ...started, hooksRun: 2 }))).toEqual(['→running']);
  });

  it('has its pre_stop after the drain and before the signal, within the grace period, whatever they come to', () => {
    const up = { ...started, state: 'running', hooksRun: 2 } as const;
    expect(short(next(up, stop))).toEqual(['drain']);
    expect(short(next({ ...up, drained: true }, stop))).toEqual(['pre-stop']);
    const begun = { beganAtMs: now.monotonicMs - 4_900 };
    const busy = new Set<Effect>(['pre-stop']);
    expect(short(next({ ...up, drained: true, preStop: begun, busy }, stop))).toEqual([]);
    const failed = { ...begun, failure: 'pre_stop: it failed' };
    expect(short(next({ ...up, drained: true, preStop: failed }, stop))).toEqual(['signal']);
    const signalled = { ...up, drained: true, preStop: failed, signalledAtMs: now.monotonicMs };
    expect(next(signalled, stop).againInMs).toBe(2_000);
    expect(next({ ...signalled, exit }, stop).steps[0]).toMatchObject({ state: 'shutdown', error: failed.failure });
  });

  it('that is stopped before it has come up has no pre_stop', () => {
    expect(short(next(started, stop))).toEqual(['signal']);
    const verdict = { state: 'failed', error: 'post_start: no' } as const;
    expect(short(next({ ...started, verdict }))).toEqual(['signal']);
  });
});

describe('the remains of a task', () => {
  it('go after a moment, and its record when nobody wants it any more', () => {
    const ended = { state: 'failed', endedAtMs: now.monotonicMs - 50 } as const;
    expect(decide(wanted(), seen(ended), now)).toEqual({ steps: [], againInMs: cleanupDelayMs - 50 });
    expect(short(decide(wanted(), seen({ ...ended, endedAtMs: 0 }), now))).toEqual(['cleanup']);
    expect(short(decide(wanted(), seen({ ...ended, cleaned: true }), now))).toEqual([]);
    expect(short(decide(wanted({}, true), seen({ ...ended, cleaned: true }), now))).toEqual(['forget']);
  });
});

describe('a singleton', () => {
  const created = { ...prepared, state: 'ready', container: 'created' } as const;
  it('waits for a lease, and begins under it', () => {
    const single = wanted({ singleton: true });
    expect(decide(single, seen({ ...created, leased: false }), now)).toEqual({ steps: [], againInMs: 50 });
    expect(short(decide(single, seen(created), now))).toEqual(['→starting', 'start']);
  });

  it('that the lease ended is told so, whatever its policy', () => {
    const ended = seen({ ...created, container: 'running', state: 'running', exit, fenced: 'its lease ended' });
    expect(short(decide(wanted({ singleton: true }), ended, now))).toEqual(['→orphaned']);
  });

  it('is told to have ended only when nothing of it is left', () => {
    const single = wanted({ singleton: true });
    const lost = { ...created, container: 'running', state: 'running', exit: { ...exit, lost: true } } as const;
    expect(short(decide(single, seen(lost), now))).toEqual(['empty']);
    expect(short(decide(single, seen({ ...lost, busy: new Set(['empty']) }), now))).toEqual([]);
    expect(short(decide(single, seen({ ...lost, emptied: true }), now))).toEqual(['→failed']);
    const unstarted = { ...created, verdict: { state: 'failed', error: 'x' } } as const;
    expect(short(decide(single, seen(unstarted), now))).toEqual(['empty']);
    expect(short(decide(wanted(), seen(lost), now))).toEqual(['→failed']);
  });
});

describe('whatever is seen', () => {
  const anySeen = fc.record({
    state: fc.constantFrom(...taskStates),
    image: fc.boolean(),
    rootfs: fc.boolean(),
    mounts: fc.boolean(),
    network: fc.boolean(),
    container: fc.constantFrom('none', 'created', 'running'),
    limited: fc.boolean(),
    limitAgainAtMs: fc.constantFrom(0, now.monotonicMs + 10),
    exit: fc.constantFrom(undefined, exit, { ...exit, lost: true }),
    leased: fc.boolean(),
    fenced: fc.constantFrom(undefined, 'its lease ended'),
    emptied: fc.boolean(),
    busy: fc.subarray([...effects]).map((some) => new Set(some)),
    retryAtMs: fc.constantFrom(0, now.monotonicMs + 10),
    verdict: fc.constantFrom(undefined, { state: 'rejected', error: 'x' }),
    unhealthy: fc.constantFrom(undefined, 'x'),
    drained: fc.boolean(),
    hooksRun: fc.nat(2),
    preStop: fc.constantFrom(undefined, { beganAtMs: 0 }, { beganAtMs: 0, failure: '' }),
    signalledAtMs: fc.constantFrom(undefined, 0, now.monotonicMs),
    killed: fc.boolean(),
    endedAtMs: fc.constantFrom(undefined, 0),
    cleaned: fc.boolean(),
  }) as fc.Arbitrary<TaskSeen>;
  const anyWanted = fc
    .record({
      wanted: fc.constantFrom(...wantedStates),
      singleton: fc.boolean(),
      removed: fc.boolean(),
      hooks: fc.constantFrom({}, hooks),
    })
    .map(({ removed, hooks, ...task }) => wanted(task, removed, hooks));

  it('states go forward, nothing is begun twice, and what has ended never starts again', () => {
    fc.assert(
      fc.property(anyWanted, anySeen, (some, what) => {
        const { steps, againInMs } = decide(some, what, now);
        let { state } = what;
        for (const step of steps) {
          if (step.do === 'report') {
            expect(mayAdvance(state, step.state)).toBe(true);
            state = step.state;
          }
          if (step.do === 'effect') {
            expect(what.busy.has(step.effect)).toBe(false);
            if (isTerminal(what.state)) expect(step.effect).toBe('cleanup');
            else if (what.exit) expect(step.effect).toBe('empty');
          }
          expect(step.why).not.toBe('');
        }
        if (againInMs !== undefined) expect(againInMs).toBeGreaterThan(0);
      }),
      { numRuns: 5_000 },
    );
  });
});
