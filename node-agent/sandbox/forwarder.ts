/** Published ports of the sandbox, on 127.0.0.1 of the machine: user processes on both sides, no rule and no address added to the machine. */
import { createServer, type Socket } from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Operator, PublishedPort } from './operator.ts';
import { through } from './through.ts';
import { forwardDatagrams } from './udp-forwarder.ts';

export interface Forwarder {
  /** Every port that is published, with the reason where 127.0.0.1 could not have it. */
  ports(): (PublishedPort & { readonly problem?: string })[];
}

interface Open extends PublishedPort {
  readonly door: { close(): void; tick?(): void };
  problem?: string;
}

/** Follows the published ports of the cluster once a second, and spreads connections and flows over its ready nodes in turn. */
export function openForwarder(parts: {
  readonly gateway: string;
  readonly operator: {
    readonly publishedPorts: Operator['publishedPorts'];
    readonly readyNodes: () => Promise<readonly { readonly address: string }[]>;
  };
  readonly clock: Clock;
  readonly log: Log;
}): Forwarder {
  const { gateway, clock } = parts;
  const open = new Map<string, Open>();
  let addresses: readonly string[] = [];
  let turn = 0;

  /** All nodes, beginning with another one each time. */
  const order = () => {
    const first = turn++;
    return addresses.map((_, index) => addresses[(first + index) % addresses.length] as string);
  };
  const listen = (published: PublishedPort) => {
    const { port, protocol } = published;
    const failed = (error: NodeJS.ErrnoException) => {
      entry.problem = error.code === 'EADDRINUSE' ? 'taken by another process of this machine' : error.message;
      parts.log.warn('a published port cannot be had on 127.0.0.1', {
        address: `127.0.0.1:${port}/${protocol}`,
        why: entry.problem,
      });
    };
    const door =
      protocol === 'udp'
        ? forwardDatagrams({ gateway, port, order, clock, failed })
        : forwardConnections({ gateway, port, order, failed });
    const entry: Open = { ...published, door };
    open.set(keyOf(published), entry);
  };
  const follow = async () => {
    try {
      const wanted = new Map((await parts.operator.publishedPorts()).map((one) => [keyOf(one), one]));
      addresses = (await parts.operator.readyNodes()).map((node) => node.address);
      for (const [key, entry] of open) {
        if (wanted.has(key) && entry.problem === undefined) continue;
        entry.door.close();
        open.delete(key); // One that was taken is tried again below.
      }
      for (const [key, one] of wanted) if (!open.has(key)) listen(one);
    } catch {
      // The control plane does not answer: what is open stays open.
    }
    for (const { door } of open.values()) door.tick?.();
    clock.after(1_000, follow);
  };
  void follow();
  return {
    ports: () =>
      [...open.values()].map(({ port, protocol, problem }) => ({
        port,
        protocol,
        ...(problem === undefined ? {} : { problem }),
      })),
  };
}

function keyOf({ port, protocol }: PublishedPort): string {
  return `${protocol}/${port}`;
}

function forwardConnections(parts: {
  readonly gateway: string;
  readonly port: number;
  readonly order: () => readonly string[];
  readonly failed: (error: NodeJS.ErrnoException) => void;
}): Open['door'] {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on('error', () => client.destroy());
    client.pause();
    void forward(parts.gateway, client, parts.port, parts.order());
  });
  server.on('error', parts.failed);
  server.listen(parts.port, '127.0.0.1');
  return server;
}

/** Joins a client with the first host that answers; closes it when none does. */
async function forward(gateway: string, client: Socket, port: number, order: readonly string[]): Promise<void> {
  for (const address of order) {
    const target = await through(gateway, `tcp ${address}:${port}`);
    if (!target) continue;
    target.on('error', () => client.destroy());
    client.on('close', () => target.destroy());
    client.pipe(target).pipe(client);
    return;
  }
  client.destroy();
}
