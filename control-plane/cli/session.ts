/** What every command starts with: how to print, and whom to talk to. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { createColors } from 'picocolors';
import { whyRefused } from '#proto/certificates.ts';
import { OperatorClient, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { call, faultOf, type UnaryMethod } from '#proto/rpc.ts';
import { type Context, currentContext, readContext } from './context-file.ts';
import { firstToAnswer, type Target } from './targets.ts';
import { clockTime } from './words.ts';

export interface CommonOptions {
  readonly json?: true;
  readonly socket?: string;
  readonly context?: string;
  readonly sandbox?: string;
}

export type Colours = ReturnType<typeof createColors>;

export interface Session {
  readonly json: boolean;
  readonly colours: Colours;
  /** Of standard output. */
  readonly isTerminal: boolean;
  readonly client: OperatorClient;
  /** Where the client talks to, for people. */
  readonly target: string;
  /** One unary call; rejects with a Fault that says where it was asked. */
  call<Request, Response>(method: UnaryMethod<Request, Response>, request: Request): Promise<Response>;
  /** The messages of a server's stream; rejects with a Fault. */
  stream<Message>(stream: grpc.ClientReadableStream<Message>): AsyncIterable<Message>;
  print(text: string): void;
  printJson(value: unknown): void;
}

const localSocket = '/run/gantry/control-plane.sock';
const callTimeoutMs = 20_000;
/** For asking a manager whether it has lost the others. */
const quorumTimeoutMs = 2_000;
/** Between asking one manager and another. */
const pauseMs = 200;

const { service } = OperatorClient;
/** Asked twice, these come to the same as asked once: where one manager dies before it answers, another one is asked. */
const repeatable: ReadonlySet<string> = new Set(
  [
    ...[service.list, service.inspect, service.info, service.explain, service.whatIf, service.history],
    ...[service.rolloutStatus, service.readConfig, service.stats, service.scaling],
    // These say how things shall be, not what shall be done.
    ...[service.apply, service.scale, service.pauseRollout, service.suspendJob, service.updateNode, service.setCluster],
    ...[service.putDocument, service.putCredential],
  ].map(({ path }) => path),
);

/** Of the managers of a sandbox; that of the first where there are none yet. */
function sandboxSockets(name: string): string[] {
  const dir = join(process.env.GANTRY_SANDBOX_ROOT ?? '/var/lib/gantry/sandbox', name);
  const managers = existsSync(dir) ? readdirSync(dir).filter((entry) => /^m\d$/.test(entry)) : [];
  return (managers.length > 0 ? managers.sort() : ['m1']).map((one) => join(dir, one, 'run/gantry/control-plane.sock'));
}

/** Runs a command with a session, and closes it after. */
export async function withSession<T>(options: CommonOptions, action: (session: Session) => Promise<T>): Promise<T> {
  const { targets, target, used } = targetsOf(options);
  const client = await firstToAnswer(targets);
  const renewed = used && import('./context-renewal.ts').then((it) => it.renewContext(used.name, used.context, client));
  const session = openSession(options, client, targets, { name: target, ...(used && { context: used.name }) });
  try {
    return await action(session);
  } catch (error) {
    throw (used && isFault(error, 'unavailable') && (await refusal(used))) || error;
  } finally {
    await renewed;
    session.close();
  }
}

/** Who refuses a certificate only hangs up. */
async function refusal({ name, context }: UsedContext): Promise<Fault | undefined> {
  const { ca: caPem, certificate: certificatePem, key: keyPem, addresses } = context;
  const why = await whyRefused({ caPem, certificatePem, keyPem }, addresses[0]!, systemClock.now());
  if (why === undefined) return undefined;
  return new Fault('unauthenticated', `context ${name} is no longer good: ${why}`, {
    remedy: `make another on a manager: gantry context create ${name}`,
  });
}

function openSession(
  options: CommonOptions,
  first: OperatorClient,
  targets: readonly Target[],
  asked: Asked,
): Session & { close(): void } {
  const opened = [first];
  let client = first;
  const print = (text: string) => void process.stdout.write(`${text}\n`);
  let noted = false;
  /** Beside the answer, which scripts read. */
  const outdated = (asOfMs: number) => {
    if (!noted) process.stderr.write(`as of ${clockTime(asOfMs)}, no quorum: may be stale\n`);
    noted = true;
  };
  return {
    json: options.json === true,
    colours: createColors(coloured(process.stdout)),
    isTerminal: process.stdout.isTTY === true,
    get client() {
      return client;
    },
    target: asked.name,
    async call(method, request) {
      const deadline = systemClock.monotonic() + callTimeoutMs;
      for (;;) {
        try {
          return await call(client, method, request, { timeoutMs: deadline - systemClock.monotonic(), outdated });
        } catch (error) {
          const may = targets.length > 1 && repeatable.has(method.path) && isFault(error, 'unavailable', 'timeout');
          if (!may || systemClock.monotonic() + pauseMs >= deadline)
            throw (await withoutQuorum(client, error)) ?? reworded(error, asked);
        }
        await systemClock.sleep(pauseMs);
        client = await firstToAnswer(targets);
        opened.push(client);
      }
    },
    stream(stream) {
      // Who has it may fail before it reads, and never do: it then ends with the session, and nobody hears of that.
      stream.on('error', () => {});
      return messagesOf(stream, asked);
    },
    close() {
      for (const one of opened) one.close();
    },
    print,
    printJson: (value) => print(JSON.stringify(value, null, 2)),
  };
}

