/** Beats over gRPC with the node's certificate, on TCP connections that nothing else shares. */
import type * as grpc from '@grpc/grpc-js';
import type { Beat, BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import { callerStream } from '#proto/rpc-stream.ts';
import { agentLine } from '../agent-line.ts';
import { WarmLines } from '../warm-lines.ts';
import type { BeatLine } from './beats.ts';
import type { BeatIdentity } from './protocol.ts';

export interface BeatLines {
  dial(address: string, identity: BeatIdentity): BeatLine;
  /** As `Heartbeat.keepWarm`; without an identity, with that of before. */
  keepWarm(addresses: readonly string[], identity?: BeatIdentity): void;
}

export function grpcBeatLines(clock: Clock, random: Random): BeatLines {
  let shown: BeatIdentity | undefined;
  const lines = new WarmLines({
    clock,
    random,
    dial: (address, ended) => agentLine(address, shown!, ended),
  });
  const use = (identity: BeatIdentity) => {
    if (identity.certificatePem !== shown?.certificatePem || identity.caPem !== shown.caPem) lines.renew();
    shown = identity;
  };
  return {
    dial(address, identity) {
      use(identity);
      const line = lines.take(address);
      let call: grpc.ClientDuplexStream<Beat, BeatAck> | undefined;
      return {
        open() {
          call = line.client.heartbeat();
          return callerStream(call);
        },
        close() {
          // Closing a channel lets its calls go on.
          call?.cancel();
          line.close();
        },
        release() {
          call?.cancel();
          lines.giveBack(address, line);
        },
      };
    },
    keepWarm(addresses, identity) {
      lines.keep(addresses);
      if (identity) use(identity);
    },
  };
}
