/** One published UDP port on 127.0.0.1 of the machine: every client that sends to it is a flow of its own through the gateway. */
import { createSocket } from 'node:dgram';
import type { Socket } from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import { onDatagrams, sendDatagram } from './datagrams.ts';
import { through } from './through.ts';

interface Flow {
  lastAtMs: number;
  /** Undefined until the gateway has answered; what comes meanwhile waits in `early`. */
  stream: Socket | undefined;
  readonly early: Buffer[];
  ended: boolean;
}

/** A flow that is silent for this long is forgotten, as conntrack does it with replied ones. */
const idleMs = 120_000;
const mostFlows = 1_024;
const mostEarly = 32;

/** Binds the port. `order`: nodes to try, in turn; `failed`: that it cannot be had. `tick` is to be called now and then. */
export function forwardDatagrams(parts: {
  readonly gateway: string;
  readonly port: number;
  readonly order: () => readonly string[];
  readonly clock: Clock;
  readonly failed: (error: NodeJS.ErrnoException) => void;
}): { close(): void; tick(): void } {
  const { gateway, port, clock } = parts;
  const flows = new Map<string, Flow>();
  let closed = false;
  const socket = createSocket('udp4');

  const end = (key: string, flow: Flow) => {
    flow.ended = true;
    flow.stream?.destroy();
    if (flows.get(key) === flow) flows.delete(key);
  };
  const begin = (key: string, address: string, from: number): Flow => {
    const flow: Flow = { lastAtMs: clock.monotonic(), stream: undefined, early: [], ended: false };
    flows.set(key, flow);
    const [eldest] = flows;
    if (flows.size > mostFlows && eldest) end(...eldest);
    void firstOf(gateway, port, parts.order()).then((stream) => {
      if (!stream || flow.ended) {
        stream?.destroy();
        return end(key, flow);
      }
      flow.stream = stream;
      stream.on('error', () => end(key, flow));
      stream.on('end', () => end(key, flow));
      stream.on('close', () => end(key, flow));
      onDatagrams(stream, (datagram) => {
        flow.lastAtMs = clock.monotonic();
        if (!closed) socket.send(datagram, from, address);
      });
      stream.resume();
      for (const datagram of flow.early.splice(0)) sendDatagram(stream, datagram);
    });
    return flow;
  };

  socket.on('error', parts.failed);
  socket.on('message', (datagram, { address, port: from }) => {
    const key = `${address}:${from}`;
    const flow = flows.get(key) ?? begin(key, address, from);
    flow.lastAtMs = clock.monotonic();
    if (flow.stream) sendDatagram(flow.stream, datagram);
    else if (flow.early.length < mostEarly) flow.early.push(datagram);
  });
  socket.bind(port, '127.0.0.1');
  return {
    close() {
      if (closed) return;
      closed = true;
      for (const [key, flow] of flows) end(key, flow);
      try {
        socket.close();
      } catch {
        // A socket that could not be bound may be closed already.
      }
    },
    tick() {
      const before = clock.monotonic() - idleMs;
      for (const [key, flow] of flows) if (flow.lastAtMs < before) end(key, flow);
    },
  };
}

/** The first node that the gateway has a way to. Whether somebody listens there, only the flow itself can tell. */
async function firstOf(gateway: string, port: number, order: readonly string[]): Promise<Socket | undefined> {
  for (const address of order) {
    const stream = await through(gateway, `udp ${address}:${port}`);
    if (stream) return stream;
  }
  return undefined;
}
