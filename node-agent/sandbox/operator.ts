/** What the sandbox asks the control plane as any operator could: join tokens, who is ready, what is published. */
import { credentials } from '@grpc/grpc-js';
import { OperatorClient } from '#proto/gen/gantry/v1/operator.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { call, channelOptions, type UnaryMethod } from '#proto/rpc.ts';

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

/** Talks to the control plane behind one of these unix sockets, those first that are likely to answer. */
export function connectOperator(sockets: () => readonly string[]): Operator {
  const clients = new Map<string, OperatorClient>();
  const clientOf = (socket: string) => {
    const client =
      clients.get(socket) ?? new OperatorClient(`unix:${socket}`, credentials.createInsecure(), channelOptions);
    clients.set(socket, client);
    return client;
  };
  const ask = async <Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
  ): Promise<Response> => {
    let failure = new Fault('unavailable', 'no manager is on');
    for (const socket of sockets()) {
      try {
        return await call(clientOf(socket), method, request, { timeoutMs: 3_000 });
      } catch (error) {
        if (!isFault(error, 'unavailable', 'timeout')) throw error;
        failure = error;
      }
    }
    throw failure;
  };
  const list = (kind: string) =>
    ask(OperatorClient.service.list, { kind, service: '', node: '', project: '', all: false });
  return {
    async createToken() {
      const made = await ask(OperatorClient.service.createToken, { lifetimeMs: 3_600_000, uses: 0 });
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
    close() {
      for (const client of clients.values()) client.close();
    },
  };
}
