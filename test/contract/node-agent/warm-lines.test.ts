/** Connections that stand before they are needed, over real gRPC with mutual TLS: which TCP connections a session and beats take. */
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import { agentService, agentServiceDefinition } from '#control-plane/dispatch/server.ts';
import { createRequest } from '#control-plane/security/certificates.ts';
import { LiveCertificate } from '#control-plane/security/live-certificate.ts';
import { initPki, type Pki } from '#control-plane/security/pki.ts';
import { serveTcp } from '#control-plane/servers.ts';
import { grpcTransport } from '#node-agent/grpc-transport.ts';
import { grpcBeatLines } from '#node-agent/watchdog/grpc-beat-line.ts';
import type { TlsIdentity } from '#proto/certificates.ts';
import type { AgentMessage, Beat, BeatAck, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { newId, seededRandom, systemRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { MessageStream } from '#proto/stream.ts';
import { nothingHeld } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-warm-'));
let pki: Pki;
let scope: Scope;
let clock: FakeClock;
/** Before the replica: it counts who connects, and can cut them off. */
let way: Server;
const open = new Set<Socket>();
let connections = 0;
let address: string;

beforeAll(async () => {
  pki = await initPki({ dataDir: join(directory, 'm1'), name: 'm1', advertise: '127.0.0.1' });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

beforeEach(async () => {
  [scope, clock, connections] = [new Scope(), new FakeClock(), 0];
  const certificate = new LiveCertificate(pki.authority.certificate, pki.pair('server'));
  // It does not lead: it says who does, and takes no beats.
  const follower = {
    connect: (_: string, stream: MessageStream<AgentMessage, ControlMessage>) => {
      stream.send({ body: { $case: 'redirect', value: { address: 'm2:7400', epoch: 1 } } });
      stream.close();
    },
    beats: (_: string, stream: MessageStream<Beat, BeatAck>) =>
      stream.listen({ message: () => stream.close(new Fault('unavailable', 'it does not lead')), closed() {} }),
  };
  const handlers = agentService({ dispatch: follower as never as Dispatch, renew: () => Promise.reject(new Error()) });
  const at = { address: '127.0.0.1', port: 0, flag: '--agent-port' };
  const served = [{ definition: agentServiceDefinition, handlers }];
  const port = await serveTcp(scope, at, certificate.credentials({ clients: true }), served);
  way = createServer((socket) => {
    connections++;
    open.add(socket);
    const onwards = connect(port, '127.0.0.1');
    for (const [one, other] of [[socket, onwards] as const, [onwards, socket] as const]) {
      one.pipe(other);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => way.listen(0, '127.0.0.1', resolve));
  address = `127.0.0.1:${(way.address() as AddressInfo).port}`;
});
afterEach(async () => {
  for (const socket of open) socket.destroy();
  way.close();
  await scope.close();
});

async function aCertificate(): Promise<TlsIdentity> {
  const { csrPem, key } = await createRequest('agent');
  const as = {
    csrPem,
    role: 'node',
    hosts: [],
    server: false,
    lifetimeMs: 3_600_000,
    commonName: newId(systemRandom),
  } as const;
  return { keyPem: key, certificatePem: await pki.authority.issue(as), caPem: pki.authority.certificate };
}

/** A node's two ways to speak to replicas. */
const speakers = {
  session: (identity: () => TlsIdentity) => {
    const transport = grpcTransport(identity, undefined, clock, () => () => {}, seededRandom(1));
    return {
      keepWarm: (addresses: readonly string[]) => transport.keepWarm(addresses),
      /** Says hello, and is sent on. */
      async speak() {
        const connection = transport.connect(address);
        const stream = connection.session();
        const said = new Promise<string | undefined>((resolve) => {
          stream.listen({ message: ({ body }) => resolve(body?.$case), closed: () => resolve(undefined) });
        });
        stream.send({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [], held: nothingHeld } } });
        const isAnswered = (await said) === 'redirect';
        if (isAnswered) connection.release();
        else connection.close();
        return isAnswered;
      },
    };
  },
  beats: (identity: () => TlsIdentity) => {
    const lines = grpcBeatLines(clock, seededRandom(1));
    return {
      keepWarm: (addresses: readonly string[]) => lines.keepWarm(addresses, identity()),
      /** Beats, and is refused. */
      async speak() {
        const line = lines.dial(address, identity());
        const stream = line.open();
        const ended = new Promise<Fault | undefined>((resolve) => {
          stream.listen({ message() {}, closed: resolve });
        });
        stream.send({ sequence: 1, session: 1, loopLagMs: 0, condition: 'running', probes: [], atMs: 0 });
        const isAnswered = (await ended)?.message === 'it does not lead';
        if (isAnswered) line.release();
        else line.close();
        return isAnswered;
      },
    };
  },
} as const;

for (const kind of ['session', 'beats'] as const) {
  /** Lets time pass until there is a connection beside so many. */
  const connected = (before: number) =>
    eventually(async () => {
      await clock.pass(500);
      return connections > before && open.size > 0;
    });

  /** Speaks until it takes no connection of its own: one that was only begun is not waited for. */
  const speaksOver = (node: { speak(): Promise<boolean> }) =>
    eventually(async () => {
      const before = connections;
      return (await node.speak()) && connections === before;
    });

  it(`${kind}: whoever is spoken to next has been connected with before, and stays so when it has sent the node on`, async () => {
    const identity = await aCertificate();
    const node = speakers[kind](() => identity);
    node.keepWarm([address]);
    await connected(0);
    await speaksOver(node);
    const before = connections;
    for (let times = 0; times < 5; times++) expect(await node.speak()).toBe(true);
    expect(connections).toBe(before);
    node.keepWarm([]);
    await eventually(() => open.size === 0);
  });

  it(`${kind}: a connection that has ended is not used, and there is another one later`, async () => {
    const identity = await aCertificate();
    const node = speakers[kind](() => identity);
    node.keepWarm([address]);
    await node.speak();
    expect(connections).toBe(1);
    for (const socket of open) socket.destroy();
    await eventually(() => open.size === 0);
    await connected(1);
    await speaksOver(node);
    node.keepWarm([]);
  });

  it(`${kind}: another certificate is shown over another connection, and the one of before is closed`, async () => {
    let identity = await aCertificate();
    const node = speakers[kind](() => identity);
    node.keepWarm([address]);
    expect(await node.speak()).toBe(true);
    identity = await aCertificate();
    node.keepWarm([address]);
    await connected(1);
    await eventually(() => open.size === 1);
    await speaksOver(node);
    node.keepWarm([]);
  });
}
