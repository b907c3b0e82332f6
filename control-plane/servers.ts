/** The doors of a control plane: gRPC servers on TCP with certificates, and the operator's unix socket. */
import { chmod, mkdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { describe, Fault } from '#proto/kernel/errors.ts';
import type { Scope } from '#proto/kernel/scope.ts';
import { serverOptions } from '#proto/rpc.ts';

/** A service and its handlers. */
export interface Served {
  readonly definition: grpc.ServiceDefinition;
  readonly handlers: grpc.UntypedServiceImplementation;
}

/** Serves until the scope closes; returns the port. `messageBytes`: the longest message taken; 64 MiB unless told. Faults: `unavailable` where the address is taken or not ours. */
export async function serveTcp(
  scope: Scope,
  at: { readonly address: string; readonly port: number; readonly flag: string; readonly messageBytes?: number },
  credentials: grpc.ServerCredentials,
  services: readonly Served[],
): Promise<number> {
  const server = serverOf(services, at.messageBytes);
  const host = at.address.includes(':') ? `[${at.address}]` : at.address;
  const port = await bind(server, `${host}:${at.port}`, credentials).catch((error) => {
    throw new Fault('unavailable', `cannot listen at ${host}:${at.port}: ${describe(error)}`, {
      cause: error,
      remedy: `stop what uses it, or choose another ${at.flag}`,
    });
  });
  scope.defer(() => stop(server));
  return port;
}

/** Serves on a socket of mode 0600 until the scope closes. Faults: `unavailable` where somebody else already does. */
export async function serveSocket(scope: Scope, path: string, services: readonly Served[]): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  if (await answers(path))
    throw new Fault('unavailable', `another control plane listens at ${path}`, {
      remedy: 'stop it, or choose another --socket',
    });
  await unlink(path).catch(() => {});
  const server = serverOf(services);
  // Nobody may connect in the moment between bind and chmod.
  const mask = process.umask(0o177);
  try {
    await bind(server, `unix:${path}`, grpc.ServerCredentials.createInsecure());
  } catch (error) {
    throw new Fault('unavailable', `cannot listen at ${path}: ${describe(error)}`, {
      cause: error,
      remedy: 'choose another --socket',
    });
  } finally {
    process.umask(mask);
  }
  await chmod(path, 0o600);
  scope.defer(async () => {
    await stop(server);
    await unlink(path).catch(() => {});
  });
}

function serverOf(services: readonly Served[], messageBytes?: number): grpc.Server {
  const server = new grpc.Server({
    ...serverOptions,
    ...(messageBytes && { 'grpc.max_receive_message_length': messageBytes }),
  });
  for (const { definition, handlers } of services) server.addService(definition, handlers);
  return server;
}

function bind(server: grpc.Server, address: string, credentials: grpc.ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) =>
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port))),
  );
}

/** Whether somebody listens there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** At once: whoever has a call open dials again, here or at another replica. */
async function stop(server: grpc.Server): Promise<void> {
  server.forceShutdown();
}
