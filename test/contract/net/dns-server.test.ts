/** The DNS of a node answers over UDP and TCP as resolvers ask. */
import dgram from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import packet from 'dns-packet';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DnsServer } from '#net/dns/server.ts';
import { framed, nameserversOf, readMessages, resolvConfUpstream } from '#net/dns/upstream.ts';
import { dnsView } from '#net/dns/view.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { taskId } from '#proto/model/ids.ts';
import { attachment, backend, clusterNetwork, endpoint, networkWanted } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';

const many = Array.from({ length: 100 }, (_, index) => backend(`127.1.0.${index + 2}`, { slot: index + 1 }));
const networks = [{ network: 'shop_default', aliases: [] }];
/** The tasks that ask: by IPv4 and IPv6, one with name servers of its own, and one that has no way out. */
const plain = '127.0.0.2';
const own = '127.0.0.3';
const shutIn = '127.0.0.4';
const viewOf = (dns: readonly string[]) =>
  dnsView(
    networkWanted(
      { nodeId: 'n1', address: '127.0.0.250', subnet: '127.0.0.248/29' },
      {
        network: '127.0.0.0/8',
        endpoints: [
          endpoint('web', { networks, backends: [backend('127.0.0.1')] }),
          endpoint('many', { vip: '10.224.0.3', networks, backends: many }),
        ],
        networks: [clusterNetwork('shop_default'), clusterNetwork('shop_vault', { internal: true })],
        attachments: [
          attachment(taskId('plain'), plain, { networks: ['shop_default'] }),
          attachment(taskId('own'), own, { networks: ['shop_default'], dns }),
          attachment(taskId('shut-in'), shutIn, { networks: ['shop_vault'] }),
        ],
      },
    ),
  );

/** A name server of the world, and what it was asked. */
class Resolver {
  readonly asked: { readonly how: 'udp' | 'tcp'; readonly query: packet.DecodedPacket }[] = [];
  /** undefined: it says nothing. */
  reply: (query: packet.DecodedPacket, how: 'udp' | 'tcp') => Buffer | undefined = (query) =>
    packet.encode({
      type: 'response',
      id: query.id ?? 0,
      questions: query.questions ?? [],
      answers: [{ type: 'A', name: 'example.com', ttl: 60, data: this.data }],
      additionals: query.additionals ?? [],
    });
  readonly address: string;
  readonly data: string;
  readonly #udp = dgram.createSocket('udp4');
  readonly #tcp = net.createServer();

  constructor(address: string, data: string) {
    this.address = address;
    this.data = data;
  }

  async open(port: number): Promise<number> {
    this.#udp.on('message', (bytes, from) => {
      const reply = this.#take(bytes, 'udp');
      if (reply) this.#udp.send(reply, from.port, from.address);
    });
    this.#tcp.on('connection', (socket) => {
      socket.on('error', () => {});
      readMessages(socket, (bytes) => {
        const reply = this.#take(bytes, 'tcp');
        if (reply) socket.write(framed(reply));
      });
    });
    await new Promise<void>((resolve) => this.#tcp.listen(port, this.address, resolve));
    const bound = (this.#tcp.address() as net.AddressInfo).port;
    await new Promise<void>((resolve) => this.#udp.bind(bound, this.address, resolve));
    return bound;
  }

  #take(bytes: Buffer, how: 'udp' | 'tcp'): Buffer | undefined {
    const query = packet.decode(bytes);
    this.asked.push({ how, query });
    return this.reply(query, how);
  }

  close(): void {
    this.#udp.close();
    this.#tcp.close();
  }
}

let directory: string;
let first: Resolver;
let second: Resolver;
let server: DnsServer;
let port: number;
const gateway = '127.0.0.249';

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'gantry-dns-'));
  const path = join(directory, 'resolv.conf');
  first = new Resolver('127.0.5.1', '203.0.113.1');
  second = new Resolver('127.0.5.2', '203.0.113.2');
  const upstreamPort = await first.open(0);
  await second.open(upstreamPort);
  writeFileSync(path, `nameserver ${gateway}\nnameserver ${first.address}\nnameserver ${second.address}\n`);
  const notThese = () => [gateway];
  const upstream = resolvConfUpstream({ clock: systemClock, path, timeoutMs: 1_500, notThese, port: upstreamPort });
  server = new DnsServer({ clock: systemClock, log: silentLog, upstream });
  port = (await server.listen([gateway], 0))[0] ?? 0;
  server.update(() => viewOf([second.address]));
});
afterEach(async () => {
  await server.close();
  first.close();
  second.close();
  rmSync(directory, { recursive: true });
});

const edns = (udpPayloadSize: number) =>
  [{ type: 'OPT', name: '.', udpPayloadSize, flags: packet.DNSSEC_OK, options: [] }] as unknown as packet.Answer[];
const encode = (name: string, type: 'A' | 'AAAA' = 'A', additionals: packet.Answer[] = []) =>
  packet.encode({
    type: 'query',
    id: 4711,
    flags: packet.RECURSION_DESIRED,
    questions: [{ name, type }],
    additionals,
  });

