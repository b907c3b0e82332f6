/** One HTTP exchange with something inside a sandbox's network, through its gateway. */
import { request } from 'node:http';
import type { Socket } from 'node:net';
import { Fault } from '#proto/kernel/errors.ts';
import { through } from './through.ts';

/** A server inside the sandbox: the gateway that leads there, `address:port`, and the name it goes by. */
export interface Inside {
  readonly gateway: string;
  readonly target: string;
  readonly host: string;
}

export interface Answer {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: Buffer;
}

/** Sends one request. Rejects with `unavailable` where nobody answers. */
export async function exchange(
  inside: Inside,
  ask: { readonly method: string; readonly path: string; readonly type?: string; readonly body?: Buffer },
): Promise<Answer> {
  const socket = await through(inside.gateway, `tcp ${inside.target}`);
  if (!socket) throw new Fault('unavailable', `${inside.host} does not answer`, { remedy: 'gantry sandbox status' });
  return await speak(socket, inside, ask);
}

function speak(socket: Socket, inside: Inside, ask: Parameters<typeof exchange>[1]): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = {
      host: inside.host,
      connection: 'close',
      'content-length': String(ask.body?.length ?? 0),
      ...(ask.type ? { 'content-type': ask.type } : {}),
    };
    const outgoing = request(
      { createConnection: () => socket, method: ask.method, path: ask.path, headers },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('error', reject);
        incoming.on('end', () => {
          socket.destroy();
          resolve({
            status: incoming.statusCode ?? 0,
            location: incoming.headers.location,
            body: Buffer.concat(chunks),
          });
        });
      },
    );
    outgoing.on('socket', () => socket.resume()); // It comes paused, and HTTP now listens.
    outgoing.on('error', (cause) => reject(new Fault('unavailable', `${inside.host}: ${cause.message}`, { cause })));
    outgoing.end(ask.body);
  });
}
