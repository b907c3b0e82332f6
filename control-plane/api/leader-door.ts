/** What only the leader can do, asked of it by a replica that follows: nodes have their sessions there. */
import type * as grpc from '@grpc/grpc-js';
import type { RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import {
  type ExecInput,
  type ExplainRequest,
  type ExplainResponse,
  type NetProbeRequest,
  type NetProbeUpdate,
  OperatorClient,
  type ScalingRequest,
  type ScalingResponse,
  type StatsRequest,
  type StatsResponse,
} from '#proto/gen/gantry/v1/operator.ts';
import { call, channelOptions, faultOf } from '#proto/rpc.ts';
import { callerStream } from '#proto/rpc-stream.ts';
import type { MessageStream } from '#proto/stream.ts';

export interface LeaderDoor {
  exec(): MessageStream<RelayFrame, ExecInput>;
  /** Faults: `unavailable`, and the leader's own. */
  stats(request: StatsRequest): Promise<StatsResponse>;
  scaling(request: ScalingRequest): Promise<ScalingResponse>;
  explain(request: ExplainRequest): Promise<ExplainResponse>;
  /** Faults as those of stats. */
  netProbe(request: NetProbeRequest, signal: AbortSignal): AsyncIterable<NetProbeUpdate>;
}

const statsTimeoutMs = 10_000;
/** A follower knows nearly as much: it says so rather than let people wait. */
const explainTimeoutMs = 2_000;

/** Doors to leaders, one connection for each address; `close` forgets them all: what is open goes on. */
export function leaderDoors(credentials: () => grpc.ChannelCredentials): {
  at(address: string): LeaderDoor;
  close(): void;
} {
  const clients = new Map<string, OperatorClient>();
  return {
    at(address) {
      const client = clients.get(address) ?? new OperatorClient(address, credentials(), channelOptions);
      clients.set(address, client);
      return {
        exec: () => callerStream(client.exec()),
        stats: (request) => call(client, OperatorClient.service.stats, request, { timeoutMs: statsTimeoutMs }),
        scaling: (request) => call(client, OperatorClient.service.scaling, request, { timeoutMs: statsTimeoutMs }),
        explain: (request) => call(client, OperatorClient.service.explain, request, { timeoutMs: explainTimeoutMs }),
        netProbe: (request, signal) => passOn(client.netProbe(request), signal),
      };
    },
    close() {
      for (const client of clients.values()) client.close();
      clients.clear();
    },
  };
}

/** A server's stream, message by message; `signal` ends it. Faults: the leader's own. */
async function* passOn<Message>(
  stream: grpc.ClientReadableStream<Message>,
  signal: AbortSignal,
): AsyncGenerator<Message> {
  const abort = () => stream.cancel();
  signal.addEventListener('abort', abort, { once: true });
  try {
    for await (const message of stream) yield message;
  } catch (error) {
    throw faultOf(error);
  } finally {
    signal.removeEventListener('abort', abort);
    stream.cancel();
  }
}

/** Joins two streams until both have ended; whoever is slow makes the other wait. */
export function join<A, B>(caller: MessageStream<A, B>, callee: MessageStream<B, A>): void {
  caller.listen(passing(caller, callee));
  callee.listen(passing(callee, caller));
}

function passing<In, Out>(from: MessageStream<In, Out>, to: MessageStream<Out, In>): Parameters<typeof from.listen>[0] {
  return {
    message(message) {
      if (!to.send(message)) from.pause();
    },
    // `from` takes more again: what feeds it may go on.
    drain: () => to.resume(),
    closed: (fault) => to.close(fault),
  };
}