function askUdp(query: Buffer, source = plain): Promise<{ reply: packet.DecodedPacket; bytes: number }> {
  const socket = dgram.createSocket('udp4');
  return new Promise((resolve) => {
    socket.on('message', (reply) => {
      socket.close();
      resolve({ reply: packet.decode(reply), bytes: reply.length });
    });
    socket.bind(0, source, () => socket.send(query, port, gateway));
  });
}

function askTcp(query: Buffer, source = plain): Promise<{ reply: packet.DecodedPacket; bytes: number }> {
  const socket = net.connect({ port, host: gateway, localAddress: source });
  socket.write(framed(query));
  return new Promise((resolve) => {
    readMessages(socket, (reply) => {
      socket.destroy();
      resolve({ reply: packet.decode(reply), bytes: reply.length });
    });
  });
}

const rcode = ({ reply }: { reply: packet.DecodedPacket }) => (reply as unknown as { rcode: string }).rcode;
const data = ({ reply }: { reply: packet.DecodedPacket }) =>
  (reply.answers ?? []).map((item) => ('data' in item ? item.data : ''));

describe('the name server', () => {
  it.each([
    ['UDP', askUdp],
    ['TCP', askTcp],
  ] as const)('answers by %s with authority', async (_how, ask) => {
    const { reply } = await ask(encode('web.shop.gantry.internal'));
    expect(reply).toMatchObject({ id: 4711, flag_aa: true, flag_rd: true, flag_ra: true, flag_tc: false });
    expect(reply.questions).toMatchObject([{ name: 'web.shop.gantry.internal', type: 'A' }]);
    expect(reply.answers).toMatchObject([{ name: 'web.shop.gantry.internal', type: 'A', ttl: 1, data: '10.224.0.2' }]);
    expect(reply.additionals).toEqual([]);
  });

  it('repeats the question as it was written', async () => {
    const { reply } = await askUdp(encode('wEb.ShOp'));
    expect([reply.questions?.[0]?.name, reply.answers?.[0]?.name]).toEqual(['wEb.ShOp', 'wEb.ShOp']);
  });

  it('says NXDOMAIN to unknown names of ours, NOERROR without answers to AAAA, REFUSED to strangers', async () => {
    expect(rcode(await askUdp(encode('gone.gantry.internal')))).toBe('NXDOMAIN');
    const answered = await askUdp(encode('web.shop', 'AAAA'));
    expect([rcode(answered), answered.reply.answers]).toEqual(['NOERROR', []]);
    expect(rcode(await askUdp(encode('web.shop'), '127.0.0.99'))).toBe('REFUSED');
  });

  it('cuts what does not fit the packets of the asker, and gives it all by TCP', async () => {
    const small = await askUdp(encode('tasks.many.shop'));
    expect(small.reply.flag_tc).toBe(true);
    expect(small.bytes).toBeLessThanOrEqual(512);
    expect(data(small).length).toBeGreaterThan(20);
    const larger = await askUdp(encode('tasks.many.shop', 'A', edns(1232)));
    expect(larger.reply.flag_tc).toBe(true);
    expect(larger.bytes).toBeLessThanOrEqual(1232);
    expect(data(larger).length).toBeGreaterThan(70);
    const whole = await askTcp(encode('tasks.many.shop'));
    expect([whole.reply.flag_tc, new Set(data(whole)).size]).toEqual([false, 100]);
  });

  it('speaks EDNS to who speaks it', async () => {
    const { reply } = await askUdp(encode('web', 'A', edns(4096)));
    expect(reply.additionals).toMatchObject([{ type: 'OPT', udpPayloadSize: 1232 }]);
    const later = [{ ...edns(1232)[0], ednsVersion: 1 }] as unknown as packet.Answer[];
    const bad = await askUdp(encode('web', 'A', later));
    expect(bad.reply.additionals).toMatchObject([{ type: 'OPT', extendedRcode: 1 }]);
    expect(bad.reply.answers).toEqual([]);
  });

  it('answers broken queries with an error, what is no query not at all, and the next one rightly', async () => {
    const socket = dgram.createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, plain, resolve));
    const replies: Buffer[] = [];
    socket.on('message', (reply) => replies.push(reply));
    const twoQuestions = encode('web');
    twoQuestions.writeUInt16BE(2, 4);
    const update = encode('web');
    update[2] = 5 << 3;
    const response = encode('web');
    response[2] = 0x80;
    for (const bytes of [Buffer.from('nonsense'), response, twoQuestions, update, encode('web').subarray(0, 14)]) {
      socket.send(bytes, port, gateway);
    }
    expect(rcode(await askUdp(encode('web.shop')))).toBe('NOERROR');
    socket.close();
    expect(replies.map((reply) => reply[3]! & 15)).toEqual([1, 4, 1]);
  });

  it('drops what one asker floods it with, and answers the others', async () => {
    const socket = dgram.createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, shutIn, resolve));
    let answered = 0;
    socket.on('message', () => answered++);
    const query = encode('web');
    for (let round = 0; round < 60; round++) {
      await Promise.all(
        Array.from({ length: 100 }, () => new Promise((resolve) => socket.send(query, port, gateway, resolve))),
      );
    }
    // As resolvers do, for a packet may be lost where the kernel's queue was full.
    const asking: ReturnType<typeof askUdp>[] = [];
    let others: packet.DecodedPacket | undefined;
    await eventually(() => {
      if (asking.length < 20) asking.push(askUdp(encode('web')));
      void asking.at(-1)?.then(({ reply }) => {
        others = reply;
      });
      return others;
    });
    expect(others?.answers).toMatchObject([{ data: '10.224.0.2' }]);
    socket.close();
    expect(answered).toBeGreaterThan(100);
    expect(answered).toBeLessThan(5_000);
  });
});

