/** The control plane over gRPC with the node's certificate: a connection of its own for each dial, so that a dead one can be dropped. */
import * as grpc from '@grpc/grpc-js';
import type { TlsIdentity } from '#proto/certificates.ts';
import { AgentClient, AgentService, type RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import { callerStream } from '#proto/rpc-stream.ts';
import { knock } from './knock.ts';
import type { Connection, Transport } from './transport.ts';

/** Options of a channel that never shares its TCP connection: the default pool would hand a new dial the dead one. */
export const ownConnection: grpc.ChannelOptions = { ...channelOptions, 'grpc.use_local_subchannel_pool': 1 };

/** `identity` is asked at each dial, so that a renewed certificate is used from the next one on. */
export function grpcTransport(identity: () => TlsIdentity): Transport {
  return {
    connect(address): Connection {
      const { keyPem, certificatePem, caPem } = identity();
      const credentials = grpc.credentials.createSsl(
        Buffer.from(caPem),
        Buffer.from(keyPem),
        Buffer.from(certificatePem),
      );
      const client = new AgentClient(address, credentials, ownConnection);
      const calls = new Set<{ cancel(): void }>();
      const cancel = () => {
        for (const active of calls) active.cancel();
      };
      const isOpen = () => client.getChannel().getConnectivityState(false) === grpc.connectivityState.READY;
      const endKnocking = knock({ address, isOpen, opened: cancel });
      const tracked = <C extends grpc.ClientDuplexStream<never, unknown>>(active: C): C => {
        calls.add(active);
        active.on('end', () => calls.delete(active));
        active.on('error', () => calls.delete(active));
        return active;
      };
      return {
        session: () => callerStream(tracked(client.session() as never)),
        relay: () => callerStream<RelayFrame, RelayFrame>(tracked(client.relay() as never)),
        renew: (csrPem) => call(client, AgentService.renew, { csrPem }),
        close() {
          endKnocking();
          // Closing a channel lets its calls go on.
          cancel();
          client.close();
        },
      };
    },
  };
}
