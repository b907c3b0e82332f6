/** What the agent may rely on of any network, held against the fake and the kernel. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Network } from '#net/network.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { type ServiceId, taskId } from '#proto/model/ids.ts';
import { attachment as attachmentOf } from '#test/support/endpoint.ts';
import { FakeNetwork } from '#test/support/fake-network.ts';
import { NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
beforeAll(async () => {
  lab = await NetLab.start(1);
});
afterAll(() => lab?.stop());

/** The network of a lab's host, as the interface has it. */
function realNetwork(): Network {
  const host = lab.host(1);
  return {
    apply: (wanted) => host.call('apply', wanted),
    attach: (attachment) => host.call('attach', attachment),
    detach: (id) => host.call('detach', id),
    attached: () => host.call('attached'),
    connections: async (addresses) => new Map(await host.call<[string, number][]>('connections', addresses)),
    traffic: async () => new Map(await host.call<[ServiceId, number][]>('traffic')),
    // Facts are streamed: test/contract/net/doctor.test.ts looks at them.
    examine: async () => {},
    onCall: () => () => {},
    onRepair: () => () => {},
    close: () => host.call('close'),
  };
}

const attachment = (address: string) => attachmentOf(taskId(newId(systemRandom)), address);

describe.each([
  ['in memory', () => new FakeNetwork()],
  ['in the kernel', realNetwork],
] as [string, () => Network][])('a network %s', (_where, make) => {
  let network: Network;
  beforeAll(() => {
    network = make();
  });

  it('attaches nobody before it knows its subnet', async () => {
    await expect(network.attach(attachment('10.192.1.2'))).rejects.toMatchObject({ code: 'precondition' });
  });

  it('gives a task its namespace, with the gateway as name server, and the same again when asked again', async () => {
    await network.apply(lab.host(1).wanted([]));
    const task = attachment('10.192.1.2');
    const place = await network.attach(task);
    expect(place).toMatchObject({ gateway: '10.192.1.1', dns: '10.192.1.1' });
    expect(place.netnsPath).toContain(task.taskId);
    expect(await network.attach(task)).toEqual(place);
    expect(await network.attached()).toEqual([task.taskId]);
    expect(await network.connections([task.address])).toEqual(new Map([[task.address, 0]]));
    await network.detach(task.taskId);
    expect(await network.attached()).toEqual([]);
  });

  it('refuses an address of another node', async () => {
    await expect(network.attach(attachment('10.192.9.2'))).rejects.toMatchObject({ code: 'invalid' });
    expect(await network.attached()).toEqual([]);
  });

  it('detaches a task that it does not have without a word', async () => {
    await expect(network.detach(taskId(newId(systemRandom)))).resolves.not.toThrow();
  });

  it('applies nothing once closed', async () => {
    await network.close();
    await expect(network.apply(lab.host(1).wanted([]))).rejects.toMatchObject({ code: 'cancelled' });
  });
});
