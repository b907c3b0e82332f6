/** What a node says of itself becomes events, as many as one may believe. */
import { expect, it } from 'vitest';
import { type Notice, NoticeDesk } from '#control-plane/dispatch/notices.ts';
import { aNode } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const clock = new FakeClock();
const told: Notice[] = [];
const desk = new NoticeDesk(clock, (notice) => told.push(notice));
const node = aNode('h1');
const notice = (message: string, count = 1, action = 'repaired') => ({ action, message, count, atMs: 7 });

it('tells what happened where, and how often', () => {
  desk.take(node, [notice('a route was missing'), notice('a rule was missing', 12)]);
  const one = { atMs: clock.now(), kind: 'node', action: 'repaired', id: node.id, name: 'h1', node: 'h1' };
  expect(told.splice(0)).toEqual([
    { ...one, message: 'a route was missing' },
    { ...one, message: 'a rule was missing (12 times)' },
  ]);
});

it('passes over what it does not know, and cuts what is too long', () => {
  desk.take(node, [notice('made up', 1, 'created'), notice('x'.repeat(10_000))]);
  expect(told.splice(0).map(({ message }) => message.length)).toEqual([300]);
});

it('believes no node more than a burst and one thing a second, and others meanwhile', async () => {
  const flood = Array.from({ length: 1000 }, (_, index) => notice(`${index}`));
  desk.take(node, flood);
  expect(told.splice(0).length).toBeLessThanOrEqual(60);
  desk.take(node, flood);
  expect(told.splice(0)).toEqual([]);
  desk.take(aNode('h2'), [notice('hello')]);
  expect(told.splice(0)).toHaveLength(1);
  await clock.pass(5000);
  desk.take(node, flood);
  expect(told.splice(0)).toHaveLength(5);
});
