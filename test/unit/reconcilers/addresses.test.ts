/** Which subnet a node gets. */
import { expect, it } from 'vitest';
import { subnetFor } from '#control-plane/reconcilers/addresses.ts';
import { nodeId } from '#proto/model/ids.ts';
import { aNode, aTask, idOf } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

it('a node that joins gets no subnet in which tasks of a removed node are remembered: they may still run', () => {
  const cluster = new DecidedCluster([aNode('h1', { subnet: '10.192.0.0/24' })]);
  expect(subnetFor(cluster.snapshot)).toBe('10.192.1.0/24');
  cluster.put('task', aTask('left', { nodeId: nodeId(idOf('h2')), state: 'orphaned', address: '10.192.1.7' }));
  expect(subnetFor(cluster.snapshot)).toBe('10.192.2.0/24');
});
