/** Lists from the command line, cut down to what a script asks for. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { containerSpec } from '#proto/model/service.ts';
import { aNode, aService, aTask, aTemplate } from '#test/support/builders.ts';
import { type CliLab, startCliLab } from '#test/support/cli-lab.ts';

let made: CliLab;
const gantry = (...args: string[]) => made.gantry(...args);
const ids = async (...args: string[]) => (await gantry(...args)).stdout.trim().split('\n').filter(Boolean);

const web = aService('web', { labels: { tier: 'front' } });
const db = aService('db', {
  labels: { tier: 'back' },
  template: aTemplate({ container: { ...containerSpec('db:1'), labels: { backup: 'nightly' } } }),
});
const on = (name: string) => ({ nodeId: aNode(name).id, nodeName: name });
const tasks = [
  aTask('w1', { serviceId: web.id, slot: 1, ...on('h1') }),
  aTask('w2', { serviceId: web.id, slot: 2, ...on('h2') }),
  aTask('w0', { serviceId: web.id, slot: 2, ...on('h2'), state: 'failed', wanted: 'shutdown' }),
  aTask('d1', { serviceId: db.id, serviceName: 'db', slot: 1, ...on('h1'), state: 'starting' }),
];
const [w1, w2, w0, d1] = tasks.map(({ id }) => id as string);

beforeEach(async () => {
  made = await startCliLab();
  await made.lab.put('node', aNode('h1', { labels: { zone: 'a' } }), aNode('h2', { state: 'down' }));
  await made.lab.put('service', web, db);
  await made.lab.put('task', ...tasks);
});
afterEach(() => made.scope.close());

it('ps prints ids alone where that is asked, those that pass every kind of filter', async () => {
  expect(await ids('ps', '-q')).toEqual([d1, w1, w2]);
  expect(await ids('ps', '-q', '-f', 'node=h1')).toEqual([d1, w1]);
  expect(await ids('ps', '-q', '--filter', 'node=h1', '--filter', 'node=h2', '--filter', 'name=web')).toEqual([w1, w2]);
  expect(await ids('ps', '-q', '--filter', 'name=demo/web.2')).toEqual([w2]);
  expect(await ids('ps', '-q', '--filter', 'label=tier=back', '--filter', 'label=backup')).toEqual([d1]);
  expect(await ids('ps', '-q', '--filter', 'label=tier=back', '--filter', 'label=tier=front')).toEqual([]);
  expect(JSON.parse((await gantry('ps', '--json', '--filter', 'name=db')).stdout)).toMatchObject([{ name: 'db.1' }]);
});

it('ps knows those of before, where it is asked how they ended', async () => {
  expect(await ids('ps', '-q', '--filter', 'state=failed')).toEqual([w0]);
  expect(await ids('ps', '-q', '--filter', 'desired-state=shutdown')).toEqual([w0]);
  expect((await gantry('ps', '--filter', 'state=rejected')).stdout).toBe('There are no tasks.\n');
});

it('services and nodes likewise', async () => {
  expect(await ids('services', '-q')).toEqual([db.id, web.id]);
  expect(await ids('services', '-q', '--filter', 'label=tier=front')).toEqual([web.id]);
  expect(await ids('services', '-q', '--filter', 'mode=global')).toEqual([]);
  expect(await ids('nodes', '-q', '--filter', 'state=ready')).toEqual([aNode('h1').id]);
  expect(await ids('node', 'ls', '-q', '--filter', 'label=zone=a')).toEqual([aNode('h1').id]);
});

it('a filter that there is not is refused with those there are', async () => {
  expect(await gantry('ps', '--filter', 'status=exited')).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(
      /no filter "status" of tasks[\s\S]*filters of tasks: id, name, node, state, desired-state, label/,
    ),
  });
  expect(await gantry('ps', '--filter', 'state=exited')).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/"exited" is no state of tasks[\s\S]*it is one of new, pending/),
  });
  expect((await gantry('services', '--filter', 'name')).stderr).toContain('write name=VALUE');
});
