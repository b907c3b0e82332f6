/** The DNS of a node answers over UDP and TCP as resolvers ask. */
import dgram from 'node:dgram';
import net from 'node:net';
import packet from 'dns-packet';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dnsView } from '#net/dns/answer.ts';
import { DnsServer } from '#net/dns/server.ts';
import { nameserversOf, readMessages, type Upstream } from '#net/dns/upstream.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { backend, endpoint } from '#test/support/endpoint.ts';

const many = Array.from({ length: 100 }, (_, index) => backend(`127.1.0.${index + 2}`, { slot: index + 1 }));
const view = dnsView({
  domain: 'gantry.internal',
  network: '127.0.0.0/8',
  vipNetwork: '10.224.0.0/14',
  endpoints: [
    endpoint('web', { backends: [backend('127.0.0.1')] }),
    endpoint('many', { vip: '10.224.0.3', backends: many }),
  ],
});
let server: DnsServer;
let port: number;
let upstream: Upstream['ask'];

beforeEach(async () => {
  upstream = () => Promise.reject(new Fault('unavailable', 'no resolver'));
  server = new DnsServer({ log: silentLog, upstream: { ask: (query, transport) => upstream(query, transport) } });
  port = await server.listen('127.0.0.1', 0);
  server.update(() => view);
});
afterEach(() => server.close());

const encode = (name: string, type: 'A' | 'AAAA' = 'A') =>
  packet.encode({ type: 'query', id: 4711, flags: packet.RECURSION_DESIRED, questions: [{ name, type }] });

function askUdp(query: Buffer): Promise<packet.DecodedPacket> {
  const socket = dgram.createSocket('udp4');
  return new Promise((resolve) => {
    socket.on('message', (reply) => {
      socket.close();
      resolve(packet.decode(reply));
    });
    socket.send(query, port, '127.0.0.1');
  });
}

function askTcp(query: Buffer): Promise<packet.DecodedPacket> {
  const socket = net.connect(port, '127.0.0.1');
  const length = Buffer.alloc(2);
  length.writeUInt16BE(query.length);
  socket.write(length);
  socket.write(query);
  return new Promise((resolve) => {
    readMessages(socket, (reply) => {
      socket.destroy();
      resolve(packet.decode(reply));
    });
  });
}

const rcode = (reply: packet.DecodedPacket) => (reply as unknown as { rcode: string }).rcode;

describe('the name server', () => {
  it.each([
    ['UDP', askUdp],
    ['TCP', askTcp],
  ] as const)('answers by %s with authority', async (_how, ask) => {
    const reply = await ask(encode('web.shop.gantry.internal'));
    expect(reply).toMatchObject({ id: 4711, flag_aa: true, answers: [{ type: 'A', data: '10.224.0.2' }] });
  });

  it('says NXDOMAIN to unknown names of ours, and NOERROR without answers to AAAA', async () => {
    expect(rcode(await askUdp(encode('gone.gantry.internal')))).toBe('NXDOMAIN');
    const reply = await askUdp(encode('web.shop', 'AAAA'));
    expect([rcode(reply), reply.answers]).toEqual(['NOERROR', []]);
  });

  it('truncates what does not fit a packet, and gives it all by TCP', async () => {
    const reply = await askUdp(encode('tasks.many.shop'));
    expect(reply).toMatchObject({ flag_tc: true, answers: [] });
    expect((await askTcp(encode('tasks.many.shop'))).answers).toHaveLength(100);
  });

  it('passes other names on, and says SERVFAIL when nobody answers', async () => {
    expect(rcode(await askUdp(encode('example.com')))).toBe('SERVFAIL');
    upstream = async (query) => {
      const asked = packet.decode(query);
      const answers: packet.Answer[] = [{ type: 'A', name: 'example.com', ttl: 60, data: '203.0.113.7' }];
      return packet.encode({ type: 'response', id: asked.id ?? 0, questions: asked.questions ?? [], answers });
    };
    expect(await askUdp(encode('example.com'))).toMatchObject({ id: 4711, answers: [{ data: '203.0.113.7' }] });
  });

  it('answers the next question after bytes that are no query', async () => {
    const socket = dgram.createSocket('udp4');
    await new Promise((resolve) => socket.send(Buffer.from('nonsense'), port, '127.0.0.1', resolve));
    socket.close();
    expect(rcode(await askUdp(encode('web.shop')))).toBe('NOERROR');
  });

  it('reads resolv.conf as resolv.conf(5) says', () => {
    const text = '# x\nsearch a\nnameserver 10.0.0.1\n nameserver fe80::1 \nnameserver nonsense\n';
    expect(nameserversOf(text)).toEqual(['10.0.0.1', 'fe80::1']);
  });
});
