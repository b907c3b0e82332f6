/** Replies can leave by a node only where it is told for sure which node a packet came by. */
import { describe, expect, it } from 'vitest';
import { numberOf, returnPaths } from '#net/plan/return-path.ts';
import { nodeId } from '#proto/model/ids.ts';
import { peer as peerOf } from '#test/support/endpoint.ts';

const network = '10.192.0.0/11';
const peer = (number: number) =>
  peerOf(`h${number}`, `10.90.0.${number}`, `10.192.${number}.0/24`, { nodeId: nodeId(`n${number}`) });
const paths = (macs: Record<string, string>) =>
  returnPaths({ nodeId: 'n1', network, peers: [1, 2, 3].map(peer), bridge: 'gantry0' }, new Map(Object.entries(macs)));

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

  it('number nodes by the place of their subnet, as long as there are numbers', () => {
    expect(numberOf('10.192.0.0/24', network)).toBe(0x4000);
    expect(numberOf('10.223.255.0/24', network)).toBe(0x5fff);
    expect(numberOf('10.224.0.0/24', network)).toBeUndefined();
    expect(numberOf('10.223.255.240/28', network)).toBe(0x5fff);
    expect(numberOf('10.200.0.0/16', network)).toBe(0x4800);
    expect(numberOf('10.64.0.0/24', '10.0.0.0/8')).toBeUndefined();
  });
});
