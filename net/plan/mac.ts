/** MACs that follow from addresses. */
import { parseAddress } from './cidr.ts';

/**
 * The MAC of whoever has the address: a neighbour's entry for a reused address is then never stale (F26), and the
 * bridge's does not change as ports come and go.
 */
export function macOf(address: string): string {
  const value = parseAddress(address);
  const bytes = [0x02, 0x47, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
