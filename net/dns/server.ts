/** The name server of a node's tasks, on the bridge's address: ours from the view, the rest from upstream. */
import dgram from 'node:dgram';
import net from 'node:net';
import packet from 'dns-packet';
import { containsAddress } from '#net/plan/cidr.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { answer, type DnsAnswer, type DnsView, ttlSeconds } from './answer.ts';
import { readMessages, type Upstream } from './upstream.ts';

const NXDOMAIN = 3;
const SERVFAIL = 2;
const REFUSED = 5;
const plainUdpBytes = 512;
/** What fits an Ethernet frame: larger answers are fetched by TCP. */
const largestUdpBytes = 1232;
const mostForwards = 512;
const idleMs = 10_000;

export class DnsServer {
  readonly #log: Log;
  readonly #upstream: Upstream;
  #view: DnsView | undefined;
  #makeView: (() => DnsView) | undefined;
  #sockets: { address: string; port: number; close(): Promise<void> } | undefined;
  #forwards = 0;
  #turn = 0;

  constructor(parts: { readonly log: Log; readonly upstream: Upstream }) {
    this.#log = parts.log;
    this.#upstream = parts.upstream;
  }

  /** Answers from the view that `makeView` makes, when the next question comes. */
  update(makeView: () => DnsView): void {
    this.#makeView = makeView;
  }

  /** Listens on `address`, UDP and TCP, in place of the address before; the address must be the machine's. Gives the port. */
  async listen(address: string, port = 53): Promise<number> {
    if (this.#sockets?.address === address) return this.#sockets.port;
    await this.close();
    const udp = dgram.createSocket('udp4');
    udp.on('message', (query, from) => {
      void this.#reply(query, from.address, 'udp').then((reply) => {
        // The socket may have been closed meanwhile; a reply that cannot be sent is a lost packet to the asker.
        if (reply && this.#sockets?.address === address) udp.send(reply, from.port, from.address, () => {});
      });
    });
    const tcp = net.createServer((socket) => this.#serveStream(socket));
    await opened(udp, () => udp.bind(port, address), address);
    await opened(tcp, () => tcp.listen(udp.address().port, address), address);
    const connections = new Set<net.Socket>();
    tcp.on('connection', (socket) => {
      connections.add(socket);
      socket.on('close', () => connections.delete(socket));
    });
    this.#sockets = {
      address,
      port: udp.address().port,
      async close() {
        for (const socket of connections) socket.destroy();
        await Promise.all([
          new Promise<void>((resolve) => udp.close(() => resolve())),
          new Promise<void>((resolve) => tcp.close(() => resolve())),
        ]);
      },
    };
    return this.#sockets.port;
  }

  #serveStream(socket: net.Socket): void {
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    readMessages(socket, (query) => {
      void this.#reply(query, socket.remoteAddress ?? '', 'tcp').then((reply) => {
        if (!reply) return socket.destroy();
        const length = Buffer.alloc(2);
        length.writeUInt16BE(reply.length);
        return socket.write(Buffer.concat([length, reply]));
      });
    });
  }

  /** The reply to a query's bytes; undefined for what is no query. */
  async #reply(bytes: Buffer, source: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    let query: packet.DecodedPacket;
    try {
      query = packet.decode(bytes);
    } catch {
      return undefined;
    }
    const question = query.questions?.[0];
    if (query.type !== 'query' || !question || query.questions?.length !== 1) return undefined;
    this.#refresh();
    const view = this.#view;
    if (!view) return encode(query, { code: SERVFAIL });
    // Not a resolver for the world: tasks, and the host itself.
    if (!containsAddress(view.network, source) && source !== this.#sockets?.address) {
      return encode(query, { code: REFUSED });
    }
    const result = answer(view, { name: question.name, type: question.type }, source, this.#turn++ & 0xffff);
    if (result.kind === 'forward') return this.#forward(query, bytes, transport);
    return this.#encodeOurs(query, result, transport);
  }

  #refresh(): void {
    if (!this.#makeView) return;
    this.#view = this.#makeView();
    this.#makeView = undefined;
  }

  #encodeOurs(query: packet.DecodedPacket, result: DnsAnswer, transport: 'udp' | 'tcp'): Buffer {
    if (result.kind !== 'records') return encode(query, { code: NXDOMAIN });
    const answers = result.records.map((record): packet.Answer => {
      const { name } = record;
      return record.type === 'A'
        ? { type: 'A', name, ttl: ttlSeconds, data: record.address }
        : { type: 'PTR', name, ttl: ttlSeconds, data: record.target };
    });
    const whole = encode(query, { answers });
    if (transport === 'tcp' || whole.length <= udpLimit(query)) return whole;
    return encode(query, { truncated: true });
  }

  async #forward(query: packet.DecodedPacket, bytes: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer> {
    if (this.#forwards >= mostForwards) return encode(query, { code: SERVFAIL });
    this.#forwards++;
    try {
      const reply = await this.#upstream.ask(bytes, transport);
      return transport === 'udp' && reply.length > udpLimit(query) ? encode(query, { truncated: true }) : reply;
    } catch (error) {
      this.#log.debug('a name could not be resolved upstream', { error });
      return encode(query, { code: SERVFAIL });
    } finally {
      this.#forwards--;
    }
  }

  async close(): Promise<void> {
    const sockets = this.#sockets;
    this.#sockets = undefined;
    await sockets?.close();
  }
}

function encode(
  query: packet.DecodedPacket,
  reply: { readonly code?: number; readonly answers?: packet.Answer[]; readonly truncated?: boolean },
): Buffer {
  const ours = reply.code === undefined || reply.code === NXDOMAIN ? packet.AUTHORITATIVE_ANSWER : 0;
  const truncated = reply.truncated ? packet.TRUNCATED_RESPONSE : 0;
  const wish = query.flags === undefined ? 0 : query.flags & packet.RECURSION_DESIRED;
  return packet.encode({
    type: 'response',
    id: query.id ?? 0,
    flags: ours | truncated | wish | packet.RECURSION_AVAILABLE | (reply.code ?? 0),
    questions: query.questions ?? [],
    answers: reply.answers ?? [],
  });
}

/** How large a UDP reply the asker takes (EDNS, RFC 6891). */
function udpLimit(query: packet.DecodedPacket): number {
  const offer = query.additionals?.find((record) => record.type === 'OPT');
  const size = offer && 'udpPayloadSize' in offer ? Number(offer.udpPayloadSize) : plainUdpBytes;
  return Math.min(largestUdpBytes, Math.max(plainUdpBytes, size));
}

function opened(socket: dgram.Socket | net.Server, open: () => void, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      reject(
        new Fault('unavailable', `the name server cannot listen on ${address}:53: ${(error as Error).message}`, {
          cause: error,
          remedy: `is another name server bound to all addresses? ss -ulpn sport = :53`,
        }),
      );
    };
    socket.once('error', fail);
    socket.once('listening', () => {
      socket.off('error', fail);
      // Later errors of a socket (a network that is down) concern single packets.
      socket.on('error', () => {});
      resolve();
    });
    open();
  });
}
