/** Plans in words: what moves is one line, what is lost says so. */
import { expect, it } from 'vitest';
import { fates } from '#control-plane/cli/fates.ts';

const task = (action: string, slot: number, node: string, reason = '') => ({ action, slot, node, reason });
const texts = (...tasks: ReturnType<typeof task>[]) => fates('shop/web', tasks).map(({ text }) => text);

it('a seat that stops on one node and starts on another moves', () => {
  expect(texts(task('stop', 1, 'h1'), task('stop', 2, 'h2'), task('start', 1, 'h2'), task('start', 2, 'h2'))).toEqual([
    'move shop/web.1 from h1 to h2',
    'replace shop/web.2 on h2',
  ]);
});

it('a seat that no node takes any more is lost, with the reason', () => {
  const tasks = [task('stop', 1, 'h1', 'node h1 is down'), task('start', 1, '', 'no node has memory')];
  expect(fates('shop/web', tasks)).toEqual([
    { text: 'lose shop/web.1 on h1', reason: 'node h1 is down; it waits: no node has memory' },
  ]);
});

it('whatever is alone starts, stops or waits', () => {
  expect(texts(task('start', 4, 'h3'), task('stop', 5, 'h1'), task('start', 6, ''))).toEqual([
    'start shop/web.4 on h3',
    'stop shop/web.5 on h1',
    'waits shop/web.6',
  ]);
});

it('tasks of one per node have no slot, and each is told', () => {
  expect(texts(task('stop', 0, 'h1'), task('start', 0, 'h2'))).toEqual(['stop shop/web on h1', 'start shop/web on h2']);
});
