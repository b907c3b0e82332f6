/** Some of the agents that all dial at once: each with its certificate, its session and its beats. Told who they are by a line of JSON, to dial and what they hold by the next, and to end by the last; says what comes by lines. */
import { createInterface } from 'node:readline';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import * as grpc from '@grpc/grpc-js';
import { AgentMessage, AgentService, Beat, BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { ownConnection } from '#proto/rpc.ts';

/** Many of them share one process and a part of a processor: what waits there is not dead. */
const patient: grpc.ChannelOptions = { ...ownConnection, 'grpc.keepalive_time_ms': 60_000 };

const againMs = 300;

/** What the process is told. */
export interface Dialling {
  readonly address: string;
  readonly caPem: string;
  readonly keyPem: string;
  readonly beatEveryMs: number;
  /** They are connected, for session and beats, before they are told to dial. */
  readonly warm: boolean;
  readonly agents: readonly { readonly certificatePem: string; readonly hello: string }[];
}

/** That they are to dial: `held` as in Hello, base64. */
export interface Dial {
  readonly held: string;
}

/** What it says: that it knows them; all that one was sent up to the end of its first full set, when its beats are answered too; and at the end the longest wait for a beat's answer, how many streams broke, and the processor time since it dialled. */
export type Said =
  | { readonly ready: true }
  | { readonly synced: number; readonly bytes: number; readonly messages: number }
  | { readonly longestBeatMs: number; readonly broken: number; readonly cpuMs: number };

/** What matters of a message, without reading all of it: an agent would, but it has a machine of its own. */
interface Seen {
  readonly bytes: number;
  readonly endsFull: boolean;
  readonly revision: number;
}

function see(buffer: Buffer): Seen {
  const reader = new BinaryReader(buffer);
  const seen = { bytes: buffer.length, endsFull: false, revision: 0 };
  const [field] = reader.tag();
  // What is packed is for many, and ends no set.
  if (field !== 2) return seen;
  const end = reader.uint32() + reader.pos;
  let full = false;
  let more = false;
  while (reader.pos < end) {
    const [number, type] = reader.tag();
    if (number === 2) seen.revision = Number(reader.int64());
    else if (number === 3) full = reader.bool();
    else if (number === 4) more = reader.bool();
    else if (number >= 5) break;
    else reader.skip(type);
  }
  seen.endsFull = full && !more;
  return seen;
}

const say = (said: Said) => process.stdout.write(`${JSON.stringify(said)}\n`);

/** One of them. As a real one does, it dials again what breaks. */
class Agent {
  /** The longest that a beat has waited for its answer, or its stream to be open. */
  longestBeatMs = 0;
  /** Streams that ended while they were wanted. */
  broken = 0;
  readonly #open: () => grpc.Client;
  readonly #hello: AgentMessage;
  readonly #said: (bytes: number, messages: number) => void;
  /** What its first full set took. */
  #synced: { readonly bytes: number; readonly messages: number } | undefined;
  #isBack = false;
  #bytes = 0;
  #messages = 0;
  #sequence = 0;
  #answered = 0;
  #waitingSinceMs = 0;
  readonly #warm: { session?: grpc.Client; beats?: grpc.Client } = {};

  constructor(open: () => grpc.Client, hello: AgentMessage, said: (bytes: number, messages: number) => void) {
    this.#open = open;
    this.#hello = hello;
    this.#said = said;
  }

  /** Connects, and says nothing yet. */
  async warmUp(): Promise<void> {
    this.#warm.session = this.#open();
    this.#warm.beats = this.#open();
    await Promise.all(Object.values(this.#warm).map(connected));
  }

  /** The one that is connected, the first time. */
  #take(what: 'session' | 'beats'): grpc.Client {
    const client = this.#warm[what] ?? this.#open();
    delete this.#warm[what];
    return client;
  }

  /** `held`: as in Hello. */
  talk(held: Buffer): void {
    const client = this.#take('session');
    const session = client.makeBidiStreamRequest(
      AgentService.session.path,
      (message: AgentMessage) => Buffer.from(AgentMessage.encode(message).finish()),
      see,
    );
    session.on('data', (seen: Seen) => {
      this.#bytes += seen.bytes;
      this.#messages++;
      if (!seen.endsFull) return;
      session.write({ body: { $case: 'applied', value: { revision: seen.revision } } });
      this.#synced ??= { bytes: this.#bytes, messages: this.#messages };
      this.#sayBack();
    });
    session.on('error', () => {
      this.broken++;
      client.close();
      systemClock.after(againMs, () => this.talk(held));
    });
    const { body } = this.#hello;
    if (body?.$case === 'hello')
      session.write({ body: { $case: 'hello', value: { ...body.value, held, unpacks: true } } });
  }

  /** Once: it has its set, and its beats are answered. */
  #sayBack(): void {
    if (this.#isBack || !this.#synced || this.#answered === 0) return;
    this.#isBack = true;
    this.#said(this.#synced.bytes, this.#synced.messages);
  }

  beat(everyMs: number): void {
    const client = this.#take('beats');
    const beats = client.makeBidiStreamRequest(
      AgentService.heartbeat.path,
      (beat: Beat) => Buffer.from(Beat.encode(beat).finish()),
      BeatAck.decode,
    );
    beats.on('data', (ack: BeatAck) => {
      this.#answered = ack.sequence;
      this.longestBeatMs = Math.max(this.longestBeatMs, systemClock.monotonic() - this.#waitingSinceMs);
      if (this.#answered === this.#sequence) this.#waitingSinceMs = Number.POSITIVE_INFINITY;
      this.#sayBack();
    });
    let broken = false;
    beats.on('error', () => {
      broken = true;
      this.broken++;
      client.close();
      systemClock.after(againMs, () => this.beat(everyMs));
    });
    this.#waitingSinceMs = systemClock.monotonic();
    const beat = () => {
      if (broken) return;
      if (this.#answered === this.#sequence) this.#waitingSinceMs = systemClock.monotonic();
      beats.write({ sequence: ++this.#sequence, session: 1, loopLagMs: 0, condition: 'running', probes: [], atMs: 0 });
      systemClock.after(everyMs, beat);
    };
    beat();
  }
}

function connected(client: grpc.Client): Promise<void> {
  return new Promise((resolve, reject) =>
    client.waitForReady(Number.POSITIVE_INFINITY, (error) => (error ? reject(error) : resolve())),
  );
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const line = async () => (await lines.next()).value ?? process.exit();
const { address, caPem, keyPem, beatEveryMs, warm, agents: dialling } = JSON.parse(await line()) as Dialling;
const agents = dialling.map(({ certificatePem, hello }, index) => {
  const tls = grpc.credentials.createSsl(Buffer.from(caPem), Buffer.from(keyPem), Buffer.from(certificatePem));
  return new Agent(
    () => new grpc.Client(address, tls, patient),
    AgentMessage.decode(Buffer.from(hello, 'base64')),
    (bytes, messages) => say({ synced: index, bytes, messages }),
  );
});
if (warm) await Promise.all(agents.map((agent) => agent.warmUp()));
say({ ready: true });
const { held } = JSON.parse(await line()) as Dial;
const before = process.cpuUsage();
for (const [index, agent] of agents.entries()) {
  agent.talk(Buffer.from(held, 'base64'));
  systemClock.after((index * beatEveryMs) / agents.length, () => agent.beat(beatEveryMs));
}
await line();
const { user, system } = process.cpuUsage(before);
say({
  cpuMs: (user + system) / 1_000,
  longestBeatMs: Math.max(...agents.map(({ longestBeatMs }) => longestBeatMs)),
  broken: agents.reduce((sum, { broken }) => sum + broken, 0),
});
process.exit();
