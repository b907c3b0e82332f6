/** A leader with production dispatch, controllers and gRPC over mutual TLS, and as many agents as wanted that all dial it at once, from processes of their own. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import { agentService, agentServiceDefinition } from '#control-plane/dispatch/server.ts';
import { sharedItem, sharedKeys } from '#control-plane/dispatch/shared-set.ts';
import { createRequest } from '#control-plane/security/certificates.ts';
import { LiveCertificate } from '#control-plane/security/live-certificate.ts';
import { initPki } from '#control-plane/security/pki.ts';
import { serveTcp } from '#control-plane/servers.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { revisionKey } from '#control-plane/store/snapshot.ts';
import type { Store } from '#control-plane/store/store.ts';
import { AgentMessage } from '#proto/gen/gantry/v1/agent.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { kernelProbe } from '#proto/kernel-probe.ts';
import type { Node } from '#proto/model/node.ts';
import type { Task } from '#proto/model/task.ts';
import { assignmentToWire, toWire } from '#proto/model/wire.ts';
import { PartDigests } from '#proto/shared-parts.ts';
import { aCluster, aNode, aRevision, aService, aTask, nothingHeld } from './builders.ts';
import { endsWithTest } from './process.ts';
import type { Dial, Dialling, Said } from './reconnect-process.ts';
import { testSeal } from './test-seal.ts';

/** Tasks of one service. */
const replicas = 20;
const perCommit = 5_000;
const perProcess = 100;
const beatEveryMs = 200;
/** Who has not got its set by then is not waited for. */
const limitMs = 240_000;
/** Nor who has not said by then how it fared. */
const endMs = 10_000;
const kernel = { clock: systemClock, random: systemRandom, log: silentLog };

/** What came of one failover: a replica begins to lead, and all agents dial it at once. */
export interface Reconnection {
  /** From the first dial until the last agent had its full set, or was not waited for any more. */
  readonly ms: number;
  /** Agents that did not have theirs by then. */
  readonly left: number;
  /** Processor time of this process, meanwhile, and of those of the agents. */
  readonly cpuMs: number;
  readonly agentsCpuMs: number;
  /** Of a hundred turns of this process's event loop the longest but one was so late. */
  readonly lateMs: number;
  /** Most resident memory of this process meanwhile, above what it had before. */
  readonly grewBytes: number;
  /** What the agents received. */
  readonly bytes: number;
  readonly messages: number;
  /** Verdicts that a node is down. */
  readonly downs: number;
  /** The longest that a beat waited for its answer, from its dial on. */
  readonly longestBeatMs: number;
  /** Streams of agents that broke. */
  readonly broken: number;
}

/** What the agents of a failover hold before it. */
export interface Before {
  /** all: whatever there was, as they do whose leader was lost; nothing: as those of before digests, or of a new machine. */
  readonly held: 'all' | 'nothing';
  /** Services that have changed since. */
  readonly changed?: number;
  /** They are connected with the replica before it leads. */
  readonly warm?: boolean;
}

export class ReconnectLab {
  readonly store: Store;
  readonly #scope: Scope;
  readonly #dispatch: Dispatch;
  readonly #processes: readonly Omit<Dialling, 'warm'>[];
  #epoch = 0;

