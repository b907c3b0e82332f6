/** How hosts are wired: places, ways and what no sandbox can be. */
import { expect, test } from 'vitest';
import {
  assertTopology,
  flatTopology,
  hardwareAddressOf,
  natPlaces,
  placeOf,
  routerPlaces,
  type Topology,
  worldPlace,
} from '#node-agent/sandbox/topology.ts';

const routed: Topology = { layout: 'routed', mtu: 1_400, nat: ['h3'], ipv6: true };

test('on one link, a host has its address and its network card by its name', () => {
  const addresses = ['m1', 'm3', 'h1', 'h200'].map((host) => placeOf(flatTopology, host).address);
  expect(addresses).toEqual(['10.90.0.250', '10.90.0.248', '10.90.0.1', '10.90.0.200']);
  expect(placeOf(flatTopology, 'h7')).toEqual({
    bridge: 'switch0',
    address: '10.90.0.7',
    address6: '',
    addresses: ['10.90.0.7/24'],
    routes: ['default via 10.90.0.254'],
  });
  expect(hardwareAddressOf('h10')).toBe('02:67:00:00:00:0a');
});

test('with a router, hosts are on two links by turns and the manager is on the first', () => {
  const places = ['m1', 'h1', 'h2', 'h4'].map((host) => placeOf(routed, host));
  expect(places.map(({ bridge, address }) => `${bridge} ${address}`)).toEqual([
    'switch0 10.90.0.250',
    'switch0 10.90.0.1',
    'switch1 10.90.1.2',
    'switch1 10.90.1.4',
  ]);
  expect(placeOf(routed, 'h2').routes).toContain('default via 10.90.1.253');
  expect(placeOf(routed, 'h1').routes).toContain('10.90.1.0/24 via 10.90.0.253');
  expect(placeOf(routed, 'h2').address6).toBe('fd00:90:0:1::2');
  expect(worldPlace(routed).routes).toEqual(['10.90.1.0/24 via 10.90.0.253', 'fd00:90:0:1::/64 via fd00:90::253']);
});

test('only the router knows how narrow the way is', () => {
  const { cards, routes } = routerPlaces(routed);
  expect(cards.map(({ bridge }) => bridge)).toEqual(['switch0', 'switch1']);
  expect(routes.filter((route) => route.endsWith('mtu lock 1400')).length).toBe(4);
  expect(routerPlaces({ ...routed, mtu: 0 }).routes.join()).not.toContain('mtu');
  expect(['h1', 'h2'].flatMap((host) => placeOf(routed, host).routes).join()).not.toContain('mtu');
});

test('a host behind NAT has an address that nobody else has a way to', () => {
  expect(placeOf(routed, 'h3')).toEqual({
    bridge: 'behind0',
    address: '192.168.90.3',
    address6: '',
    addresses: ['192.168.90.3/24'],
    routes: ['default via 192.168.90.254'],
  });
  expect(natPlaces(routed).inner).toBe('192.168.90.254/24');
  const ways = [worldPlace(routed).routes, routerPlaces(routed).routes, placeOf(routed, 'h1').routes].flat();
  expect(ways.join()).not.toContain('192.168');
});

test.for(['h0', 'h201', 'm6', 'x', 'h1;reboot', ''])('"%s" is no host', (name) => {
  expect(() => placeOf(flatTopology, name)).toThrow('is not a host of a sandbox');
  expect(() => assertTopology({ ...flatTopology, nat: [name] })).toThrow('is not a host of a sandbox');
});

test.for([
  [{ mtu: 1_400 }, 'a flat sandbox has no router'],
  [{ layout: 'routed', mtu: 1_000 }, 'packets of 1000 bytes cannot be the widest'],
  [{ layout: 'routed', mtu: Number.NaN }, 'cannot be the widest'],
  [{ nat: ['m1'] }, 'm1 cannot be behind NAT'],
] as const)('%j is refused', ([wishes, why]) => {
  expect(() => assertTopology({ ...flatTopology, ...wishes })).toThrow(why);
});
