/** What an agent tells of its machine reaches the record of the node: at the begin of a session, and when it changes. */
import { afterEach, expect, it } from 'vitest';
import { AgentLab } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

it('what changed of a machine is told in the running session, once', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const record = () => lab.store.snapshot.get('node', host.id)!;
  host.facts = { pinnedSubnet: '10.192.7.0/24' };
  const { session } = await host.start();
  await eventually(() => record().value.pinnedSubnet === '10.192.7.0/24');
  host.facts = { ...host.facts, foreignNetworks: ['192.168.7.0/24'], address6: 'fd00:90::1' };
  session.described();
  await eventually(() => record().value.foreignNetworks.length === 1);
  expect(record().value).toMatchObject({ ...host.facts, subnet: host.node.subnet });
  const { modRevision } = record();
  session.described();
  host.facts = { ...host.facts, kernel: 'another' };
  session.described();
  await eventually(() => record().value.kernel === 'another');
  expect(record().modRevision).toBe(modRevision + 1);
});

it('what changed while there was no session is told with the next', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const { session } = await host.start();
  await eventually(() => session.connected);
  lab.net.cut(host.id);
  await eventually(() => !session.connected);
  host.facts = { address6: 'fd00:90::7' };
  session.described();
  lab.net.mend(host.id);
  await eventually(() => lab.store.snapshot.node(host.id)?.address6 === 'fd00:90::7');
});
