/** Both ends of a way must decide alike, or packets go one way and never come back. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type End, measuredFor, wayBetween, waysMissing, waysOf } from '#net/plan/ways.ts';
import { nodeId } from '#proto/model/ids.ts';
import { networkWanted, peer } from '#test/support/endpoint.ts';

const key = (letter: string) => `${letter.repeat(43)}=`;
const end = fc.record<End>({
  address: fc.constantFrom('10.90.0.1', '10.90.0.2', '10.91.0.3'),
  subnet: fc.constantFrom('10.192.1.0/24', '10.192.2.0/24'),
  link: fc.constantFrom('10.90.0.1/24', '10.90.0.2/24', '10.90.0.2/16', '10.91.0.3/24', '', 'nonsense'),
  segment: fc.constantFrom('', 'rack1', 'rack2'),
  wireguardKey: fc.constantFrom('', key('A'), key('B'), 'x\n[Peer]'),
});
const settings = fc.record({
  encapsulation: fc.constantFrom('auto' as const, 'always' as const, 'never' as const),
  encryption: fc.constantFrom('' as const, 'wireguard' as const),
});
const plain = { encapsulation: 'auto', encryption: '' } as const;
const one: End = {
  address: '10.90.0.1',
  subnet: '10.192.1.0/24',
  link: '10.90.0.1/24',
  segment: '',
  wireguardKey: key('A'),
};
const other = { ...one, address: '10.90.0.2', subnet: '10.192.2.0/24', link: '10.90.0.2/24' };
const far = { ...other, address: '10.91.0.2', link: '10.91.0.2/24' };

describe('the way between two nodes', () => {
  it('is the same seen from either', () => {
    fc.assert(
      fc.property(end, end, settings, (a, b, cluster) => {
        expect(wayBetween(a, b, cluster)).toEqual(wayBetween(b, a, cluster));
      }),
    );
  });

  it('is direct on one link, and a tunnel between two', () => {
    expect(wayBetween(one, other, plain)).toEqual({ kind: 'direct', reason: 'both are on 10.90.0.0/24' });
    expect(wayBetween(one, far, plain)).toEqual({
      kind: 'tunnel',
      reason: 'they are on 10.90.0.0/24 and 10.91.0.0/24',
    });
    expect(wayBetween(one, { ...other, link: '' }, plain).kind).toBe('tunnel');
  });

  it('is a tunnel between segments, whatever the addresses say', () => {
    expect(wayBetween(one, { ...other, segment: 'b' }, plain)).toEqual({
      kind: 'tunnel',
      reason: 'their gantry.link labels differ: b, none',
    });
  });

  it('is what the cluster says, where it does', () => {
    expect(wayBetween(one, other, { ...plain, encapsulation: 'always' }).kind).toBe('tunnel');
    expect(wayBetween(one, far, { ...plain, encapsulation: 'never' }).kind).toBe('direct');
  });

  it('is never in clear in an encrypted cluster', () => {
    fc.assert(
      fc.property(end, end, settings, (a, b, cluster) => {
        const { kind } = wayBetween(a, b, { ...cluster, encryption: 'wireguard' });
        expect(['encrypted', 'none']).toContain(kind);
      }),
    );
    const encrypted = { ...plain, encryption: 'wireguard' } as const;
    expect(wayBetween(one, other, encrypted).kind).toBe('encrypted');
    expect(wayBetween(one, { ...other, wireguardKey: '' }, encrypted)).toEqual({
      kind: 'none',
      reason: 'the cluster is encrypted, and 10.90.0.2 cannot do WireGuard',
    });
  });
});

describe('the ways of a node', () => {
  const wires = { linkMtu: 1500, mtus: new Map<string, number>(), wireguardKey: key('A') };
  const wanted = (over = {}) =>
    networkWanted(
      { nodeId: 'n1', address: '10.90.0.1', subnet: '10.192.1.0/24' },
      {
        peers: [
          peer('h2', '10.90.0.2', '10.192.2.0/24', { nodeId: nodeId('n2'), wireguardKey: key('B') }),
          peer('h3', '10.91.0.3', '10.192.3.0/24', { nodeId: nodeId('n3') }),
        ],
        ...over,
      },
    );

  it('are as wide as what was measured leaves room for', () => {
    const narrow = new Map([
      ['10.90.0.2', 1400],
      ['10.91.0.3', 1400],
    ]);
    const widths = (over: object, mtus: ReadonlyMap<string, number>) =>
      waysOf(wanted(over), { ...wires, mtus }).map(({ mtu }) => mtu);
    expect(widths({}, new Map())).toEqual([undefined, 1450]);
    expect(widths({}, narrow)).toEqual([1400, 1350]);
    expect(widths({ encryption: 'wireguard' }, new Map())).toEqual([1374, undefined]);
    // 1400 - 76 is 1324, of which WireGuard takes whole sixteens: 1312.
    expect(widths({ encryption: 'wireguard' }, narrow)).toEqual([1262, undefined]);
    expect(widths({ encryption: 'wireguard' }, new Map([['10.192.2.0', 1300]]))).toEqual([1250, undefined]);
  });

  it('are measured by the address of the peer, and within WireGuard', () => {
    const measured = (over: object) =>
      measuredFor(waysOf(wanted(over), wires), '10.192.1.0/24', 1500).map(({ address }) => address);
    expect(measured({})).toEqual(['10.90.0.2', '10.91.0.3']);
    expect(measured({ encryption: 'wireguard' })).toEqual(['10.90.0.2', '10.192.2.0']);
  });

  it('say who is not reached, and what to install', () => {
    const encrypted = wanted({ encryption: 'wireguard' });
    const [fault, ...rest] = waysMissing(encrypted, waysOf(encrypted, wires));
    expect(rest).toEqual([]);
    expect(fault?.message).toContain('h3');
    expect(fault?.remedy).toContain('wireguard-go');
  });
});
