/** What the sandbox asks the control plane as any operator could: join tokens, who is ready, what is published. */
import { credentials } from '@grpc/grpc-js';
import { OperatorClient } from '#proto/gen/gantry/v1/operator.ts';
import { call, channelOptions } from '#proto/rpc.ts';

/** A port that services publish on every node. */
export interface PublishedPort {
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
}

/** The questions; every one rejects with a Fault while no control plane answers. */
export interface Operator {
  createToken(): Promise<string>;
  readyNodes(): Promise<{ readonly name: string; readonly address: string; readonly bootId: string }[]>;
  /** Ids of all members, whatever their state. */
  nodeIds(): Promise<string[]>;
  /** Published TCP and UDP ports of all services. */
  publishedPorts(): Promise<PublishedPort[]>;
  close(): void;
}

/** Talks to the control plane behind a unix socket. */
export function connectOperator(socket: string): Operator {
  const client = new OperatorClient(`unix:${socket}`, credentials.createInsecure(), channelOptions);
  const list = (kind: string) =>
    call(
      client,
      OperatorClient.service.list,
      { kind, service: '', node: '', project: '', all: false },
      { timeoutMs: 3_000 },
    );
  return {
    async createToken() {
      const made = await call(
        client,
        OperatorClient.service.createToken,
        { lifetimeMs: 3_600_000, uses: 0 },
        { timeoutMs: 3_000 },
      );
      return made.token;
    },
    async readyNodes() {
      const { nodes } = await list('node');
      return nodes.flatMap(({ node }) =>
        node?.state === 'ready' ? [{ name: node.name, address: node.address, bootId: node.bootId }] : [],
      );
    },
    async nodeIds() {
      const { nodes } = await list('node');
      return nodes.flatMap(({ node }) => (node ? [node.id] : []));
    },
    async publishedPorts() {
      const { services } = await list('service');
      const ports = services.flatMap(({ service }) => service?.spec?.ports ?? []);
      return ports.flatMap(({ published, protocol }) =>
        published > 0 && protocol !== 'sctp' ? [{ port: published, protocol: protocol === 'udp' ? 'udp' : 'tcp' }] : [],
      );
    },
    close: () => client.close(),
  };
}