async function* messagesOf<Message>(stream: grpc.ClientReadableStream<Message>, asked: Asked): AsyncGenerator<Message> {
  try {
    for await (const message of stream) yield message;
  } catch (error) {
    throw reworded(error, asked);
  } finally {
    stream.cancel();
  }
}

/** Colours only where somebody looks: https://no-color.org. */
export function coloured(stream: { readonly isTTY?: boolean }): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  if (NO_COLOR) return false;
  return Boolean(FORCE_COLOR) || (stream.isTTY === true && TERM !== 'dumb');
}

interface UsedContext {
  readonly name: string;
  readonly context: Context;
}

function targetsOf(options: CommonOptions): {
  readonly targets: readonly Target[];
  readonly target: string;
  readonly used?: UsedContext;
} {
  const name = chosenContext(options);
  if (name !== undefined) {
    const context = readContext(name);
    const { addresses, ca, certificate, key } = context;
    const credentials = grpc.credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(certificate));
    return {
      targets: addresses.map((address) => ({ address, credentials })),
      target: `${addresses.join(', ')} (context ${name})`,
      used: { name, context },
    };
  }
  const sockets = chosenSockets(options);
  const credentials = grpc.credentials.createInsecure();
  return {
    targets: sockets.map((socket) => ({ address: `unix:${socket}`, credentials })),
    target: sockets.join(', '),
  };
}

/** Flags go before the environment, and that before what `gantry context use` says. */
function chosenContext(options: CommonOptions): string | undefined {
  const { GANTRY_CONTEXT, GANTRY_SOCKET } = process.env;
  const name =
    options.context ??
    (options.socket || options.sandbox ? undefined : GANTRY_CONTEXT || (GANTRY_SOCKET ? undefined : currentContext()));
  return name === 'local' ? undefined : name;
}

function chosenSockets(options: CommonOptions): readonly string[] {
  const { GANTRY_SOCKET } = process.env;
  if (options.socket) return [options.socket];
  if (options.sandbox) return sandboxSockets(options.sandbox);
  if (GANTRY_SOCKET) return [GANTRY_SOCKET];
  const known = [[localSocket], sandboxSockets('default')];
  return known.find((sockets) => sockets.some((path) => existsSync(path))) ?? [localSocket];
}

/** Who was asked, for people; `context`: where it was by one. */
interface Asked {
  readonly name: string;
  readonly context?: string;
}

/** A manager that lives and has lost the others can answer, and change nothing: that is why a call came to no end. */
async function withoutQuorum(client: OperatorClient, error: unknown): Promise<Fault | undefined> {
  if (!isFault(error, 'unavailable', 'timeout')) return undefined;
  const found: { sinceMs?: number } = {};
  const outdated = (ms: number) => Object.assign(found, { sinceMs: ms });
  await call(client, service.info, {}, { timeoutMs: quorumTimeoutMs, outdated }).catch(() => {});
  if (found.sinceMs === undefined) return undefined;
  return new Fault('unavailable', `no quorum since ${clockTime(found.sinceMs)}: nothing can be changed`, {
    cause: error,
    remedy: 'start the managers that are off; then look before you repeat it: what was asked may be done after all',
  });
}

function reworded(error: unknown, { name, context }: Asked): Fault {
  const fault = faultOf(error);
  const { metadata } = (fault.cause ?? {}) as Partial<grpc.ServiceError>;
  const saidByServer = (metadata?.get('gantry-fault').length ?? 0) > 0;
  if (saidByServer || (fault.code !== 'unavailable' && fault.code !== 'timeout')) return fault;
  return new Fault(fault.code, `the control plane at ${name} does not answer`, {
    cause: fault,
    remedy:
      context === undefined
        ? 'start one with gantry sandbox up, or name one with --socket, --context or --sandbox'
        : 'is it on, and does this machine reach it? Of another: gantry context use NAME, or "local"; see gantry context ls',
  });
}

export { OperatorService as methods };