  /** A cluster of so many nodes and tasks, all running; nobody leads or has dialled yet. */
  static async start(nodeCount: number, taskCount: number): Promise<ReconnectLab> {
    const scope = new Scope();
    const directory = mkdtempSync(join(tmpdir(), 'gantry-reconnect-'));
    scope.defer(() => rmSync(directory, { recursive: true, force: true }));
    const pki = await initPki({ dataDir: join(directory, 'm1'), name: 'm1', advertise: '127.0.0.1' });
    const store = new MemoryEtcd({ clock: systemClock }).open();
    scope.defer(() => store.close());
    // Where the kernel answers whoever asks whether the host lives.
    const addressOf = (index: number) => `127.90.${index >> 8}.${index & 255}`;
    const nodes = Array.from({ length: nodeCount }, (_, index) => {
      const address = addressOf(index);
      return aNode(`n${index}x`, { address, link: `${address}/16`, answersProbes: true });
    });
    const records = recordsOf(nodes, taskCount);
    for (let at = 0; at < records.length; at += perCommit)
      await store.seen(await store.commit(records.slice(at, at + perCommit)));
    const dispatch = new Dispatch({
      ...kernel,
      store,
      leadsBy: ({ replica }) => replica === 'm1',
      mayGrant: () => true,
      probe: kernelProbe(systemClock),
      unseal: (credential) => credential,
      openContent: (content) => testSeal.open(content),
    });
    scope.defer(() => dispatch.close());
    const certificate = new LiveCertificate(pki.authority.certificate, pki.pair('server'));
    const renew = async () => {
      throw new Fault('unsupported', 'nobody is here long enough');
    };
    const port = await serveTcp(
      scope,
      { address: '127.0.0.1', port: 0, flag: '--agent-port' },
      certificate.credentials({ clients: true }),
      [{ definition: agentServiceDefinition, handlers: agentService({ dispatch, renew }) }],
    );
    const { csrPem, key } = await createRequest('agent');
    const as = { csrPem, role: 'node', hosts: [], server: false, lifetimeMs: 3_600_000 } as const;
    const agents: Dialling['agents'][number][] = [];
    for (const node of nodes)
      agents.push({
        certificatePem: await pki.authority.issue({ ...as, commonName: node.id }),
        hello: helloOf(node, [...store.snapshot.tasksOnNode(node.id)]),
      });
    const line = { address: `127.0.0.1:${port}`, caPem: pki.authority.certificate, keyPem: key, beatEveryMs };
    const processes: Omit<Dialling, 'warm'>[] = [];
    for (let at = 0; at < agents.length; at += perProcess)
      processes.push({ ...line, agents: agents.slice(at, at + perProcess) });
    return new ReconnectLab(store, scope, dispatch, processes);
  }

  private constructor(store: Store, scope: Scope, dispatch: Dispatch, processes: readonly Omit<Dialling, 'warm'>[]) {
    this.store = store;
    this.#scope = scope;
    this.#dispatch = dispatch;
    this.#processes = processes;
  }

  /** Begins to lead, and all agents dial; resolves when each has its full set, and all are gone again. */
  async failOver({ held, changed = 0, warm = false }: Before): Promise<Reconnection> {
    const dial = { held: held === 'all' ? this.#digests() : '' };
    await this.#change(changed);
    const children = this.#processes.map((dialling) => new Agents({ ...dialling, warm }));
    let downs = 0;
    const unsubscribe = this.store.subscribe(({ changes }) => {
      for (const change of changes)
        if (change.table === 'node' && change.after?.state === 'down' && change.before?.state !== 'down') downs++;
    });
    const term = new Scope();
    let restBytes = 0;
    let mostBytes = 0;
    const delay = monitorEventLoopDelay({ resolution: 10 });
    const look = setInterval(() => {
      mostBytes = Math.max(mostBytes, process.memoryUsage.rss());
    }, 200);
    try {
      await Promise.all(children.map((child) => child.ready));
      const { leadership } = this.store;
      const epoch = ++this.#epoch;
      await this.store.takeLeadership(leadership, { epoch, replica: 'm1', address: 'm1:7400' });
      const { liveness, usage } = this.#dispatch;
      const parts = { ...kernel, store: this.store, liveness, usage, removeVolume: async () => {} };
      restBytes = process.memoryUsage.rss();
      mostBytes = restBytes;
      const cpu = process.cpuUsage();
      const began = performance.now();
      delay.enable();
      void runControllers(parts, epoch, term);
      for (const child of children) child.dial(dial);
      await within(limitMs, Promise.all(children.map((child) => child.synced)));
      const ms = performance.now() - began;
      const { user, system } = process.cpuUsage(cpu);
      const left = sum(children, ({ left }) => left);
      const ends = (await Promise.all(children.map((child) => within(endMs, child.end())))).filter((end) => !!end);
      return {
        ...{ ms, left, downs },
        cpuMs: (user + system) / 1_000,
        agentsCpuMs: sum(ends, ({ cpuMs }) => cpuMs),
        lateMs: delay.percentile(99) / 1e6,
        grewBytes: mostBytes - restBytes,
        bytes: sum(children, ({ received }) => received.bytes),
        messages: sum(children, ({ received }) => received.messages),
        longestBeatMs: Math.max(...ends.map(({ longestBeatMs }) => longestBeatMs)),
        broken: sum(ends, ({ broken }) => broken),
      };
    } finally {
      delay.disable();
      clearInterval(look);
      unsubscribe();
      await term.close();
      for (const child of children) child.kill();
    }
  }

  /** Of what there is, as in a Hello, base64. */
  #digests(): string {
    const { snapshot } = this.store;
    const digests = new PartDigests();
    for (const key of sharedKeys(snapshot)) {
      const item = sharedItem(snapshot, key);
      if (item) digests.put(assignmentToWire(item));
    }
    return digests.all().toString('base64');
  }

