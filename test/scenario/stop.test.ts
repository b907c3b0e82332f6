/** How a task is stopped: it leaves every node's tables, then its connections may end, then it is signalled. */
import { afterEach, expect, it } from 'vitest';
import { withdrawalLimitMs } from '#control-plane/dispatch/withdrawal.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { containerSpec } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { aTemplate } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

async function hosts(names: readonly string[], container: Parameters<typeof containerSpec>[1] = {}) {
  lab = await AgentLab.start(names, aTemplate({ container: containerSpec('web:1', container) }));
  for (const host of lab.hosts) await host.start();
  await eventually(() => lab.dispatches[0]!.connected().length === names.length);
  return lab.hosts as [LabHost, LabHost, LabHost];
}

/** A task on the host that every node sends to. */
async function served(host: LabHost, name = 't1'): Promise<TaskId> {
  const id = await lab.assign(host, name);
  await eventually(() => lab.hosts.every((one) => !one.agent || sendsTo(one, id)));
  return id;
}

const sendsTo = ({ network }: LabHost, id: TaskId) =>
  network.wanted?.endpoints.some(({ backends }) => backends.some((one) => one.taskId === id && one.serving)) ?? false;
const signalled = ({ runtime }: LabHost, id: TaskId) => runtime.signals.some((one) => one.id === id);
/** It is not signalled for as long as it takes to be sure. */
async function goesOn(host: LabHost, id: TaskId): Promise<void> {
  const start = performance.now();
  await eventually(() => signalled(host, id) || performance.now() - start > 250);
  expect(signalled(host, id)).toBe(false);
}
const stop = (id: TaskId, fields: Partial<Task> = {}) => lab.edit(id, { wanted: 'shutdown', ...fields });
const ends = (id: TaskId, timeoutMs = 10_000) =>
  eventually(() => lab.task(id).state === 'shutdown', { timeoutMs, everyMs: 5 });

it('is not told to stop while a node still sends to it', async () => {
  const [h1, h2] = await hosts(['h1', 'h2', 'h3']);
  const id = await served(h1);
  const release = h2.network.hold();
  await stop(id);
  await eventually(() => !sendsTo(h1, id));
  await goesOn(h1, id);
  expect(sendsTo(h2, id)).toBe(true);
  expect(lab.task(id)).toMatchObject({ state: 'running', wanted: 'shutdown' });
  release();
  await ends(id);
  expect(sendsTo(h2, id)).toBe(false);
});

it('ends within a moment where all nodes answer and nobody talks to it', async () => {
  const [h1] = await hosts(['h1', 'h2', 'h3']);
  const id = await served(h1);
  const start = performance.now();
  await stop(id);
  await ends(id);
  // Nothing of it is a wait for time to pass.
  expect(performance.now() - start).toBeLessThan(1_000);
});

it('is told all the same where a node does not answer, and the next one does not wait for that node', async () => {
  const [h1, h2] = await hosts(['h1', 'h2']);
  const [first, second] = [await served(h1), await served(h1, 't2')];
  const release = h2.network.hold();
  const start = performance.now();
  await stop(first);
  await ends(first);
  expect(performance.now() - start).toBeGreaterThan(withdrawalLimitMs - 100);
  const again = performance.now();
  await stop(second);
  await ends(second);
  expect(performance.now() - again).toBeLessThan(1_500);
  release();
});

it('waits for an agent that is being restarted, for its kernel goes on sending', async () => {
  const [h1, h2] = await hosts(['h1', 'h2']);
  const id = await served(h1);
  await h2.stop();
  await eventually(() => lab.dispatches[0]!.connected().length === 1);
  await stop(id);
  await goesOn(h1, id);
  await h2.start();
  await ends(id);
  expect(sendsTo(h2, id)).toBe(false);
});

it('does not wait for a node that is down', async () => {
  const [h1, h2] = await hosts(['h1', 'h2']);
  const id = await served(h1);
  await h2.stop();
  await eventually(() => lab.dispatches[0]!.connected().length === 1);
  await stop(id);
  await goesOn(h1, id);
  const held = lab.store.snapshot.get('node', h2.id)!;
  const down = { ...held.value, state: 'down' } as const;
  const start = performance.now();
  await lab.commit({ table: 'node', key: h2.id, value: down, expect: held.modRevision });
  await ends(id);
  expect(performance.now() - start).toBeLessThan(500);
});

it('of which its node is told anew is still withheld: full sets say nothing of it either', async () => {
  const [h1, h2] = await hosts(['h1', 'h2']);
  const id = await served(h1);
  const release = h2.network.hold();
  await stop(id);
  await h1.stop();
  await h1.start();
  await eventually(() => lab.dispatches[0]!.connected().length === 2);
  await eventually(() => !sendsTo(h1, id));
  await goesOn(h1, id);
  release();
  await ends(id);
});

