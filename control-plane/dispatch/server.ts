/** The Agent service over gRPC: who calls is what the client certificate says, the rest is Dispatch. */
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import type * as grpc from '@grpc/grpc-js';
import {
  type AgentServer,
  AgentService,
  Assignment,
  AssignmentSet,
  ControlMessage,
  type EnrolResponse,
  type RenewRequest,
} from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { packing } from '#proto/packing.ts';
import { statusOf, unary } from '#proto/rpc.ts';
import { serverSideStream } from '#proto/rpc-stream.ts';
import { type Identity, identityOf } from '../security/access.ts';
import type { Dispatch } from './dispatch.ts';

/** Bytes of messages, and of items in them, that go to many sessions: each is encoded once. */
const encoded = new WeakMap<ControlMessage, Buffer>();
const encodedItems = new WeakMap<Assignment, Uint8Array>();
const fields = { assignments: (2 << 3) | 2, put: (5 << 3) | 2 };

function encodeOnce(message: ControlMessage): Buffer {
  let bytes = encoded.get(message);
  if (!bytes) {
    bytes = Buffer.from(encode(message));
    encoded.set(message, bytes);
  }
  return bytes;
}

function encode(message: ControlMessage): Uint8Array {
  if (message.body?.$case !== 'assignments') return ControlMessage.encode(message).finish();
  const { put, ...set } = message.body.value;
  const writer = new BinaryWriter().uint32(fields.assignments).fork();
  AssignmentSet.encode({ ...set, put: [] }, writer);
  for (const item of put) writer.uint32(fields.put).bytes(bytesOf(item));
  return writer.join().finish();
}

function bytesOf(item: Assignment): Uint8Array {
  let bytes = encodedItems.get(item);
  if (!bytes) {
    bytes = Assignment.encode(item).finish();
    encodedItems.set(item, bytes);
  }
  return bytes;
}

/** The service's definition, to be added to a server together with `agentService`. */
export const agentServiceDefinition = {
  ...AgentService,
  session: { ...AgentService.session, responseSerialize: encodeOnce },
} as const;

/** The node that calls, as its certificate says. Faults: `unauthenticated`, `forbidden`. */
function callingNode(call: Parameters<typeof identityOf>[0]): Extract<Identity, { role: 'node' }> {
  const identity = identityOf(call);
  if (identity.role === 'node') return identity;
  throw new Fault('forbidden', 'this is for nodes', {
    remedy: 'join the machine with a token: gantry token create',
  });
}

/** Handlers of the Agent service. `renew` signs a node's next certificate; the node must still be a member. */
export function agentService(parts: {
  readonly dispatch: Dispatch;
  readonly renew: (node: NodeId, request: RenewRequest) => Promise<EnrolResponse>;
}): AgentServer {
  const { dispatch } = parts;
  /** Runs `serve` for the calling node; who is none is refused. */
  const asNode = <In, Out>(
    serve: (caller: ReturnType<typeof callingNode>, call: grpc.ServerDuplexStream<In, Out>) => void,
  ): grpc.handleBidiStreamingCall<In, Out> => {
    return (call) => {
      try {
        serve(callingNode(call), call);
      } catch (error) {
        call.emit('error', statusOf(error));
      }
    };
  };
  return {
    session: asNode(({ node, enrolment }, call) =>
      dispatch.connect(node, packing(serverSideStream(call), encodeOnce), { enrolment }),
    ),
    heartbeat: asNode(({ node, enrolment }, call) => dispatch.beats(node, serverSideStream(call), { enrolment })),
    relay: asNode(({ node }, call) => dispatch.relays.accept(node, serverSideStream(call))),
    renew: unary(async (request, call) => parts.renew(callingNode(call).node, request)),
  };
}
