/** F13 and F9: a replica begins to lead, and every agent of the cluster dials it at once, over real gRPC with mutual TLS. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { Endpoint, Peer } from '#proto/gen/gantry/v1/agent.ts';
import { ReconnectLab } from '#test/support/reconnect-lab.ts';

const [nodes, tasks] = [100, 4_000];
let lab: ReconnectLab;
beforeAll(async () => {
  lab = await ReconnectLab.start(nodes, tasks);
});
afterAll(() => lab.close());

it('what is the same for all of them is encoded once, however many dial, and nobody counts as down meanwhile', async () => {
  const endpoints = vi.spyOn(Endpoint, 'encode');
  const peers = vi.spyOn(Peer, 'encode');
  const { bytes, left, downs, broken } = await lab.failOver({ held: 'nothing' });
  expect([left, downs, broken]).toEqual([0, 0, 0]);
  // Packed, an endpoint is some ten bytes: all of them were sent to all.
  expect(bytes).toBeGreaterThan(nodes * tasks * 5);
  const services = lab.store.snapshot.count('service');
  expect(endpoints.mock.calls.length).toBeLessThan(4 * services);
  expect(peers.mock.calls.length).toBeLessThan(4 * nodes);
});

it('who holds what there was before is sent what has changed since, and little else', async () => {
  const nothing = await lab.failOver({ held: 'nothing' });
  // Their own tasks they are sent each time.
  const own = await lab.failOver({ held: 'all' });
  const { bytes, left, downs, broken } = await lab.failOver({ held: 'all', changed: 3 });
  expect([left, downs, broken]).toEqual([0, 0, 0]);
  expect(bytes - own.bytes).toBeLessThan((nothing.bytes - own.bytes) / 6);
});
