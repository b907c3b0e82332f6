/** Names that are not ours: passed on, as they are, to the resolvers of the host or of the service that asks. */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { isReplyTo, rcode } from './message.ts';

/** A resolver that is silent so long is asked again, and the next one beside it; an answer of either counts. */
const patienceMs = 400;
/** How often each resolver is asked at most for one query. */
const rounds = 3;
/** A resolver that was silent comes last for so long. */
const restMs = 30_000;

export interface Upstream {
  /** The answer to a query, as bytes; Fault('unavailable' | 'timeout') when no resolver gave one. `servers`: in place of the host's. */
  ask(query: Buffer, transport: 'udp' | 'tcp', servers: readonly string[]): Promise<Buffer>;
}

export interface UpstreamParts {
  readonly clock: Clock;
  /** Of a resolv.conf file, read anew whenever it has changed. */
  readonly path: string;
  /** How long a query takes at most; below the five seconds that resolvers wait for us. */
  readonly timeoutMs: number;
  /** Addresses that are ourselves. */
  readonly notThese: () => readonly string[];
  readonly port?: number;
}

/** The resolvers of a resolv.conf file, or those that a query names. */
export function resolvConfUpstream(parts: UpstreamParts): Upstream {
  const { clock, path, timeoutMs, port = 53 } = parts;
  const restingUntil = new Map<string, number>();
  let read: { mtimeMs: number; servers: readonly string[] } | undefined;
  const hosts = (): readonly string[] => {
    const mtimeMs = fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (read?.mtimeMs !== mtimeMs) {
      read = { mtimeMs, servers: mtimeMs === 0 ? [] : nameserversOf(fs.readFileSync(path, 'utf8')) };
    }
    return read.servers;
  };
  const rests = (server: string) => (restingUntil.get(server) ?? 0) > clock.monotonic();
  return {
    async ask(query, transport, named) {
      const known = named.length > 0 ? named.filter((server) => net.isIP(server) !== 0) : hosts();
      const others = known.filter((server) => !parts.notThese().includes(server));
      if (others.length === 0) throw new Fault('unavailable', `no name server is known: ${path} names none`);
      const servers = [...others.filter((server) => !rests(server)), ...others.filter(rests)];
      const ask = transport === 'udp' ? askUdp : askTcp;
      return await first(clock, timeoutMs, servers, (server) => ask({ server, port }, query), {
        silent: (server) => restingUntil.set(server, clock.monotonic() + restMs),
        answered: (server) => restingUntil.delete(server),
      });
    },
  };
}

/** The addresses on the `nameserver` lines, three at most, as resolv.conf(5) has it. */
export function nameserversOf(text: string): string[] {
  const found = text.split('\n').map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1]);
  return found.filter((server): server is string => server !== undefined && net.isIP(server) !== 0).slice(0, 3);
}

/** One question to one resolver, under way. */
interface Asking {
  readonly reply: Promise<Buffer>;
  stop(): void;
}

/**
 * The first good answer. The next server is asked when one fails, or is silent for a while, and the silent ones are not given
 * up: a resolver may have to ask far away. A server's own failure (SERVFAIL, REFUSED) is the answer only where all fail.
 */
function first(
  clock: Clock,
  timeoutMs: number,
  servers: readonly string[],
  ask: (server: string) => Asking,
  told: { silent(server: string): void; answered(server: string): void },
): Promise<Buffer> {
  const turns = Array.from({ length: rounds }, () => servers).flat();
  const under: Asking[] = [];
  return new Promise<Buffer>((resolve, reject) => {
    let begun = 0;
    let failed = 0;
    let refusal: Buffer | undefined;
    let failure: unknown;
    let done = false;
    const finish = (action: () => void) => {
      if (done) return;
      done = true;
      deadline.cancel();
      next?.cancel();
      for (const asking of under) asking.stop();
      action();
    };
    const giveUp = () =>
      finish(() => (refusal ? resolve(refusal) : reject(failure ?? new Fault('unavailable', 'no resolver answered'))));
    const begin = () => {
      next?.cancel();
      if (done) return;
      // Nobody is asked anew in the moment that he has failed.
      if (begun >= servers.length && failed === begun) return giveUp();
      const server = turns[begun];
      if (server === undefined) return;
      begun++;
      const asking = ask(server);
      under.push(asking);
      next = clock.after(patienceMs, () => {
        told.silent(server);
        begin();
      });
      asking.reply.then(
        (reply) => {
          const code = reply[3]! & 0x0f;
          if (code !== rcode.serverFailure && code !== rcode.refused) {
            told.answered(server);
            return finish(() => resolve(reply));
          }
          refusal ??= reply;
          return fail();
        },
        (error) => {
          failure = error;
          fail();
        },
      );
    };
    const fail = () => {
      failed++;
      begin();
    };
    let next: { cancel(): void } | undefined;
    const deadline = clock.after(timeoutMs, () => {
      failure ??= new Fault('timeout', `no answer from ${servers.join(', ')} in ${timeoutMs} ms`);
      giveUp();
    });
    begin();
  });
}

interface Place {
  readonly server: string;
  readonly port: number;
}

function askUdp({ server, port }: Place, query: Buffer): Asking {
  const socket = dgram.createSocket(net.isIPv6(server) ? 'udp6' : 'udp4');
  const reply = new Promise<Buffer>((resolve, reject) => {
    socket.on('error', reject);
    // Connected: answers from anywhere else are not heard, and a closed port is noticed.
    socket.connect(port, server, () => socket.send(query));
    socket.on('message', (answer) => {
      if (isReplyTo(query, answer)) resolve(answer);
    });
  });
  let closed = false;
  return {
    reply,
    stop() {
      if (closed) return;
      closed = true;
      // An error that comes while it closes is nobody's.
      socket.on('error', () => {});
      socket.close();
    },
  };
}

function askTcp({ server, port }: Place, query: Buffer): Asking {
  const socket = net.connect(port, server);
  const reply = new Promise<Buffer>((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => reject(new Fault('unavailable', `resolver ${server} hung up`)));
    socket.write(framed(query));
    readMessages(socket, (answer) => {
      if (isReplyTo(query, answer)) resolve(answer);
    });
  });
  return { reply, stop: () => socket.destroy() };
}

/** A message as TCP carries it: two bytes of length before it (RFC 1035 4.2.2). */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** Calls `take` with each message of a TCP stream. */
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
