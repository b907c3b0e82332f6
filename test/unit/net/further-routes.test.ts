/** Further addresses of tasks elsewhere: by the way to their node, or not at all. */
import { expect, it } from 'vitest';
import { planNode } from '#net/plan/node-plan.ts';
import type { Backend, Endpoint } from '#proto/model/assignment.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';
import { aNetwork, idOf } from '#test/support/builders.ts';
import { networkWanted, peer } from '#test/support/endpoint.ts';

const around = {
  ports: new Set<string>(),
  macs: new Map(),
  linkMtu: 1500,
  mtus: new Map(),
  wireguardKey: '',
  bridged: false,
};
const backend = (node: string, last: number, network = 'back'): Backend => ({
  taskId: taskId(idOf(`t${last}`)),
  slot: 1,
  address: `10.192.2.${last}`,
  addresses: [{ network, address: `172.28.0.${last}` }],
  nodeId: nodeId(idOf(node)),
  nodeName: node,
  serving: true,
});
const endpoint = (name: string, backends: readonly Backend[]): Endpoint => ({
  serviceId: serviceId(idOf(name)),
  project: 'demo',
  name,
  aliases: [],
  mode: 'vip',
  vip: '10.224.0.2',
  networks: [{ network: 'back', aliases: [] }],
  allowFrom: undefined,
  sticky: '',
  counted: false,
  holdMs: 0,
  measured: false,
  ipv6: false,
  ports: [],
  backends,
});

function wanted(endpoints: readonly Endpoint[], encryption: '' | 'wireguard' = '') {
  const self = { nodeId: idOf('h1'), address: '10.90.0.1', subnet: '10.192.1.0/24', link: '10.90.0.1/24' };
  const other = { ...peer(idOf('h2'), '10.90.0.2', '10.192.2.0/24'), link: '10.90.0.2/24' };
  const networks = [aNetwork('back', ['172.28.0.0/24']), aNetwork('lan', ['172.29.0.0/24'], { driver: 'macvlan' })];
  return { ...networkWanted(self, { peers: [other], endpoints }), networks, encryption };
}
const routesOf = ({ plan }: ReturnType<typeof planNode>) =>
  [...plan.routes.values()].filter(({ destination }) => /^172.*\/32$/.test(destination));

it('are reached by the way to their node; those here, of unknown nodes and of the hosts’ own networks are not', () => {
  const web = endpoint('web', [backend('h2', 5), backend('h1', 6), backend('h9', 7), backend('h2', 8, 'lan')]);
  expect(routesOf(planNode(wanted([web]), around))).toEqual([
    { type: 'via', destination: '172.28.0.5/32', gateway: '10.90.0.2' },
  ]);
});

it('follow their tasks', () => {
  const [web, db] = [endpoint('web', [backend('h2', 5)]), endpoint('db', [])];
  const input = wanted([web, db]);
  const first = planNode(input, around);
  const same = planNode({ ...input, endpoints: [web, { ...db, sticky: 'client' }] }, around, first);
  expect(same.routing.further).toBe(first.routing.further);
  const moved = planNode(wanted([endpoint('web', []), endpoint('db', [backend('h2', 9)])]), around, same);
  expect(routesOf(moved).map(({ destination }) => destination)).toEqual(['172.28.0.9/32']);
  expect(routesOf(planNode(wanted([db]), around, moved))).toEqual([]);
});

it('are unreachable where there is no way but in clear', () => {
  const { plan } = planNode(wanted([endpoint('web', [backend('h2', 5)])], 'wireguard'), around);
  expect([...plan.routes.values()].filter(({ destination }) => destination.startsWith('172.'))).toEqual([
    { type: 'unreachable', destination: '172.28.0.0/24' },
  ]);
});
