/** Holds the writer of reports to one commit a tick, and to losing none. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { descriptionOf } from '#control-plane/dispatch/description.ts';
import { StatusWriter } from '#control-plane/dispatch/status.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Versioned } from '#control-plane/store/records.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { type NodeId, nodeId, type TaskId } from '#proto/model/ids.ts';
import type { Task, TaskState, TaskStatus } from '#proto/model/task.ts';
import { aNode, aTask, idOf } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

const node = nodeId(idOf('h1'));
let store: MemoryStore;
let writer: StatusWriter;

beforeEach(async () => {
  store = new MemoryEtcd({ clock: systemClock }).open();
  await store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: '' });
  writer = new StatusWriter({ store, clock: systemClock, log: silentLog, epoch: () => store.leadership?.epoch });
  await put('t1', node);
  await put('t2', node);
});
afterEach(async () => {
  writer.close();
  await store.close();
});

async function put(name: string, on: NodeId): Promise<void> {
  const value = aTask(name, { state: 'assigned', nodeId: on });
  await store.seen(await store.commit([{ table: 'task', key: value.id, value, expect: 0 }]));
}
const id = (name: string) => idOf(name) as TaskId;
const word = (name: string, state: TaskState, message = ''): TaskStatus => ({
  taskId: id(name),
  state,
  message,
  error: '',
  atMs: 5,
  startedAtMs: 0,
  finishedAtMs: 0,
  exitCode: 0,
  oomKilled: false,
  health: '',
  pid: 0,
  imageDigest: '',
});
const stateOf = (name: string) => store.snapshot.task(id(name))!.state;

describe('reports of agents', () => {
  it('of one tick are one commit', async () => {
    const { revision } = store.snapshot;
    writer.report(node, [word('t1', 'preparing'), word('t2', 'preparing')]);
    writer.report(node, [word('t1', 'running')]);
    await eventually(() => stateOf('t1') === 'running' && stateOf('t2') === 'preparing');
    expect(store.snapshot.revision).toBe(revision + 1);
  });

  it('that meet a newer record are taken into that one', async () => {
    const held = store.snapshot.get('task', id('t1'))!;
    const value = { ...held.value, wanted: 'shutdown' } as const;
    // Committed first, and not yet seen when the report is decided on the old record.
    const first = store.commit([{ table: 'task', key: id('t1'), value, expect: held.modRevision }]);
    writer.report(node, [word('t1', 'running')]);
    await first;
    await eventually(() => stateOf('t1') === 'running');
    expect(store.snapshot.task(id('t1'))!.wanted).toBe('shutdown');
  });

  it('are stamped with our own clock, whatever theirs says', async () => {
    const before = systemClock.now();
    writer.report(node, [{ ...word('t1', 'running'), atMs: 5, startedAtMs: 5 }]);
    await eventually(() => stateOf('t1') === 'running');
    const { stateAtMs, startedAtMs } = store.snapshot.task(id('t1'))!;
    expect(stateAtMs).toBeGreaterThanOrEqual(before);
    expect(startedAtMs).toBe(5);
  });

  it('outlive an etcd that does not answer for a while', async () => {
    const fault = new Fault('unavailable', 'no etcd');
    store.failNext({ fault, applied: false }, { fault, applied: false });
    writer.report(node, [word('t1', 'failed')]);
    writer.report(node, [word('t2', 'running')]);
    await eventually(() => stateOf('t1') === 'failed' && stateOf('t2') === 'running');
  });

  it('never take back an end, nor speak for the tasks of another node', async () => {
    writer.report(node, [word('t1', 'failed')]);
    writer.report(node, [word('t1', 'running')]);
    writer.report(nodeId(idOf('h2')), [word('t2', 'failed')]);
    await eventually(() => stateOf('t1') === 'failed');
    writer.report(node, [word('t1', 'running'), word('t2', 'preparing')]);
    await eventually(() => stateOf('t2') === 'preparing');
    expect(stateOf('t1')).toBe('failed');
  });

  it('do not displace what the node of a task says of it at the same moment', async () => {
    writer.report(node, [word('t1', 'failed')]);
    writer.report(nodeId(idOf('h2')), [word('t1', 'running')]);
    await eventually(() => stateOf('t1') === 'failed');
  });

  it('are kept short, and name images only by a digest', async () => {
    const long = 'x'.repeat(100_000);
    writer.report(node, [{ ...word('t1', 'failed', long), error: long, imageDigest: 'evil/image:latest' }]);
    await eventually(() => stateOf('t1') === 'failed');
    const task = store.snapshot.task(id('t1'))!;
    expect(task.message.length + task.error.length).toBeLessThan(10_000);
    expect(task.imageDigest).toBe('');
  });

  describe('of a task that was absent, by a node with another boot', () => {
    let held: Versioned<Task>;
    beforeEach(async () => {
      const absence = { sinceMs: 1, bootId: 'boot-1' };
      const away = aTask('t3', { state: 'running', nodeId: node, absence });
      await store.seen(
        await store.commit([
          { table: 'node', key: node, value: aNode('h1', { bootId: 'boot-1' }), expect: 0 },
          { table: 'task', key: away.id, value: away, expect: 0 },
        ]),
      );
      held = store.snapshot.get('task', away.id)!;
    });
    const said = { ...descriptionOf(aNode('h1')), bootId: 'boot-2' };

    it('say that it was lost, not that it failed', async () => {
      writer.report(node, [word('t3', 'failed')]);
      writer.describe(node, said, true);
      await eventually(() => stateOf('t3') === 'orphaned');
      expect(store.snapshot.task(id('t3'))!.absence).toBeUndefined();
      expect(store.snapshot.node(node)).toMatchObject({ bootId: 'boot-2' });
    });

    it('end it, also where a leader that does not know of the boot counts on it again at that moment', async () => {
      const value = { ...held.value, absence: undefined, returnedAtMs: 2 };
      const first = store.commit([{ table: 'task', key: value.id, value, expect: held.modRevision }]);
      writer.report(node, [word('t3', 'orphaned')]);
      writer.describe(node, said, true);
      await first;
      await eventually(() => stateOf('t3') === 'orphaned' && store.snapshot.node(node)!.bootId === 'boot-2');
    });
  });

  it('are left to the next leader where this replica does not lead any more', async () => {
    await store.takeLeadership(store.leadership, { epoch: 2, replica: 'm2', address: '' });
    const deposed = new StatusWriter({ store, clock: systemClock, log: silentLog, epoch: () => 1 });
    deposed.report(node, [word('t1', 'failed')]);
    writer.report(node, [word('t2', 'running')]);
    await eventually(() => stateOf('t2') === 'running');
    expect(stateOf('t1')).toBe('assigned');
    deposed.close();
  });
});
