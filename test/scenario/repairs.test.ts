/** What a node puts right by itself is told in the event log of the cluster: agent and dispatch as in production. */
import { afterEach, describe, expect, it } from 'vitest';
import { AgentLab } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

describe('a network that was put right', () => {
  it('is told of as an event of the node, also what happened while nobody listened', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    await host.start();
    await eventually(() => host.network.wanted !== undefined);
    host.network.repair('route 10.192.2.0/24 via 10.90.0.2 was missing');
    await eventually(() => lab.notices.length === 1);
    expect(lab.notices).toEqual([
      {
        atMs: expect.any(Number),
        kind: 'node',
        action: 'repaired',
        id: host.id,
        name: 'h1',
        node: 'h1',
        message: 'route 10.192.2.0/24 via 10.90.0.2 was missing',
      },
    ]);
  });

  it('is told of later where nobody listens at the moment', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    lab.net.cut(host.id);
    await host.start();
    host.network.repair('the bridge was missing');
    lab.net.mend(host.id);
    await eventually(() => lab.notices.some(({ message }) => message === 'the bridge was missing'));
  });
});
