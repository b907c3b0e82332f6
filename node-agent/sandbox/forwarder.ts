/** Published ports of the sandbox, on 127.0.0.1 of the machine: user processes on both sides, no rule and no address added to the machine. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Operator } from './operator.ts';

export interface Forwarder {
  /** Every port that is published, with the reason where 127.0.0.1 could not have it. */
  ports(): { readonly port: number; readonly problem?: string }[];
}

interface Open {
  readonly server: Server;
  problem?: string;
}

/** Follows the published ports of the cluster once a second, and spreads connections over its ready nodes in turn. */
export function openForwarder(parts: {
  readonly gateway: string;
  readonly operator: {
    readonly publishedPorts: Operator['publishedPorts'];
    readonly readyNodes: () => Promise<readonly { readonly address: string }[]>;
  };
  readonly clock: Clock;
  readonly log: Log;
}): Forwarder {
  const open = new Map<number, Open>();
  let addresses: readonly string[] = [];
  let turn = 0;

  const accept = (client: Socket, port: number) => {
    client.on('error', () => client.destroy());
    client.pause();
    const first = turn++;
    const order = addresses.map((_, index) => addresses[(first + index) % addresses.length] as string);
    void forward(parts.gateway, client, port, order);
  };
  const listen = (port: number) => {
    const server = createServer({ allowHalfOpen: true }, (client) => accept(client, port));
    const entry: Open = { server };
    server.on('error', (error: NodeJS.ErrnoException) => {
      entry.problem = error.code === 'EADDRINUSE' ? 'taken by another process of this machine' : error.message;
      parts.log.warn('a published port cannot be had on 127.0.0.1', {
        address: `127.0.0.1:${port}`,
        why: entry.problem,
      });
    });
    server.listen(port, '127.0.0.1', () => delete entry.problem);
    open.set(port, entry);
  };
  const follow = async () => {
    try {
      const wanted = new Set(await parts.operator.publishedPorts());
      addresses = (await parts.operator.readyNodes()).map((node) => node.address);
      for (const [port, entry] of open) {
        if (wanted.has(port) && entry.problem === undefined) continue;
        entry.server.close();
        open.delete(port); // One that was taken is tried again below.
      }
      for (const port of wanted) if (!open.has(port)) listen(port);
    } catch {
      // The control plane does not answer: what is open stays open.
    }
    parts.clock.after(1_000, follow);
  };
  void follow();
  return {
    ports: () => [...open].map(([port, { problem }]) => (problem === undefined ? { port } : { port, problem })),
  };
}

/** Joins a client with the first host that answers; closes it when none does. */
async function forward(gateway: string, client: Socket, port: number, order: readonly string[]): Promise<void> {
  for (const address of order) {
    const target = await through(gateway, `${address}:${port}`);
    if (!target) continue;
    target.on('error', () => client.destroy());
    client.on('close', () => target.destroy());
    client.pipe(target).pipe(client);
    return;
  }
  client.destroy();
}

/** A connection to `target` ("address:port") made by the gateway, or nothing if it could not be made. */
export function through(gateway: string, target: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path: gateway, allowHalfOpen: true });
    let head = Buffer.alloc(0);
    const fail = () => {
      socket.destroy();
      resolve(undefined);
    };
    const onData = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\n');
      if (end < 0) return;
      if (head.subarray(0, end).toString() !== 'ok') return fail();
      socket.off('data', onData);
      socket.off('error', fail);
      socket.off('end', fail);
      socket.pause();
      if (head.length > end + 1) socket.unshift(head.subarray(end + 1));
      resolve(socket);
    };
    socket.on('error', fail);
    socket.on('end', fail);
    socket.on('data', onData);
    socket.on('connect', () => socket.write(`${target}\n`));
  });
}
