/** What a node says of itself is looked at before anybody acts on it. */
import { afterEach, expect, it } from 'vitest';
import { TaskStatus } from '#proto/gen/gantry/v1/agent.ts';
import type { Fault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';
import { toWire } from '#proto/model/wire.ts';
import { AgentLab } from '#test/support/agent-lab.ts';
import { nothingHeld } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

/** How the session of a node that says this of itself ends; undefined while it stands. */
async function greet(fields: Partial<Node>): Promise<{ fault: Fault | undefined }> {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const answer: { fault: Fault | undefined } = { fault: undefined };
  const stream = lab.net.transportOf(host.id).connect('m1:7400').session();
  let heard = false;
  stream.listen({
    message: () => {
      heard = true;
    },
    closed: (fault) => {
      answer.fault = fault;
      heard = true;
    },
  });
  const node = toWire({ ...host.node, ...fields });
  stream.send({ body: { $case: 'hello', value: { node, epoch: 0, tasks: [], held: nothingHeld } } });
  await eventually(() => heard);
  return answer;
}

it.each(['10.0.0.3 }\nflush ruleset', 'h1.example', '10.0.0', '10.0.0.3/8'])(
  'refuses a node at "%s", which is no address',
  async (address) => {
    const { fault } = await greet({ address });
    expect(fault).toMatchObject({ code: 'invalid' });
    expect(lab.store.snapshot.node(lab.hosts[0]!.id)!.address).not.toBe(address);
  },
);

it.each([
  { link: '10.90.0.2/24' },
  { link: '10.90.0.1/33' },
  { address6: 'fd00::g' },
  { pinnedSubnet: '10.192.7.0/8' },
  { foreignNetworks: ['10.0.0.1/8'] },
  { foreignNetworks: Array<string>(201).fill('10.0.0.0/8') },
  { wireguardKey: 'private' },
] as Partial<Node>[])('refuses a node that says %j', async (fields) => {
  const { fault } = await greet(fields);
  expect(fault).toMatchObject({ code: 'invalid' });
});

it('takes what a node tells of its networks, also when it changes', async () => {
  const told = { address6: 'fd00:90::1', pinnedSubnet: '10.192.7.0/24', foreignNetworks: ['10.0.0.0/8'] };
  const { fault } = await greet(told);
  expect(fault).toBeUndefined();
  const node = () => lab.store.snapshot.node(lab.hosts[0]!.id)!;
  await eventually(() => node().address6 === told.address6);
  expect(node()).toMatchObject(told);
});

it('takes what has changed of a machine while its agent is connected', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const stream = lab.net.transportOf(host.id).connect('m1:7400').session();
  let welcomed = false;
  stream.listen({
    message: ({ body }) => {
      welcomed ||= body?.$case === 'welcome';
    },
    closed() {},
  });
  stream.send({ body: { $case: 'hello', value: { node: toWire(host.node), epoch: 0, tasks: [], held: nothingHeld } } });
  await eventually(() => welcomed);
  const node = toWire<Node>({ ...host.node, foreignNetworks: ['192.168.0.0/16'] });
  stream.send({ body: { $case: 'described', value: node } });
  await eventually(() => lab.store.snapshot.node(host.id)!.foreignNetworks[0] === '192.168.0.0/16');
});

it('refuses a node that says more of itself than a record may hold', async () => {
  const { fault } = await greet({ components: { runc: 'x'.repeat(100_000) } });
  expect(fault).toMatchObject({ code: 'invalid' });
});

it('takes a node that says what it should', async () => {
  const { fault } = await greet({ address: '10.0.0.9', link: '10.0.0.9/24' });
  expect(fault).toBeUndefined();
  await eventually(() => lab.store.snapshot.node(lab.hosts[0]!.id)!.address === '10.0.0.9');
});

it('passes over a status that only a newer agent can mean, and takes the others', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const [t1, t2] = [await lab.assign(host, 't1'), await lab.assign(host, 't2')];
  const stream = lab.net.transportOf(host.id).connect('m1:7400').session();
  let fault: Fault | undefined;
  stream.listen({
    message() {},
    closed: (why) => {
      fault = why;
    },
  });
  const status = { taskId: t1, state: 'hibernating', health: '' };
  const tasks = [status, { ...status, taskId: t2, state: 'preparing' }].map((one) => TaskStatus.fromPartial(one));
  stream.send({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks, held: nothingHeld } } });
  await eventually(() => lab.task(t2).state === 'preparing');
  const later = tasks.map((one) => (one.taskId === t2 ? { ...one, state: 'starting' } : one));
  stream.send({ body: { $case: 'status', value: { tasks: later } } });
  await eventually(() => lab.task(t2).state === 'starting');
  expect(lab.task(t1).state).toBe('assigned');
  expect(fault).toBeUndefined();
});
