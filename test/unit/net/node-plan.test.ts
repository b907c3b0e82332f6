/** What a node says of itself reaches the kernels of all others: words that are no address must not. */
import { expect, it } from 'vitest';
import { elementsOf, planNode } from '#net/plan/node-plan.ts';
import { replaceTable } from '#net/plan/rules.ts';
import { idOf } from '#test/support/builders.ts';
import { networkWanted, peer } from '#test/support/endpoint.ts';

it('leaves out a peer whose address is none, and takes the others', () => {
  const evil = '10.0.0.3 }\nflush ruleset\nadd element ip gantry hosts { 10.0.0.3';
  const { plan } = planNode(
    networkWanted(
      { nodeId: idOf('h1'), address: '10.0.0.1', subnet: '10.192.1.0/24' },
      { peers: [peer('h2', '10.0.0.2', '10.192.2.0/24'), peer('h3', evil, '10.192.3.0/24')] },
    ),
    { ports: new Set(), macs: new Map(), linkMtu: 1500, mtus: new Map(), wireguardKey: '', bridged: false },
  );
  expect(replaceTable('ip', plan.firewall.declarations, elementsOf(plan.firewall))).not.toContain('flush');
  const ways = [...plan.routes.values()].flatMap((route) => (route.type === 'via' ? [route.gateway] : []));
  expect(new Set(ways)).toEqual(new Set(['10.0.0.2']));
  expect([...elementsOf(plan.firewall).keys()]).toContain('hosts 10.0.0.2');
});