describe('names of the world', () => {
  it('are asked of the host’s resolvers as they were asked, by UDP and TCP, with EDNS', async () => {
    const reply = await askUdp(encode('example.com', 'A', edns(1400)));
    expect([reply.reply.id, data(reply)]).toEqual([4711, ['203.0.113.1']]);
    expect(data(await askTcp(encode('example.com')))).toEqual(['203.0.113.1']);
    expect(first.asked.map(({ how }) => how)).toEqual(['udp', 'tcp']);
    expect(first.asked[0]?.query.additionals).toMatchObject([
      { type: 'OPT', udpPayloadSize: 1400, flags: packet.DNSSEC_OK },
    ]);
    expect(second.asked).toEqual([]);
  });

  it('are asked of the name servers of the service where it has its own, and ours stay ours', async () => {
    expect(data(await askUdp(encode('example.com'), own))).toEqual(['203.0.113.2']);
    expect(data(await askUdp(encode('web'), own))).toEqual(['10.224.0.2']);
    expect(first.asked).toEqual([]);
  });

  it('do not exist for who has no way out', async () => {
    expect(rcode(await askUdp(encode('example.com'), shutIn))).toBe('NXDOMAIN');
    expect(first.asked).toEqual([]);
  });

  it('are asked of the next resolver when one is silent, fails, or has gone; it comes last for a while', async () => {
    first.reply = () => undefined;
    expect(data(await askUdp(encode('example.com')))).toEqual(['203.0.113.2']);
    const asked = first.asked.length;
    expect(data(await askUdp(encode('example.com')))).toEqual(['203.0.113.2']);
    expect(first.asked.length).toBe(asked);
    const refuse = (query: packet.DecodedPacket) =>
      packet.encode({ type: 'response', id: query.id ?? 0, flags: 2, questions: query.questions ?? [] });
    second.reply = refuse;
    first.reply = refuse;
    expect(rcode(await askUdp(encode('example.com')))).toBe('SERVFAIL');
  });

  it('are answered by who was slow, too', async () => {
    second.reply = () => undefined;
    first.reply = (query) =>
      second.asked.length === 0
        ? undefined
        : packet.encode({
            type: 'response',
            id: query.id ?? 0,
            questions: query.questions ?? [],
            answers: [{ type: 'A', name: 'example.com', ttl: 1, data: '203.0.113.9' }],
          });
    const asking = askUdp(encode('example.com'));
    const again = askUdp(encode('example.com'));
    expect([data(await asking), data(await again)]).toEqual([['203.0.113.9'], ['203.0.113.9']]);
  });

  it('are SERVFAIL in time where nobody answers, and cluster names are answered meanwhile', async () => {
    first.reply = () => undefined;
    second.reply = () => undefined;
    const begun = performance.now();
    const lost = askUdp(encode('example.com'));
    const web = askUdp(encode('web'));
    expect(await Promise.race([web, lost])).toBe(await web);
    expect(data(await web)).toEqual(['10.224.0.2']);
    expect(rcode(await lost)).toBe('SERVFAIL');
    // A resolver asks somebody else after five seconds.
    expect(performance.now() - begun).toBeLessThan(5_000);
  });

  it('are believed only of the question that was asked', async () => {
    const forged = packet.encode({
      type: 'response',
      id: 4711,
      questions: [{ name: 'example.org', type: 'A' }],
      answers: [{ type: 'A', name: 'example.com', ttl: 60, data: '198.51.100.66' }],
    });
    first.reply = () => forged;
    expect(data(await askUdp(encode('example.com')))).toEqual(['203.0.113.2']);
  });

  it('are cut for who takes small packets, and said so', async () => {
    const answers = Array.from({ length: 60 }, (_, index) => ({
      type: 'A' as const,
      name: 'example.com',
      ttl: 60,
      data: `203.0.113.${index}`,
    }));
    first.reply = (query) =>
      packet.encode({ type: 'response', id: query.id ?? 0, questions: query.questions ?? [], answers });
    const cut = await askUdp(encode('example.com'));
    expect([cut.reply.flag_tc, data(cut)]).toEqual([true, []]);
    expect(data(await askTcp(encode('example.com')))).toHaveLength(60);
  });

  it('are looked up as resolv.conf(5) says', () => {
    const text = '# x\nsearch a\nnameserver 10.0.0.1\n nameserver fe80::1 \nnameserver nonsense\n';
    expect(nameserversOf(text)).toEqual(['10.0.0.1', 'fe80::1']);
  });
});
