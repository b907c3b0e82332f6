/** Who may call what: a caller is what its certificate says, or, on the operator's socket, an operator. */
import type * as grpc from '@grpc/grpc-js';
import { Fault } from '#proto/kernel/errors.ts';
import { isId, type NodeId, nodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { statusOf } from '#proto/rpc.ts';

export type Identity =
  | { readonly role: 'node'; readonly node: NodeId; readonly enrolment: string | undefined }
  | { readonly role: 'operator'; readonly name: string }
  | { readonly role: 'control-plane'; readonly name: string };

/** Decides on a caller; throws a Fault to refuse it. */
export type Rule = (identity: Identity) => void;

type Call = Pick<grpc.ServerUnaryCall<unknown, unknown>, 'getAuthContext'>;
interface Emitter {
  emit(event: 'error', error: unknown): void;
}

/** Whose certificate the call came with. Faults: `unauthenticated`. */
export function identityOf(call: Call): Identity {
  const subject = call.getAuthContext().sslPeerCertificate?.subject;
  const role = only(subject?.O);
  const name = only(subject?.CN);
  if (role === 'node' && name && isId(name)) return { role, node: nodeId(name), enrolment: only(subject?.OU) };
  if ((role === 'operator' || role === 'control-plane') && name) return { role, name };
  throw new Fault('unauthenticated', 'the call came without a certificate of this cluster', {
    remedy: 'join the machine with a token, or use a context file from `gantry context create`',
  });
}

/** Who asks, for the history: the name in an operator's certificate; empty on the socket of a manager, where the file's mode let them in. */
export function operatorOf(call: Call): string {
  const subject = call.getAuthContext().sslPeerCertificate?.subject;
  return only(subject?.O) === 'operator' ? (only(subject?.CN) ?? '') : '';
}

/** Nodes that are members: one that was removed, or whose place was taken by another, is refused from then on. */
export function onlyMembers(record: (node: NodeId) => Pick<Node, 'enrolment'> | undefined): Rule {
  return (identity) => {
    if (identity.role !== 'node') throw forbidden(identity, 'this is for nodes');
    const member = record(identity.node);
    if (!member || member.enrolment !== identity.enrolment)
      throw new Fault('unauthenticated', `node ${identity.node} is not a member of this cluster`, {
        remedy:
          'it was removed, or another machine joined in its place: delete `identity` in its data directory, and join it again with a new token',
      });
  };
}

/** Members and those that were: for what looks itself whether it talks to a member. */
export const onlyNodes: Rule = (identity) => {
  if (identity.role !== 'node') throw forbidden(identity, 'this is for nodes');
};

/** Replicas too: they pass on what an operator asked of them. */
export const onlyOperators: Rule = (identity) => {
  if (identity.role === 'node') throw forbidden(identity, 'this is for operators');
};

export const onlyReplicas: Rule = (identity) => {
  if (identity.role !== 'control-plane') throw forbidden(identity, 'this is for the control plane');
};

/** For what is only done on a manager, where the socket's mode lets in who may. */
export const nobodyFromElsewhere: Rule = () => {
  throw new Fault('forbidden', "this gives away the cluster's keys, and is for a manager's own socket alone", {
    remedy: 'run it as root on a manager',
  });
};

/** The same service, each of its methods behind `rule`, or behind its own of `others`. */
export function guarded<S extends grpc.UntypedServiceImplementation>(
  definition: grpc.ServiceDefinition,
  service: S,
  rule: Rule,
  others: { readonly [method in keyof S]?: Rule } = {},
): S {
  const methods: grpc.UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(definition)) {
    const handler = service[name] as (call: unknown, callback?: grpc.sendUnaryData<unknown>) => void;
    methods[name] = ((call: Call & Emitter, callback?: grpc.sendUnaryData<unknown>) => {
      try {
        (others[name] ?? rule)(identityOf(call));
      } catch (error) {
        refuse(method, error, call, callback);
        return;
      }
      handler.call(service, call, callback);
    }) as grpc.UntypedHandleCall;
  }
  return methods as S;
}

/** A service whose every method refuses, for that reason. */
export function refusing(definition: grpc.ServiceDefinition, why: Fault): grpc.UntypedServiceImplementation {
  const handlers = Object.entries(definition).map(([name, method]) => [
    name,
    (call: Emitter, callback?: grpc.sendUnaryData<unknown>) => refuse(method, why, call, callback),
  ]);
  return Object.fromEntries(handlers) as grpc.UntypedServiceImplementation;
}

/** Only a call with one response has a callback to refuse it by. */
function refuse(
  method: { readonly responseStream: boolean },
  error: unknown,
  call: Emitter,
  callback?: grpc.sendUnaryData<unknown>,
): void {
  if (method.responseStream) call.emit('error', statusOf(error));
  else callback?.(statusOf(error));
}

function forbidden(identity: Identity, why: string): Fault {
  return new Fault('forbidden', `${why}, and the caller's certificate has the role ${identity.role}`);
}

/** A subject with two names is nobody. */
function only(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? undefined : value;
}
