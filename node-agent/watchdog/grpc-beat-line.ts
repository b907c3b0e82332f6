/** Beats over gRPC with the node's certificate, on a TCP connection that nothing else shares. */
import * as grpc from '@grpc/grpc-js';
import { AgentClient, type Beat, type BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import { ownConnection } from '#proto/rpc.ts';
import { callerStream } from '#proto/rpc-stream.ts';
import type { BeatLine } from './beats.ts';
import type { BeatIdentity } from './protocol.ts';

export function grpcBeatLine(address: string, { keyPem, certificatePem, caPem }: BeatIdentity): BeatLine {
  const client = new AgentClient(
    address,
    grpc.credentials.createSsl(Buffer.from(caPem), Buffer.from(keyPem), Buffer.from(certificatePem)),
    ownConnection,
  );
  let call: grpc.ClientDuplexStream<Beat, BeatAck> | undefined;
  return {
    open() {
      call = client.heartbeat();
      return callerStream(call);
    },
    close() {
      // Closing a channel lets its calls go on.
      call?.cancel();
      client.close();
    },
  };
}
