/** How the agent reaches a control plane replica. Implementations: grpc-transport, and one in memory for the simulator. */
import type { AgentMessage, ControlMessage, EnrolResponse, RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { MessageStream } from '#proto/stream.ts';

export interface Transport {
  /**
   * Never fails at once: what is wrong shows when a stream of it closes. `address` as HOST:PORT. `opened`: nobody was there when
   * it was dialled, and somebody is now; to be dialled again.
   */
  connect(address: string, opened?: () => void): Connection;
  /** To these replicas, and to no others, a connection is to stand open for the next dial; where the node's certificate is another one, they are made anew. */
  keepWarm(addresses: readonly string[]): void;
}

export interface Connection {
  session(): MessageStream<ControlMessage, AgentMessage>;
  relay(): MessageStream<RelayFrame, RelayFrame>;
  /** Has the node's next certificate signed. */
  renew(csrPem: string): Promise<EnrolResponse>;
  /** Its host answers at that address, whether or not anything has come over this connection: who is dialled is there, and may be slow. */
  isThere(): boolean;
  /** Drops it with all that runs over it. */
  close(): void;
  /** Ends all that runs over it. Its other end has just answered: it may be of use at the next dial. */
  release(): void;
}
