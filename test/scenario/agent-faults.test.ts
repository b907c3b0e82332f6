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
  it('takes over what runs, as it runs', async () => {
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
