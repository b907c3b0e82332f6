/** Holds a stop back until nobody sends to its task any more, and no longer than that. */
import { describe, expect, it } from 'vitest';
import {
  asUntold,
  awayLimitMs,
  isLeaving,
  leavesService,
  Withdrawals,
  withdrawalLimitMs,
} from '#control-plane/dispatch/withdrawal.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aTask } from '#test/support/builders.ts';

const [h1, h2, h3] = [aNode('h1').id, aNode('h2').id, aNode('h3').id];
const onH1 = { nodeId: h1, nodeName: 'h1', address: '10.192.1.2' } as const;
const running = aTask('t', onH1);
const stopped: Task = { ...running, wanted: 'shutdown' };

/** What the nodes hold, all since they said hello. */
const hold = (revisions: Partial<Record<'h1' | 'h2' | 'h3', number>>, greetedAtMs = 0) =>
  Object.entries(revisions).map(([name, appliedRevision]) => ({
    id: aNode(name).id,
    session: { greetedAtMs, appliedRevision },
  }));
const names = (released: ReadonlyMap<string, ReadonlySet<string>>) => [...released.values()].flatMap((set) => [...set]);

describe('a task leaves service by a stop', () => {
  it('where traffic was sent to it', () => {
    expect(leavesService(running, stopped)).toBe(true);
    expect(leavesService(running, { ...running, wanted: 'remove' })).toBe(true);
    const healthy = { ...running, health: 'healthy' } as const;
    expect(leavesService(healthy, { ...healthy, wanted: 'shutdown' })).toBe(true);
  });

  it.each<[string, Partial<Task>]>([
    ['it had not started', { state: 'starting' }],
    ['it was not well', { health: 'unhealthy' }],
    ['its health was not known yet', { health: 'starting' }],
    ['it has no address', { address: '' }],
    ['it was told before', { wanted: 'shutdown' }],
  ])('and not where %s', (_, fields) => {
    const before = { ...running, ...fields };
    expect(leavesService(before, { ...before, wanted: 'remove' })).toBe(false);
  });

  it('and not by its own end, nor by being lost with its node', () => {
    expect(leavesService(running, { ...running, state: 'failed' })).toBe(false);
    expect(leavesService(running, { ...stopped, state: 'orphaned' })).toBe(false);
    expect(leavesService(running, undefined)).toBe(false);
  });

  it('which a new leader sees by what it is', () => {
    expect(isLeaving(stopped)).toBe(true);
    expect(isLeaving(running)).toBe(false);
    expect(isLeaving({ ...stopped, state: 'ready' })).toBe(false);
    expect(asUntold(stopped)).toEqual(running);
    expect(asUntold(running)).toBe(running);
  });
});

