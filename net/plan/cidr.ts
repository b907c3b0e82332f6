/** IPv4 addresses and ranges as numbers, so that containment and allocation are arithmetic. */
import { Fault } from '#proto/kernel/errors.ts';

/** A range: its first address as an unsigned 32-bit number, host bits zero, and its prefix length (0-32). */
export interface Cidr {
  readonly base: number;
  readonly prefix: number;
}

/** The number of a dotted quad; Fault('invalid') for anything else. */
export function parseAddress(text: string): number {
  const value = tryAddress(text);
  if (value === undefined) throw new Fault('invalid', `"${text}" is not an IPv4 address`);
  return value;
}

/** As parseAddress, undefined instead of a fault. */
export function tryAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return undefined;
    const byte = Number(part);
    if (byte > 255) return undefined;
    value = value * 256 + byte;
  }
  return value;
}

/** The dotted quad of an unsigned 32-bit number. */
export function formatAddress(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** The range written `a.b.c.d/n`; host bits are dropped; Fault('invalid') for anything else. */
export function parseCidr(text: string): Cidr {
  const [address, length, ...rest] = text.split('/');
  const base = tryAddress(address ?? '');
  const prefix = /^(0|[1-9][0-9]?)$/.test(length ?? '') ? Number(length) : 33;
  if (base === undefined || prefix > 32 || rest.length > 0) {
    throw new Fault('invalid', `"${text}" is not an IPv4 range`, { remedy: 'write it as a.b.c.d/n' });
  }
  return { base: maskOff(base, prefix), prefix };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.base)}/${cidr.prefix}`;
}

/** How many addresses the range has, its first and last included. */
export function sizeOf(cidr: Cidr): number {
  return 2 ** (32 - cidr.prefix);
}

/** True when the address lies in the range. */
export function contains(cidr: Cidr, address: number): boolean {
  return maskOff(address, cidr.prefix) === cidr.base;
}

/** As contains, of texts; false where the address is none. */
export function containsAddress(cidr: string, address: string): boolean {
  const value = tryAddress(address);
  return value !== undefined && contains(parseCidr(cidr), value);
}

/** True when the ranges share an address. */
export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.prefix <= b.prefix ? contains(a, b.base) : contains(b, a.base);
}

/** The address `n` places after the first one (n = 0: the first); Fault('invalid') outside the range. */
export function nthAddress(cidr: string, n: number): string {
  const range = parseCidr(cidr);
  if (n < 0 || n >= sizeOf(range)) throw new Fault('invalid', `${cidr} has no address number ${n}`);
  return formatAddress(range.base + n);
}

/** The address of the gateway and name server of a node's subnet: its first usable one. */
export function gatewayOf(subnet: string): string {
  return nthAddress(subnet, 1);
}

/** The prefix length of a range. */
export function prefixOf(cidr: string): number {
  return parseCidr(cidr).prefix;
}

function maskOff(address: number, prefix: number): number {
  const size = 2 ** (32 - prefix);
  return address - (address % size);
}
