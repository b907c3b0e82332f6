/** What a node tells of its host's networks, out of what the kernel lists. */
import { expect, it } from 'vitest';
import { factsOf, type HostSeen } from '#net/host/host-facts.ts';
import { routeProtocol } from '#net/plan/routes.ts';

const seen: HostSeen = {
  links: new Map([
    [2, 'eth0'],
    [3, 'gantry0'],
    [4, 'wlan0'],
  ]),
  addresses: [
    { index: 3, address: '10.192.1.1', prefix: 24, flags: 0x80 },
    { index: 2, address: '10.90.0.1', prefix: 24, flags: 0x80 },
  ],
  addresses6: [
    { index: 4, address: 'fd00:1::1', prefix: 64, flags: 0x80 },
    { index: 2, address: '2001:db8::9', prefix: 64, flags: 0x01 },
    { index: 2, address: 'fd00:90::9', prefix: 64, flags: 0 },
    { index: 2, address: 'fd00:90::1', prefix: 64, flags: 0x80 },
  ],
  routes: [
    { destination: '0.0.0.0/0', index: 2, protocol: 3 },
    { destination: '128.0.0.0/1', index: 4, protocol: 3 },
    { destination: '10.90.0.0/24', index: 2, protocol: 2 },
    { destination: '10.192.1.0/24', index: 3, protocol: 2 },
    { destination: '10.192.2.0/24', index: 2, protocol: routeProtocol },
    { destination: '192.168.7.0/24', index: 4, protocol: 3 },
    { destination: '192.168.0.0/16', index: 4, protocol: 3 },
    { destination: '169.254.0.0/16', index: 4, protocol: 2 },
  ],
};

it('the link is its address with that prefix, and the IPv6 address a steady one beside it', () => {
  expect(factsOf(seen, '10.90.0.1')).toMatchObject({ link: '10.90.0.1/24', address6: 'fd00:90::1' });
});

it('an address that no link has leaves both empty', () => {
  expect(factsOf(seen, '10.90.0.2')).toMatchObject({ link: '', address6: '' });
});

it('foreign networks are those of links and routes that are neither ours, nor the default, nor within another', () => {
  expect(factsOf(seen, '10.90.0.1').foreignNetworks).toEqual(['192.168.0.0/16', '10.90.0.0/24']);
});

it('of too many networks the widest are told', () => {
  const routes = Array.from({ length: 300 }, (_, n) => ({
    destination: `10.${n >> 8}.${n & 255}.0/24`,
    index: 2,
    protocol: 3,
  }));
  const { foreignNetworks } = factsOf(
    { ...seen, routes: [...routes, { destination: '172.20.0.0/14', index: 2, protocol: 3 }] },
    '',
  );
  expect(foreignNetworks.length).toBe(100);
  expect(foreignNetworks[0]).toBe('172.20.0.0/14');
});
