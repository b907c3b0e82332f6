/** Packets that wait, read and made whole. */
import { describe, expect, it } from 'vitest';
import { flowOf, parsePacket, withChecksum } from '#net/plan/held-packet.ts';

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replace(/\s/g, ''), 'hex'));
/** 10.192.1.2:40000 → 10.224.0.2:80, a SYN with an MSS of 1460, whose checksum is 0x91a9 and is not there. */
const syn = bytes(`4500002c 00000000 40060000 0ac00102 0ae00002
                   9c400050 00000001 00000000 6002faf0 00000000 020405b4`);
const datagram = bytes('4500001f 00000000 40110000 0ac00102 0ae00002 9c400035 000b0000 616263');

/** The sum that every whole segment has, by the rule (RFC 1071): all ones. */
function sumOf(packet: Uint8Array): number {
  const segment = packet.subarray(20);
  const pseudo = [...packet.subarray(12, 20), 0, packet[9]!, segment.length >> 8, segment.length & 0xff];
  const all = [...pseudo, ...segment, 0];
  let sum = 0;
  for (let at = 0; at + 1 < all.length; at += 2) sum += (all[at]! << 8) | all[at + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

describe('a packet', () => {
  it('is known by its addresses, protocol and ports', () => {
    expect(parsePacket(syn)).toMatchObject({
      family: 'ip',
      source: '10.192.1.2',
      destination: '10.224.0.2',
      protocol: 'tcp',
      sourcePort: 40_000,
      destinationPort: 80,
    });
  });

  it('of IPv6 is, too', () => {
    const header = bytes(`60000000 00080000 fd470000000000000000 00000ac00102 fd470000000000000000 00000ae00002`);
    const packet = Uint8Array.from([...header.subarray(0, 6), 17, 64, ...header.subarray(8), ...datagram.subarray(20)]);
    expect(parsePacket(packet)).toMatchObject({
      family: 'ip6',
      source: 'fd47::ac0:102',
      destination: 'fd47::ae0:2',
      protocol: 'udp',
      destinationPort: 53,
    });
  });

  it('without ports has none, and what is no packet is none', () => {
    const echo = Uint8Array.from(syn);
    echo[9] = 1;
    expect(parsePacket(echo)).toMatchObject({ protocol: '1', sourcePort: 0, destinationPort: 0 });
    expect(parsePacket(syn.subarray(0, 19))).toBeUndefined();
    expect(parsePacket(bytes('00'))).toBeUndefined();
  });

  it.each([
    ['TCP', syn],
    ['UDP, of an odd length', datagram],
  ])('gets its checksum: %s', (_what, packet) => {
    expect(sumOf(packet)).not.toBe(0xffff);
    expect(sumOf(withChecksum(packet))).toBe(0xffff);
    // Whatever stood there before.
    const wrong = Uint8Array.from(packet);
    wrong[packet === syn ? 36 : 26] = 0x12;
    expect(withChecksum(wrong)).toEqual(withChecksum(packet));
  });

  it('that begins a connection is one of a flow, a datagram is for itself', () => {
    expect(flowOf(parsePacket(syn)!)).toBe('10.192.1.2 40000 10.224.0.2 80');
    expect(flowOf(parsePacket(datagram)!)).toBeUndefined();
  });
});