describe('a stop', () => {
  it('is told when every node holds the revision at which the task left, not before', () => {
    const stops = new Withdrawals();
    stops.withhold(7, [stopped], 1_000);
    expect(stops.holds(stopped.id)).toBe(true);
    expect(names(stops.release(hold({ h1: 7, h2: 6, h3: 9 }), 1_001))).toEqual([]);
    expect([...stops.release(hold({ h1: 7, h2: 8, h3: 9 }), 1_002)]).toEqual([[h1, new Set([stopped.id])]]);
    expect(stops.holds(stopped.id)).toBe(false);
    expect(stops.waiting).toBe(false);
  });

  it('is told after a while where a node says nothing, and nobody waits for that node again before it speaks', () => {
    const stops = new Withdrawals();
    stops.withhold(7, [stopped], 1_000);
    expect(stops.deadlineMs(1_000)).toBe(1_000 + withdrawalLimitMs);
    expect(names(stops.release(hold({ h1: 7, h2: 6 }), 999 + withdrawalLimitMs))).toEqual([]);
    expect(stops.takeGivenUp()).toEqual([]);
    expect(names(stops.release(hold({ h1: 7, h2: 6 }), 1_000 + withdrawalLimitMs))).toEqual([stopped.id]);
    expect(stops.takeGivenUp()).toEqual(hold({ h2: 6 }));
    expect(stops.takeGivenUp()).toEqual([]);
    const other = aTask('u', { ...onH1, wanted: 'shutdown' });
    stops.withhold(9, [other], 5_000);
    expect(names(stops.release(hold({ h1: 9, h2: 6 }), 5_001))).toEqual([other.id]);
    expect(stops.takeGivenUp()).toEqual([]);
    stops.caughtUp(h2);
    const third = aTask('v', { ...onH1, wanted: 'shutdown' });
    stops.withhold(11, [third], 6_000);
    expect(names(stops.release(hold({ h1: 11, h2: 10 }), 6_001))).toEqual([]);
  });

  it('waits each time for a node without a session: it comes back, or is soon down', () => {
    const stops = new Withdrawals();
    const away = [...hold({ h1: 20 }), { id: h2, session: undefined }];
    stops.withhold(7, [stopped], 0);
    expect(names(stops.release(away, withdrawalLimitMs))).toEqual([]);
    expect(stops.deadlineMs(withdrawalLimitMs)).toBe(awayLimitMs);
    expect(names(stops.release(away, awayLimitMs - 1))).toEqual([]);
    expect(names(stops.release(away, awayLimitMs))).toEqual([stopped.id]);
    expect(stops.takeGivenUp().map(({ id }) => id)).toEqual([h2]);
    stops.withhold(9, [stopped], 20_000);
    expect(names(stops.release(away, 20_000 + withdrawalLimitMs))).toEqual([]);
    expect(names(stops.release(hold({ h1: 20 }), 20_001 + withdrawalLimitMs))).toEqual([stopped.id]);
  });

  it('waits for a node that is back from its hello on, and ten seconds in all: it needs time to say what it holds, and may say what it held before first', () => {
    const stops = new Withdrawals();
    const backAtMs = withdrawalLimitMs - 1;
    const back = (held: number) => [...hold({ h1: 20 }), ...hold({ h2: held }, backAtMs)];
    stops.withhold(7, [stopped], 0);
    for (const held of [0, 3]) expect(names(stops.release(back(held), withdrawalLimitMs))).toEqual([]);
    expect(stops.deadlineMs(withdrawalLimitMs)).toBe(backAtMs + withdrawalLimitMs);
    expect(names(stops.release(back(7), withdrawalLimitMs + 1))).toEqual([stopped.id]);

    stops.withhold(9, [stopped], 0);
    expect(names(stops.release(back(7), backAtMs + withdrawalLimitMs))).toEqual([stopped.id]);
    expect(stops.takeGivenUp()).toEqual(hold({ h2: 7 }, backAtMs));
  });

  it('that has waited for ten seconds is told without a node that is just back, and the next stop waits for it all the same', () => {
    const stops = new Withdrawals();
    const next = aTask('u', { ...onH1, wanted: 'shutdown' });
    const back = [...hold({ h1: 20 }), ...hold({ h2: 3 }, awayLimitMs - 1)];
    stops.withhold(7, [stopped], 0);
    stops.withhold(9, [next], awayLimitMs - 1_000);
    expect(names(stops.release(back, awayLimitMs))).toEqual([stopped.id]);
    expect(names(stops.release(back, awayLimitMs + 1))).toEqual([]);
    expect(names(stops.release(back, awayLimitMs - 1 + withdrawalLimitMs))).toEqual([next.id]);
  });

  it('does not wait for a node that is not there any more', () => {
    const stops = new Withdrawals();
    stops.withhold(7, [stopped], 0);
    expect(names(stops.release(hold({ h1: 7, h3: 6 }), 1))).toEqual([]);
    expect(names(stops.release(hold({ h1: 7 }), 2))).toEqual([stopped.id]);
  });

  it('of a task that has ended meanwhile is told to nobody', () => {
    const stops = new Withdrawals();
    const other = aTask('u', { ...onH1, nodeId: h3, wanted: 'shutdown' });
    stops.withhold(7, [stopped, other], 0);
    stops.drop(stopped.id);
    expect(names(stops.release(hold({ h1: 7 }), 1))).toEqual([other.id]);
    stops.withhold(8, [stopped], 0);
    stops.drop(stopped.id);
    expect(stops.waiting).toBe(false);
  });

  it('is forgotten with the leadership', () => {
    const stops = new Withdrawals();
    stops.withhold(7, [stopped], 0);
    stops.clear();
    expect([stops.waiting, stops.holds(stopped.id), stops.deadlineMs(0)]).toEqual([false, false, undefined]);
  });
});