  async #change(count: number): Promise<void> {
    const changes: Change[] = [...this.store.snapshot.all('service')].slice(0, count).map((service) => {
      const value = { ...service, spec: { ...service.spec, aliases: [`alias-${this.#epoch}`] } };
      const expect = this.store.snapshot.get('service', service.id)!.modRevision;
      return { table: 'service', key: service.id, value, expect };
    });
    await this.store.seen(await this.store.commit(changes));
  }

  close(): Promise<void> {
    return this.#scope.close();
  }
}

type End = Extract<Said, { readonly longestBeatMs: number }>;

/** Agents that share a process. */
class Agents {
  readonly ready: Promise<void>;
  /** Each has its full set. */
  readonly synced: Promise<void>;
  /** Who does not have its set yet. */
  left: number;
  /** What the others received until they had theirs. */
  readonly received = { bytes: 0, messages: 0 };
  readonly #ended: Promise<End>;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;

  constructor(dialling: Dialling) {
    this.#child = spawn(
      'setpriv',
      [...endsWithTest, process.execPath, '--no-warnings', join(import.meta.dirname, 'reconnect-process.ts')],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    const ready = Promise.withResolvers<void>();
    const synced = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<End>();
    const waiters = [ready, synced, ended];
    for (const { promise } of waiters) promise.catch(() => {});
    this.ready = ready.promise;
    this.synced = synced.promise;
    this.#ended = ended.promise;
    this.#child.once('exit', (code) => {
      for (const { reject } of waiters) reject(new Error(`agents ended with ${code}`));
    });
    this.left = dialling.agents.length;
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as Said;
      if ('ready' in said) ready.resolve();
      else if ('longestBeatMs' in said) ended.resolve(said);
      else {
        this.received.bytes += said.bytes;
        this.received.messages += said.messages;
        if (--this.left === 0) synced.resolve();
      }
    });
    this.#child.stdin.write(`${JSON.stringify(dialling)}\n`);
  }

  dial(dial: Dial): void {
    this.#child.stdin.write(`${JSON.stringify(dial)}\n`);
  }

  end(): Promise<End> {
    this.#child.stdin.write('end\n');
    return this.#ended;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/** Undefined: it was not there in time. */
function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = systemClock.after(ms, () => late.resolve(undefined));
  return Promise.race([promise, late.promise]).finally(() => timer.cancel());
}

function sum<T>(all: readonly T[], of: (one: T) => number): number {
  return all.reduce((total, one) => total + of(one), 0);
}

function recordsOf(nodes: readonly Node[], taskCount: number): Change[] {
  const changes: Change[] = [{ table: 'cluster', key: 'config', value: aCluster(), expect: 0 }];
  for (const value of nodes) changes.push({ table: 'node', key: value.id, value, expect: 0 });
  for (let number = 0; number * replicas < taskCount; number++) {
    const service = aService(`s${number}x`, { replicas }, { vip: `10.224.${number >> 8}.${number & 255}` });
    const revision = aRevision(service);
    changes.push(
      { table: 'service', key: service.id, value: service, expect: 0 },
      { table: 'revision', key: revisionKey(service.id, revision.number), value: revision, expect: 0 },
    );
    for (let slot = 1; slot <= replicas; slot++) {
      const index = number * replicas + slot - 1;
      const node = nodes[index % nodes.length]!;
      const value = aTask(`t${index}x`, {
        serviceId: service.id,
        serviceName: service.spec.name,
        slot,
        nodeId: node.id,
        nodeName: node.name,
        address: node.subnet.replace('0/24', `${2 + Math.floor(index / nodes.length)}`),
      });
      changes.push({ table: 'task', key: value.id, value, expect: 0 });
    }
  }
  return changes;
}

function helloOf(node: Node, tasks: readonly Task[]): string {
  const said = tasks.map((task) => ({ ...task, taskId: task.id, atMs: task.stateAtMs }));
  const value = { node: toWire(node), epoch: 0, tasks: said.map((status) => toWire(status)), held: nothingHeld };
  return Buffer.from(AgentMessage.encode({ body: { $case: 'hello', value } } as AgentMessage).finish()).toString(
    'base64',
  );
}
