/** Replies can leave by a node only where it is told for sure which node a packet came by. */
import { describe, expect, it } from 'vitest';
import { numberOf, returnPaths } from '#net/plan/return-path.ts';
import { waysOf } from '#net/plan/ways.ts';
import { nodeId } from '#proto/model/ids.ts';
import { peer as peerOf } from '#test/support/endpoint.ts';

const network = '10.192.0.0/11';
const peer = (number: number) =>
  peerOf(`h${number}`, `10.90.0.${number}`, `10.192.${number}.0/24`, { nodeId: nodeId(`n${number}`) });
const wires = { linkMtu: 1500, mtus: new Map(), wireguardKey: '' };
const own = { nodeId: 'n1', address: '10.90.0.1', subnet: '10.192.1.0/24', link: '10.90.0.1/24', segment: '' };
const ways = (encapsulation: 'auto' | 'always') =>
  waysOf({ ...own, encapsulation, encryption: '', peers: [1, 2, 3].map(peer) }, wires);
const paths = (macs: Record<string, string>, encapsulation: 'auto' | 'always' = 'auto') =>
  returnPaths({ network, bridge: 'gantry0' }, ways(encapsulation), new Map(Object.entries(macs)));

describe('return paths', () => {
  it('are by a table and a mark for each peer, all behind one rule for whatever is no reply', () => {
    const { routes, rules } = paths({});
    expect(routes.map((route) => route.type === 'via' && [route.gateway, route.table])).toEqual([
      ['10.90.0.2', 0x4002],
      ['10.90.0.3', 0x4003],
    ]);
    expect(rules.map((rule) => rule.type)).toEqual(['lookup', 'lookup', 'skip', 'end']);
  });

  it('let the client keep its address towards a peer whose MAC is known', () => {
    const { elements } = paths({ '10.90.0.2': '02:00:00:00:00:02' });
    expect(elements.get('ingress 02:00:00:00:00:02')).toBe(String(0x4002));
    expect(elements.has('direct 10.192.2.0/24')).toBe(true);
    expect(elements.has('direct 10.192.3.0/24')).toBe(false);
  });

  it('leave masqueraded what goes to peers that share a MAC, as behind a router', () => {
    const { elements } = paths({ '10.90.0.2': '02:00:00:00:00:09', '10.90.0.3': '02:00:00:00:00:09' });
    expect([...elements.keys()].filter((key) => /^(ingress|direct)/.test(key))).toEqual([]);
  });

  it('by tunnels, are told by the MACs of their ends, whoever is known on the link', () => {
    const { elements, routes } = paths({ '10.90.0.2': '02:00:00:00:00:02' }, 'always');
    expect(elements.get('ingress 02:47:0a:c0:02:00')).toBe(String(0x4002));
    expect(elements.has('ingress 02:00:00:00:00:02')).toBe(false);
    expect(elements.has('direct 10.192.3.0/24')).toBe(true);
    expect(routes[0]).toMatchObject({ gateway: '10.192.2.0', link: 'gantry-vx', mtu: 1450, table: 0x4002 });
  });

  it('number nodes by the place of their subnet, as long as there are numbers', () => {
    expect(numberOf('10.192.0.0/24', network)).toBe(0x4000);
    expect(numberOf('10.223.255.0/24', network)).toBe(0x5fff);
    expect(numberOf('10.224.0.0/24', network)).toBeUndefined();
    expect(numberOf('10.223.255.240/28', network)).toBe(0x5fff);
    expect(numberOf('10.200.0.0/16', network)).toBe(0x4800);
    expect(numberOf('10.64.0.0/24', '10.0.0.0/8')).toBeUndefined();
  });
});
