/** Whose network a task has, and what becomes of it when that one's task ends. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Change } from '#control-plane/store/records.ts';
import { containerSpec, type TaskTemplate } from '#proto/model/service.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { aRevision, aService, aTemplate } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { fakeImage } from '#test/support/fake-images.ts';

let lab: AgentLab;
afterEach(() => lab.close());

/** A host, and beside `web` a service `side` of that template. */
async function hostWith(template: Partial<TaskTemplate>): Promise<LabHost> {
  lab = await AgentLab.start(['h1']);
  const side = aService('side', { template: aTemplate(template) });
  const changes: Change[] = [
    { table: 'service', key: side.id, value: side, expect: 0 },
    { table: 'revision', key: `${side.id}/1`, value: aRevision(side), expect: 0 },
  ];
  await lab.commit(...changes);
  const host = lab.hosts[0]!;
  await host.start();
  return host;
}

const sideFields = () => ({ serviceId: aService('side').id, serviceName: 'side' });
const reaches = (id: Parameters<AgentLab['task']>[0], state: string) =>
  eventually(() => {
    expect(lab.task(id).state).toBe(state);
    return true;
  });

describe('network_mode', () => {
  it('host: the task runs in the host’s network, and has no place on the cluster’s', async () => {
    const host = await hostWith({ networkMode: 'host' });
    const id = await lab.assign(host, 's1', { ...sideFields(), address: host.node.address });
    const other = await lab.assign(host, 's2', { ...sideFields(), slot: 2, address: host.node.address });
    await reaches(id, 'running');
    await reaches(other, 'running');
    expect(host.runtime.containers.get(id)!.request!.network).toBe('host');
    expect([host.network.attachments.size, host.network.wanted!.attachments]).toEqual([0, []]);
  });

  it('none: the task has no address, and needs none', async () => {
    const host = await hostWith({ networkMode: 'none' });
    const id = await lab.assign(host, 's1', { ...sideFields(), address: '' });
    await reaches(id, 'running');
    expect(host.runtime.containers.get(id)!.request!.network).toBe('none');
    expect(host.network.attachments.size).toBe(0);
  });

  it('service: the task waits until the other runs, has its namespace and name, and fails when it ends', async () => {
    const host = await hostWith({ networkMode: 'service:web', container: containerSpec('web:1', { drainMs: 0 }) });
    const owner = await lab.assign(host, 'w1', { wanted: 'ready' });
    const { address } = lab.task(owner);
    await reaches(owner, 'ready');
    const id = await lab.assign(host, 's1', { ...sideFields(), address });
    await eventually(() => lab.task(id).message === 'waits for task web.1, whose network it is to have');
    await lab.edit(owner, { wanted: 'running' });
    await reaches(id, 'running');
    const { request } = host.runtime.containers.get(id)!;
    expect(request!.network).toEqual({ path: `/run/gantry/netns/${owner}` });
    expect(request!.hostname).toBe(owner.slice(0, 12));
    expect(host.network.wanted!.attachments.map(({ taskId }) => taskId)).toEqual([owner]);
    host.runtime.exit(owner, 1);
    await reaches(id, 'failed');
    expect(lab.task(id).error).toBe('task web.1, whose network it has, has ended');
  });

  it('service: an agent that was away ends who has lost its network meanwhile', async () => {
    const host = await hostWith({ networkMode: 'service:web' });
    const owner = await lab.assign(host, 'w1');
    const id = await lab.assign(host, 's1', { ...sideFields(), address: lab.task(owner).address });
    await reaches(id, 'running');
    await host.stop();
    host.runtime.exit(owner, 1);
    await host.start();
    await reaches(id, 'failed');
  });

  it('service: says why it cannot run where the other’s task is not there', async () => {
    const host = await hostWith({ networkMode: 'service:web' });
    const id = await lab.assign(host, 's1', { ...sideFields(), address: '10.192.1.77' });
    const reason = 'no network: task web.1, whose network it is to have, is not on this node';
    await eventually(() => lab.task(id).error.startsWith(reason));
  });
});

describe('links', () => {
  it('give the variables of the linked service, which those of the service itself go before', async () => {
    const links = [{ service: 'web', alias: 'back' }];
    const host = await hostWith({
      container: containerSpec('side:1', { links, env: ['BACK_ENV_TOKEN=mine'] }),
    });
    lab.registry.images.set('docker.io/library/web:1', fakeImage('web', { exposedPorts: ['80/tcp'] }));
    const id = await lab.assign(host, 's1', sideFields());
    await reaches(id, 'running');
    const { env } = host.runtime.containers.get(id)!.request!.container;
    expect(env).toContain('BACK_PORT_80_TCP_ADDR=10.224.0.2');
    expect(env.at(-1)).toBe('BACK_ENV_TOKEN=mine');
    expect(host.network.attachments.get(id)!.links).toMatchObject(links);
  });
});
