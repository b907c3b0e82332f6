/** Names that are not ours: passed on to the resolvers of the host, as they are. */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';

const port = 53;

export interface Upstream {
  /** The answer to a query, as bytes; Fault('unavailable' | 'timeout') when no resolver gave one. */
  ask(query: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer>;
}

/** The resolvers of a resolv.conf file, read anew whenever it has changed. `notThese`: addresses that are ourselves. */
export function resolvConfUpstream(parts: {
  readonly clock: Clock;
  readonly path: string;
  readonly timeoutMs: number;
  readonly notThese: () => readonly string[];
}): Upstream {
  let read: { mtimeMs: number; servers: readonly string[] } | undefined;
  const servers = (): readonly string[] => {
    const mtimeMs = fs.statSync(parts.path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (read?.mtimeMs !== mtimeMs) {
      read = { mtimeMs, servers: mtimeMs === 0 ? [] : nameserversOf(fs.readFileSync(parts.path, 'utf8')) };
    }
    return read.servers.filter((server) => !parts.notThese().includes(server));
  };
  return {
    async ask(query, transport) {
      let failure: unknown = new Fault('unavailable', `${parts.path} names no resolver`);
      for (const server of servers()) {
        for (const how of transport === 'udp' ? [askUdp, askTcp] : [askTcp]) {
          try {
            return await how(parts.clock, server, query, parts.timeoutMs);
          } catch (error) {
            failure = error;
          }
        }
      }
      throw failure;
    },
  };
}

/** The addresses on the `nameserver` lines, three at most, as resolv.conf(5) has it. */
export function nameserversOf(text: string): string[] {
  const found = text.split('\n').map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1]);
  return found.filter((server): server is string => server !== undefined && net.isIP(server) !== 0).slice(0, 3);
}

function askUdp(clock: Clock, server: string, query: Buffer, timeoutMs: number): Promise<Buffer> {
  const socket = dgram.createSocket(net.isIPv6(server) ? 'udp6' : 'udp4');
  return settled(clock, server, timeoutMs, (resolve, reject) => {
    socket.on('error', reject);
    // Connected: answers from anywhere else are not heard, and a closed port is noticed.
    socket.connect(port, server, () => socket.send(query));
    socket.on('message', (answer) => {
      if (answer.length >= 12 && answer.readUInt16BE(0) === query.readUInt16BE(0)) resolve(answer);
    });
    return () => socket.close();
  });
}

function askTcp(clock: Clock, server: string, query: Buffer, timeoutMs: number): Promise<Buffer> {
  const socket = net.connect(port, server);
  return settled(clock, server, timeoutMs, (resolve, reject) => {
    socket.on('error', reject);
    socket.on('end', () => reject(new Fault('unavailable', `resolver ${server} hung up`)));
    const length = Buffer.alloc(2);
    length.writeUInt16BE(query.length);
    socket.write(Buffer.concat([length, query]));
    readMessages(socket, resolve);
    return () => socket.destroy();
  });
}

/** Calls `take` with each message of a TCP stream (two bytes of length before each, RFC 1035 4.2.2). */
export function readMessages(socket: net.Socket, take: (message: Buffer) => void): void {
  let pending = Buffer.alloc(0);
  socket.on('data', (data) => {
    pending = Buffer.concat([pending, data as Buffer]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      take(pending.subarray(2, end));
      pending = pending.subarray(end);
    }
  });
}

function settled(
  clock: Clock,
  server: string,
  timeoutMs: number,
  begin: (resolve: (answer: Buffer) => void, reject: (error: unknown) => void) => () => void,
): Promise<Buffer> {
  return new Promise<Buffer>((resolve, reject) => {
    const end = begin(
      (answer) => finish(() => resolve(answer)),
      (error) => finish(() => reject(error)),
    );
    const timer = clock.after(timeoutMs, () => {
      finish(() => reject(new Fault('timeout', `resolver ${server} did not answer in ${timeoutMs} ms`)));
    });
    let done = false;
    function finish(action: () => void) {
      if (done) return;
      done = true;
      timer.cancel();
      end();
      action();
    }
  });
}
