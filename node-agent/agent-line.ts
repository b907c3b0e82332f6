/** A connection of this node to a replica, over gRPC with its certificate. It begins to connect at once, whether or not anything is said over it. */
import * as grpc from '@grpc/grpc-js';
import type { TlsIdentity } from '#proto/certificates.ts';
import { AgentClient } from '#proto/gen/gantry/v1/agent.ts';
import { ownConnection } from '#proto/rpc.ts';
import type { Line } from './warm-lines.ts';

export interface AgentLine extends Line {
  readonly client: AgentClient;
}

/** Its pings go on while nothing is said, so that one whose other end is gone is noticed; grpc-js would close it after half an hour. */
const standing: grpc.ChannelOptions = {
  ...ownConnection,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.client_idle_timeout_ms': 2 ** 31 - 1,
};

/** `ended`: it could not be opened, or is open no more; told each time, and never at once. */
export function agentLine(
  address: string,
  { keyPem, certificatePem, caPem }: TlsIdentity,
  ended: () => void,
): AgentLine {
  const { READY, TRANSIENT_FAILURE } = grpc.connectivityState;
  const client = new AgentClient(
    address,
    grpc.credentials.createSsl(Buffer.from(caPem), Buffer.from(keyPem), Buffer.from(certificatePem)),
    standing,
  );
  const channel = client.getChannel();
  let opened = false;
  let closed = false;
  const look = () => {
    if (closed) return;
    const state = channel.getConnectivityState(!opened);
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => queueMicrotask(look));
    if (state === READY) opened = true;
    else if (opened || state === TRANSIENT_FAILURE) ended();
  };
  look();
  return {
    client,
    isOpen: () => channel.getConnectivityState(false) === READY,
    close() {
      closed = true;
      client.close();
    },
  };
}
