/** `ps` shows what is wanted, and the last word where nothing is; why says a reason once. */
import { expect, it } from 'vitest';
import { explain } from '#control-plane/api/explain.ts';
import { list } from '#control-plane/api/list.ts';
import type { Task } from '#proto/model/task.ts';
import { aRevision, aService, aTask } from '#test/support/builders.ts';
import { operatorLab } from '#test/support/operator.ts';

const web = aService('web', { replicas: 2 });
const task = (name: string, fields: Partial<Task>) => aTask(name, { serviceId: web.id, ...fields });

async function labOf(...tasks: Task[]) {
  const lab = operatorLab();
  await lab.put('service', web);
  await lab.put('revision', aRevision(web));
  await lab.put('task', ...tasks);
  const ps = (all = false) =>
    list(lab.parts, { kind: 'task', service: '', node: '', project: '', all }).tasks.map(({ id }) =>
      id.replace(/0+$/, ''),
    );
  return { lab, ps };
}

it('ps shows the task that holds a seat, not those that failed or are stopping beside it, however old', async () => {
  const { ps } = await labOf(
    task('old', { createdAtMs: 1 }),
    task('failed', { state: 'failed', createdAtMs: 2 }),
    task('leaving', { slot: 2, wanted: 'shutdown', createdAtMs: 1 }),
    task('next', { slot: 2, state: 'pending', createdAtMs: 2 }),
  );
  expect(ps()).toEqual(['old', 'next']);
  expect(ps(true)).toEqual(['failed', 'old', 'next', 'leaving']);
});

it('ps shows of an empty seat the newest task that ended by itself, unless the seat is gone or was told to stop', async () => {
  const ended = { state: 'failed', exitCode: 1 } as const;
  const { ps } = await labOf(
    task('first', { ...ended, createdAtMs: 1 }),
    task('second', { ...ended, createdAtMs: 2 }),
    task('stopped', { slot: 2, state: 'shutdown', wanted: 'shutdown' }),
    task('surplus', { slot: 3, ...ended }),
  );
  expect(ps()).toEqual(['second']);
});

it('ps shows for each node the task of a global service', async () => {
  const everywhere = aService('all', { mode: 'global', replicas: 0 });
  const on = (nodeName: string, name: string, fields: Partial<Task> = {}) =>
    aTask(name, { serviceId: everywhere.id, slot: 0, nodeName, ...fields });
  const { lab, ps } = await labOf();
  await lab.put('service', everywhere);
  await lab.put('task', on('h1', 'a'), on('h2', 'b', { state: 'failed' }), on('h1', 'c', { state: 'failed' }));
  expect(ps()).toEqual(['a', 'b']);
});

it('why says once why a task is pending', async () => {
  const { lab } = await labOf(task('web', { state: 'pending', message: 'there is no node' }));
  expect((await explain(lab.parts, { name: 'web.1' })).summary).toBe('web.1 is pending: there is no node');
});
