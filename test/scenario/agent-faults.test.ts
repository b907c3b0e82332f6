/** What an agent does when something under it, or above it, has gone: its journal, its network, its membership. */
import { afterEach, describe, expect, it } from 'vitest';
import { Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

async function oneHost(): Promise<LabHost> {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  await host.start();
  return host;
}

const reaches = (id: TaskId, state: string) =>
  eventually(() => {
    expect(lab.task(id).state).toBe(state);
    return true;
  });

describe('an agent whose journal is lost', () => {
  it('F16: takes over what runs, as it runs', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const before = lab.task(id);
    await host.stop();
    host.disk.text = '';
    await host.start();
    await eventually(() => host.agent!.worker.running().includes(id));
    expect(host.runtime.containers.get(id)!.state).toMatchObject({ pid: before.pid, status: 'running' });
    expect(host.agent!.worker.statuses()[0]).toMatchObject({ pid: before.pid, startedAtMs: before.startedAtMs });
    host.runtime.exit(id, 3);
    await reaches(id, 'failed');
    expect(lab.task(id).exitCode).toBe(3);
  });

  it('tells the exit of what ended meanwhile, before and after it has heard of the task', async () => {
    const host = await oneHost();
    const [away, early] = [await lab.assign(host, 't1'), await lab.assign(host, 't2')];
    await reaches(away, 'running');
    await reaches(early, 'running');
    await host.stop();
    host.runtime.exit(away, 4);
    host.disk.text = '';
    lab.net.serve('m1:7400', undefined);
    await host.start();
    host.runtime.exit(early, 5);
    lab.net.serve('m1:7400', lab.dispatches[0]);
    await reaches(away, 'failed');
    await reaches(early, 'failed');
    expect([lab.task(away).exitCode, lab.task(early).exitCode]).toEqual([4, 5]);
  });

  it('does not run a task again of which nothing is left', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.stop();
    host.disk.text = '';
    host.runtime.containers.clear();
    await host.start();
    await reaches(id, 'failed');
    expect(host.runtime.containers.size).toBe(0);
  });
});

describe('a task on a node whose network cannot be set up', () => {
  it('ends at once when it is told to stop', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    host.network.fail(new Fault('unavailable', 'nftables is out of order'));
    await host.start();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'preparing');
    await lab.edit(id, { wanted: 'shutdown' });
    await reaches(id, 'shutdown');
  });
});

describe('a node that is removed while it is connected', () => {
  it('ends its tasks, hears nothing more, and is not listened to', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const dispatch = lab.dispatches[0]!;
    await eventually(() => dispatch.liveness.lastBeatAt(host.id));
    const held = lab.store.snapshot.get('node', host.id)!;
    await lab.commit({ table: 'node', key: host.id, value: undefined, expect: held.modRevision });
    await eventually(() => host.runtime.containers.size === 0);
    await eventually(() => !dispatch.connected().includes(host.id) && !host.agent!.session.connected);
    expect(dispatch.liveness.lastBeatAt(host.id)).toBeUndefined();
  });
});

describe('a machine that lost power', () => {
  it('begins nothing by itself of which its journal has lost the end', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.reboot();
    const kept = host.disk.text.split('\n').filter((line) => !line.startsWith('["status/'));
    host.disk.text = kept.join('\n');
    lab.net.serve('m1:7400', undefined);
    await host.start();
    expect(host.agent!.worker.statuses()).toEqual([]);
    lab.net.serve('m1:7400', lab.dispatches[0]);
    await reaches(id, 'failed');
  });
});

describe('what is left of a task', () => {
  it('is removed as soon as that is possible, if not with the first full set', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    const stray = 'stray' as TaskId;
    host.runtime.stray(stray);
    const remove = host.runtime.delete.bind(host.runtime);
    let refusals = 1;
    host.runtime.delete = async (id) => {
      if (refusals-- > 0) throw new Fault('unavailable', 'the runtime is busy');
      await remove(id);
    };
    await host.start();
    await eventually(() => host.runtime.containers.size === 0);
    expect(refusals).toBeLessThan(0);
  });

  it('keeps its address from another task for as long as it runs', async () => {
    const host = await oneHost();
    const first = await lab.assign(host, 't1', { address: '10.192.1.77' });
    await reaches(first, 'running');
    host.runtime.stubborn.add(first);
    await lab.edit(first, { wanted: 'shutdown' });
    const second = await lab.assign(host, 't2', { address: '10.192.1.77' });
    await eventually(() => lab.task(second).error.includes(`still that of task ${first}`));
    host.runtime.exit(first, 137);
    await reaches(second, 'running');
  });
});
