/** How commands and the keeper talk: one JSON line there, one or more back, over the sandbox's own unix socket. */
import { connect, type Socket } from 'node:net';
import { Fault, type FaultCode } from '#proto/kernel/errors.ts';
import { type Layout, notRunning } from './layout.ts';
import type { PublishedPort } from './operator.ts';
import type { Topology } from './topology.ts';

export type Request =
  | { readonly op: 'up'; readonly hosts: number; readonly wishes: Wishes }
  | { readonly op: 'status' }
  | { readonly op: 'add' }
  | { readonly op: HostOp; readonly host: string };

/** Variables by their name, for each host. */
export type Settings = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** What an `up` may ask for beside a number of hosts; what it does not name stays as it was. */
export type Wishes = Partial<Topology> & {
  readonly bare?: boolean;
  /** How many; fixed for as long as the sandbox exists, as its wires. */
  readonly managers?: number;
  readonly settings?: Settings;
};

export type HostOp = 'start' | 'kill' | 'crash' | 'cut' | 'join';

export interface HostStatus {
  readonly name: string;
  readonly role: 'manager' | 'worker';
  readonly address: string;
  readonly power: 'on' | 'off';
  readonly cable: 'plugged' | 'cut';
}

export interface SandboxStatus {
  readonly name: string;
  readonly bare: boolean;
  readonly topology: Topology;
  readonly hosts: readonly HostStatus[];
  readonly controlPlane: 'answering' | 'silent' | 'none';
  /** Names of nodes that the control plane calls ready. */
  readonly ready: readonly string[];
  /** Ports of 127.0.0.1 that lead into the sandbox, and those that could not be had. */
  readonly ports: readonly (PublishedPort & { readonly problem?: string })[];
}

export type Reply =
  | { readonly kind: 'progress'; readonly text: string }
  | { readonly kind: 'done'; readonly status: SandboxStatus }
  | { readonly kind: 'fault'; readonly code: FaultCode; readonly message: string; readonly remedy?: string };

/** Sends one request to the keeper. Rejects with `unavailable` where none listens, else with the fault it names. */
export function ask(
  layout: Layout,
  request: Request,
  onProgress: (text: string) => void = () => {},
): Promise<SandboxStatus> {
  return new Promise((resolve, reject) => {
    const socket = connect(layout.keeperSocket);
    let settled = false;
    const fail = (cause?: unknown) => {
      if (!settled) reject(notRunning(layout, cause));
    };
    socket.on('error', fail);
    socket.on('close', () => fail());
    socket.on('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    onLines(socket, (line) => {
      const reply = JSON.parse(line) as Reply;
      if (reply.kind === 'progress') return onProgress(reply.text);
      settled = true;
      socket.end();
      if (reply.kind === 'done') resolve(reply.status);
      else reject(new Fault(reply.code, reply.message, reply.remedy === undefined ? {} : { remedy: reply.remedy }));
    });
  });
}

/** Answers one connection; `handle` gets each request and a way to report progress. */
export function answer(
  socket: Socket,
  handle: (request: Request, progress: (text: string) => void) => Promise<SandboxStatus>,
): void {
  const send = (reply: Reply) => socket.writable && socket.write(`${JSON.stringify(reply)}\n`);
  socket.on('error', () => {}); // The command was interrupted; the work goes on.
  onLines(socket, (line) => {
    handle(JSON.parse(line) as Request, (text) => send({ kind: 'progress', text })).then(
      (status) => send({ kind: 'done', status }),
      (error: unknown) => {
        const fault =
          error instanceof Fault
            ? error
            : new Fault('internal', `the sandbox's keeper failed: ${String(error)}`, { cause: error });
        send({
          kind: 'fault',
          code: fault.code,
          message: fault.message,
          ...(fault.remedy === undefined ? {} : { remedy: fault.remedy }),
        });
      },
    );
  });
}

function onLines(socket: Socket, take: (line: string) => void): void {
  let rest = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line);
  });
}
