/** IPv6 addresses of the cluster: each is an IPv4 one in the last 32 bits of the cluster's /96, so that none has to be given out. */
import { Fault } from '#proto/kernel/errors.ts';
import { formatAddress6, tryAddress6 } from './address6.ts';
import { formatAddress, parseAddress } from './cidr.ts';

/** The IPv6 address that goes with an IPv4 one; Fault('invalid') where `network6` is no /96 range or `address` no address. */
export function embed6(network6: string, address: string): string {
  const prefix = prefixBytes(network6);
  if (!prefix) throw new Fault('invalid', `"${network6}" is not an IPv6 range of /96`);
  const value = parseAddress(address);
  return formatAddress6([...prefix, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]);
}

/** The IPv4 address within an IPv6 one of the cluster; undefined for any other. */
export function embeddedAddress(network6: string, address6: string): string | undefined {
  const prefix = prefixBytes(network6);
  const bytes = tryAddress6(address6);
  if (!prefix || !bytes || !prefix.every((byte, index) => byte === bytes[index])) return undefined;
  const [a = 0, b = 0, c = 0, d = 0] = bytes.slice(12);
  return formatAddress(((a << 24) | (b << 16) | (c << 8) | d) >>> 0);
}

function prefixBytes(network6: string): readonly number[] | undefined {
  const [address, length, ...rest] = network6.split('/');
  const bytes = length === '96' && rest.length === 0 ? tryAddress6(address ?? '') : undefined;
  return bytes?.slice(0, 12);
}