it('is not told by a new leader before that has seen for itself, and a node that was told does not go back', async () => {
  const [h1, h2] = await hosts(['h1', 'h2']);
  const [drained, id] = [await served(h1), await served(h1, 't2')];
  h1.network.open.set(lab.task(drained).address, 1);
  await stop(drained);
  await eventually(() => lab.task(drained).message.startsWith('draining'));
  const release = h2.network.hold();
  await stop(id);
  lab.replica('m2', lab.etcd.open());
  await lab.lead('m2', 2);
  lab.net.serve('m1:7400', lab.dispatches[1]);
  await eventually(() => lab.dispatches[1]!.connected().length === 2, { timeoutMs: 5_000 });
  await goesOn(h1, id);
  h1.network.open.clear();
  // It had been told, and ends by that, while the new leader still withholds the stop of both.
  await ends(drained);
  expect(signalled(h1, id)).toBe(false);
  release();
  await ends(id);
});

it('goes on while others have connections to it, and says how many', async () => {
  const [h1] = await hosts(['h1'], { drainMs: 60_000 });
  const id = await served(h1);
  h1.network.open.set(lab.task(id).address, 3);
  await stop(id);
  await eventually(() => lab.task(id).message === 'draining: 3 connections');
  expect(signalled(h1, id)).toBe(false);
  expect(lab.task(id).state).toBe('running');
  h1.network.open.set(lab.task(id).address, 1);
  await eventually(() => lab.task(id).message === 'draining: 1 connection');
  h1.network.open.clear();
  await ends(id);
});

it('waits for connections no longer than its service says', async () => {
  const [h1] = await hosts(['h1'], { drainMs: 300 });
  const id = await served(h1);
  h1.network.open.set(lab.task(id).address, 1);
  const start = performance.now();
  await stop(id);
  await ends(id);
  expect(performance.now() - start).toBeGreaterThan(300);
  expect(performance.now() - start).toBeLessThan(1_500);
});

it('of a seat that has two of them waits for connections a moment only, unless its service says how long they are worth', async () => {
  const [h1] = await hosts(['h1']);
  const id = await served(h1);
  h1.network.open.set(lab.task(id).address, 1);
  const start = performance.now();
  await stop(id, { duplicate: true });
  await ends(id);
  // A drain of two seconds is what others get.
  expect(performance.now() - start).toBeLessThan(1_800);
  await lab.close();
  const [h2] = await hosts(['h2'], { drainMs: 60_000 });
  const worthy = await served(h2);
  h2.network.open.set(lab.task(worthy).address, 1);
  await stop(worthy, { duplicate: true });
  await eventually(() => lab.task(worthy).message === 'draining: 1 connection');
  const drainingAt = performance.now();
  await eventually(() => signalled(h2, worthy) || performance.now() - drainingAt > 600);
  expect(signalled(h2, worthy)).toBe(false);
  h2.network.open.clear();
  await ends(worthy);
});

it('that ends by itself while it drains is told as it ended, at once', async () => {
  const [h1] = await hosts(['h1'], { drainMs: 60_000 });
  const id = await served(h1);
  h1.network.open.set(lab.task(id).address, 1);
  await stop(id);
  await eventually(() => lab.task(id).message.startsWith('draining'));
  h1.runtime.exit(id, 3);
  await eventually(() => lab.task(id).state === 'failed');
  expect(lab.task(id).exitCode).toBe(3);
  await eventually(() => !h1.runtime.containers.has(id));
});

it('that has not come up is stopped without a wait', async () => {
  const [h1, h2] = await hosts(['h1', 'h2'], { drainMs: 60_000 });
  h1.network.open.set('10.192.1.10', 1);
  const release = h2.network.hold();
  const id = await lab.assign(h1, 't1', { wanted: 'ready' });
  await eventually(() => lab.task(id).state === 'ready');
  const start = performance.now();
  await stop(id);
  await ends(id);
  expect(performance.now() - start).toBeLessThan(500);
  release();
});

it('of a hundred tasks at once takes one wait, and one look at the connections for all', async () => {
  const [h1] = await hosts(['h1', 'h2']);
  const ids: TaskId[] = [];
  for (let number = 0; number < 100; number++) ids.push(await lab.assign(h1, `t${number}x`));
  await eventually(() => ids.every((id) => sendsTo(h1, id)));
  const looks: number[] = [];
  const count = h1.network.connections.bind(h1.network);
  h1.network.connections = async (addresses) => {
    looks.push(addresses.length);
    await new Promise<void>((resolve) => systemClock.after(10, resolve));
    return count(addresses);
  };
  const { snapshot } = lab.store;
  await lab.commit(
    ...ids.map((id) => {
      const { value, modRevision } = snapshot.get('task', id)!;
      return { table: 'task', key: id, value: { ...value, wanted: 'shutdown' }, expect: modRevision } as const;
    }),
  );
  await eventually(() => ids.every((id) => lab.task(id).state === 'shutdown'));
  expect(looks.reduce((sum, one) => sum + one, 0)).toBe(100);
  expect(looks.length).toBeLessThan(4);
});
