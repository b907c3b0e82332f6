/** Holds the leader to saying of a wrong clock whose it is and by how much, and of its own clock as of others. */
import { expect, it } from 'vitest';
import { judgeClocks } from '#control-plane/reconcilers/clocks.ts';
import { type NodeId, nodeId } from '#proto/model/ids.ts';
import { clockComplaint, offWords } from '#proto/model/wall-clock.ts';
import { idOf } from '#test/support/builders.ts';

const hourMs = 3_600_000;
const [h1, h2, h3] = ['h1', 'h2', 'h3'].map((name) => nodeId(idOf(name))) as [NodeId, NodeId, NodeId];
const judged = (...offsets: readonly [NodeId, number][]) => {
  const { words, ownMs } = judgeClocks(new Map(offsets), 'm1');
  return { words: Object.fromEntries(words), ownMs };
};

it('clocks that differ by what messages take are right', () => {
  expect(judged([h1, 40], [h2, -4_000], [h3, 9_000])).toEqual({ words: {}, ownMs: 0 });
});

it('one that most do not agree with is wrong', () => {
  expect(judged([h1, 5], [h2, hourMs], [h3, -20])).toEqual({
    words: { [h2]: 'its clock is 1 h ahead of those of most hosts' },
    ownMs: 0,
  });
  expect(judged([h1, -90_000], [h2, 0], [h3, -20]).words).toEqual({
    [h1]: 'its clock is 90 s behind those of most hosts',
  });
});

it('where all nodes agree on another time it is the leader who is wrong, and nothing is said of them', () => {
  const all = judged([h1, hourMs], [h2, hourMs + 30], [h3, hourMs - 800]);
  expect(all.words).toEqual({});
  expect(offWords(all.ownMs)).toBe('1 h behind');
  // A node that the leader takes to be right is as wrong as the leader.
  const { words, ownMs } = judged([h1, hourMs], [h2, hourMs], [h3, hourMs], [nodeId(idOf('h4')), 0]);
  expect([Object.values(words), ownMs]).toEqual([['its clock is 1 h behind those of most hosts'], -hourMs]);
});

it('of two nobody can tell who is wrong', () => {
  expect(judged([h1, hourMs])).toEqual({
    words: { [h1]: 'its clock is 1 h ahead of that of m1, which leads: one of them is wrong' },
    ownMs: 0,
  });
  // Nor where all differ.
  expect(judged([h1, hourMs], [h2, -hourMs]).ownMs).toBe(0);
});

it('says a difference so that it stays the same while the difference does', () => {
  const said = (ms: number) => [offWords(ms - 300), offWords(ms), offWords(ms + 300)];
  for (const [ms, words] of [
    [12_000, '12 s ahead of'],
    [600_000, '10 min ahead of'],
    [hourMs, '1 h ahead of'],
    [5 * hourMs, '5 h ahead of'],
    [400 * 24 * hourMs, '400 days ahead of'],
  ] as const)
    expect(said(ms)).toEqual([words, words, words]);
});

it('a host that asks others for the time takes itself to be wrong where all others agree', () => {
  const at = (name: string, aheadMs: number) => ({ name, aheadMs });
  expect(clockComplaint([at('m1', 30), at('m2', -2_000)])).toBeUndefined();
  expect(clockComplaint([])).toBeUndefined();
  expect(clockComplaint([at('m1', hourMs), at('m2', hourMs + 90)])).toBe(
    'the clock of this host is 1 h behind those of m1, m2',
  );
  expect(clockComplaint([at('m1', -hourMs)])).toBe(
    'the clock of this host is 1 h ahead of that of m1: one of them is wrong',
  );
  expect(clockComplaint([at('m1', 0), at('m2', -hourMs)])).toBe('the clock of m2 is 1 h behind that of this host');
});
