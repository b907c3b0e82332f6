/** The name server of a node's tasks, on the bridge's addresses: ours from the view, the rest from upstream. */
import dgram from 'node:dgram';
import net from 'node:net';
import type { KeptSockets } from '#net/host/kept-sockets.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { answer, ttlSeconds } from './answer.ts';
import { Limits } from './limits.ts';
import { type Query, rcode, readQuery, truncated, udpLimit, writeError, writeReply } from './message.ts';
import { framed, readMessages, type Upstream } from './upstream.ts';
import type { DnsView } from './view.ts';

const idleMs = 10_000;
const mostTcpBytes = 65_535;
type Transport = 'udp' | 'tcp';

/** Where the server listens: sockets that are the machine's already, or are made. */
interface Listening {
  readonly address: string;
  readonly port: number;
  close(): Promise<void>;
}

export class DnsServer {
  readonly #log: Log;
  readonly #upstream: Upstream;
  readonly #sockets: Pick<KeptSockets, 'open' | 'release'> | undefined;
  readonly #limits: Limits;
  #view: DnsView | undefined;
  #makeView: ((previous: DnsView | undefined) => DnsView) | undefined;
  readonly #listening = new Map<string, Listening>();
  /** Queries on their way upstream: who asks the same meanwhile gets the same answer. */
  readonly #asked = new Map<string, Promise<Buffer>>();
  #turn = 0;

  /** Without `sockets` they are made anew, and end with this process. */
  constructor(parts: {
    readonly clock: Clock;
    readonly log: Log;
    readonly upstream: Upstream;
    readonly sockets?: Pick<KeptSockets, 'open' | 'release'>;
  }) {
    this.#log = parts.log;
    this.#sockets = parts.sockets;
    this.#upstream = parts.upstream;
    this.#limits = new Limits(parts.clock);
  }

  /** Answers from the view that `makeView` makes of the one before, when the next question comes. */
  update(makeView: (previous: DnsView | undefined) => DnsView): void {
    this.#makeView = makeView;
  }

  /** Listens on these addresses, UDP and TCP, and on no others; they must be the machine's. Gives the ports. */
  async listen(addresses: readonly string[], port = 53): Promise<readonly number[]> {
    for (const [address, listening] of this.#listening) {
      if (addresses.includes(address)) continue;
      this.#listening.delete(address);
      await listening.close();
      this.#sockets?.release(address);
    }
    for (const address of addresses) {
      if (!this.#listening.has(address)) this.#listening.set(address, await this.#open(address, port));
    }
    return addresses.map((address) => this.#listening.get(address)?.port ?? 0);
  }

  async #open(address: string, port: number): Promise<Listening> {
    const udp = dgram.createSocket({ type: net.isIPv6(address) ? 'udp6' : 'udp4', ipv6Only: net.isIPv6(address) });
    udp.on('message', (query, from) => {
      if (!this.#limits.admits(from.address)) return;
      void this.#reply(query, from.address, 'udp').then((reply) => {
        // The socket may have been closed meanwhile; a reply that cannot be sent is a lost packet to the asker.
        if (reply && this.#listening.get(address)) udp.send(reply, from.port, from.address, () => {});
      });
    });
    const tcp = net.createServer((socket) => this.#serveStream(socket));
    const connections = new Set<net.Socket>();
    tcp.on('connection', (socket) => {
      connections.add(socket);
      socket.on('close', () => connections.delete(socket));
    });
    try {
      const held = this.#held(address, port);
      await opened(udp, () => (held ? udp.bind({ fd: held.udp }) : udp.bind(port, address)), address);
      const ours = held ? { fd: held.tcp } : { port: udp.address().port, host: address };
      await opened(tcp, () => tcp.listen(ours), address);
    } catch (error) {
      udp.close();
      if (tcp.listening) tcp.close();
      throw error;
    }
    return {
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
  }

  #held(address: string, port: number) {
    try {
      return this.#sockets?.open(address, port);
    } catch (error) {
      throw cannotListen(address, error);
    }
  }

  #serveStream(socket: net.Socket): void {
    const source = socket.remoteAddress ?? '';
    const leave = this.#limits.enter(source);
    if (!leave) return void socket.destroy();
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', leave);
    readMessages(socket, (query) => {
      // Who does not read the answers gets no more of them.
      if (!this.#limits.admits(source) || socket.writableLength > mostTcpBytes) return void socket.destroy();
      void this.#reply(query, source, 'tcp').then((reply) => (reply ? socket.write(framed(reply)) : socket.destroy()));
    });
  }

  /** The reply to a query's bytes; undefined for what is no query. */
  async #reply(bytes: Buffer, source: string, transport: Transport): Promise<Buffer | undefined> {
    const query = readQuery(bytes);
    if (!query) return undefined;
    if ('error' in query) return writeError(query.id, query.error);
    this.#view = this.#makeView?.(this.#view) ?? this.#view;
    this.#makeView = undefined;
    const plain = { records: [], ttlSeconds, limitBytes: transport === 'udp' ? udpLimit(query) : mostTcpBytes };
    if (!this.#view) return writeReply(query, { ...plain, code: rcode.serverFailure });
    const result = answer(this.#view, query, source, this.#turn++ & 0xffff);
    switch (result.kind) {
      case 'refused':
        return writeReply(query, { ...plain, code: rcode.refused });
      case 'unknown':
        return writeReply(query, { ...plain, code: rcode.unknownName });
      case 'records':
        return writeReply(query, { ...plain, code: rcode.noError, records: result.records });
      case 'forward': {
        const reply = await this.#forward(bytes, { source, transport, servers: result.servers });
        if (!reply) return writeReply(query, { ...plain, code: rcode.serverFailure });
        return fitting(reply, query, plain.limitBytes);
      }
    }
  }

  /** Undefined where nobody upstream answers, or the asker asks for too much at once. */
  async #forward(
    bytes: Buffer,
    how: { readonly source: string; readonly transport: Transport; readonly servers: readonly string[] },
  ): Promise<Buffer | undefined> {
    const { source, transport, servers } = how;
    const done = this.#limits.forward(source);
    if (!done) return undefined;
    const key = `${transport} ${servers.join()} ${bytes.toString('latin1', 2)}`;
    try {
      const asking = this.#asked.get(key) ?? this.#upstream.ask(bytes, transport, servers);
      this.#asked.set(key, asking);
      const reply = Buffer.from(await asking);
      reply.writeUInt16BE(bytes.readUInt16BE(0), 0);
      return reply;
    } catch (error) {
      this.#log.debug('a name could not be resolved upstream', { error });
      return undefined;
    } finally {
      this.#asked.delete(key);
      done();
    }
  }

  async close(): Promise<void> {
    const open = [...this.#listening.values()];
    this.#listening.clear();
    for (const listening of open) await listening.close();
  }
}

function fitting(reply: Buffer, query: Query, limitBytes: number): Buffer {
  return reply.length > limitBytes ? truncated(reply, query) : reply;
}

function cannotListen(address: string, error: unknown): Fault {
  return new Fault('unavailable', `the name server cannot listen on ${address}:53: ${(error as Error).message}`, {
    cause: error,
    remedy: `is another name server bound to all addresses? ss -ulpn sport = :53`,
  });
}

function opened(socket: dgram.Socket | net.Server, open: () => void, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(cannotListen(address, error));
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
