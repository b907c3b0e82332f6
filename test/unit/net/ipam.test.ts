/** Subnets and addresses never collide, and a freed one rests. */
import { describe, expect, it } from 'vitest';
import {
  containsAddress,
  formatAddress,
  gatewayOf,
  nthAddress,
  overlaps,
  parseAddress,
  parseCidr,
} from '#net/plan/cidr.ts';
import { nextAddress, nextSubnet } from '#net/plan/ipam.ts';

describe('addresses and ranges', () => {
  it('reads what it writes, to the last address there is', () => {
    for (const text of ['0.0.0.0', '10.192.3.4', '255.255.255.255'])
      expect(formatAddress(parseAddress(text))).toBe(text);
  });

  it.each(['', '1.2.3', '1.2.3.256', '1.2.3.04', '1.2.3.4.5', 'a.b.c.d', '1.2.3.-1'])('refuses %j', (text) => {
    expect(() => parseAddress(text)).toThrow('is not an IPv4 address');
  });

  it.each(['10.0.0.0', '10.0.0.0/33', '10.0.0.0/', '10.0.0/8', '10.0.0.0/8/8'])('refuses the range %j', (text) => {
    expect(() => parseCidr(text)).toThrow('is not an IPv4 range');
  });

  it('knows what lies in a range, however large', () => {
    expect(containsAddress('10.192.0.0/11', '10.223.255.255')).toBe(true);
    expect(containsAddress('10.192.0.0/11', '10.224.0.0')).toBe(false);
    expect(containsAddress('0.0.0.0/0', '255.255.255.255')).toBe(true);
    expect(overlaps(parseCidr('10.0.0.0/8'), parseCidr('10.3.0.0/16'))).toBe(true);
    expect(overlaps(parseCidr('10.3.0.0/16'), parseCidr('10.4.0.0/16'))).toBe(false);
  });

  it('counts addresses from the first', () => {
    expect(nthAddress('10.192.4.0/24', 255)).toBe('10.192.4.255');
    expect(gatewayOf('10.192.4.0/24')).toBe('10.192.4.1');
    expect(() => nthAddress('10.192.4.0/24', 256)).toThrow('has no address number 256');
  });
});

describe('the next subnet', () => {
  it('is the first that nobody has, holes included', () => {
    expect(nextSubnet([], '10.192.0.0/11', 24)).toBe('10.192.0.0/24');
    expect(nextSubnet(['10.192.0.0/24', '10.192.2.0/24'], '10.192.0.0/11', 24)).toBe('10.192.1.0/24');
  });

  it('steps over larger and smaller neighbours', () => {
    expect(nextSubnet(['10.192.0.0/22', '10.192.4.16/28'], '10.192.0.0/11', 24)).toBe('10.192.5.0/24');
  });

  it('is undefined when the network is full', () => {
    expect(nextSubnet(['10.0.0.0/25', '10.0.0.128/25'], '10.0.0.0/24', 25)).toBeUndefined();
  });

  it('refuses a network that is too small', () => {
    expect(() => nextSubnet([], '10.0.0.0/25', 24)).toThrow('cannot be cut');
  });
});

describe('the next address', () => {
  it('leaves out network, gateway and broadcast', () => {
    const used = new Set<string>();
    for (let address = nextAddress('10.0.0.0/29', used); address; address = nextAddress('10.0.0.0/29', used))
      used.add(address);
    expect([...used]).toEqual(['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
  });

  it('rests an address that was given last, and comes round to it again', () => {
    expect(nextAddress('10.0.0.0/29', new Set(), '10.0.0.3')).toBe('10.0.0.4');
    expect(nextAddress('10.0.0.0/29', new Set(['10.0.0.2']), '10.0.0.6')).toBe('10.0.0.3');
  });
});
