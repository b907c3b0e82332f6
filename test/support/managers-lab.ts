/** Writes and reads at several managers while the one that leads, with its etcd leading too, is taken away: what was acknowledged must be there. */
import { credentials } from '@grpc/grpc-js';
import { controlPlaneSocket } from '#node-agent/sandbox/layout.ts';
import { OperatorClient } from '#proto/gen/gantry/v1/operator.ts';
import type { Task } from '#proto/gen/gantry/v1/types.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import type { Cluster, TaskRow } from './cluster.ts';
import { eventually } from './eventually.ts';

const { service } = OperatorClient;
const managers = ['m1', 'm2', 'm3'];
/** Ten writers, ten writes a second each. */
const writers = 10;
const everyMs = 100;
const readEveryMs = 20;
const callMs = 1_000;
const warmUpMs = 1_500;
const afterwardsMs = 5_000;

/** The ways to take both leaders away at once. */
export const losses = ['power off', 'kill -9 of both'] as const;
type Loss = (typeof losses)[number];

/** What one round has shown. Milliseconds. */
export interface LossOutcome {
  readonly manager: string;
  readonly acknowledged: number;
  /** From each write's first try to its acknowledgement, whichever manager gave it. */
  readonly latencies: readonly number[];
  /** Longest time from one acknowledged write to the next one, of all writers. */
  readonly gap: number;
  /** The same of reads at the managers that stayed. */
  readonly readGap: number;
  readonly readsFailed: number;
  /** From the moment that the next leader began to lead until it had the sessions of all nodes; by its log. */
  readonly sessionsMs: number;
  /** Acknowledged, and not there afterwards. */
  readonly lost: readonly string[];
  readonly restarted: number;
}

/** What a deployment has shown while its leader was lost, or was not. */
export interface DeploymentOutcome {
  /** From the wish until all of its tasks ran, ms. */
  readonly ms: number;
  /** Tasks beyond one for each seat, those that ended included. */
  readonly twice: number;
}

interface LogLine {
  readonly time: string;
  readonly message: string;
  readonly epoch: number;
  readonly node?: string;
}

interface Written {
  readonly name: string;
  readonly latency: number;
  readonly at: number;
}

export class ManagersLab {
  readonly #cluster: Cluster;
  readonly #clients: ReadonlyMap<string, OperatorClient>;
  #rounds = 0;

  /** Of a cluster with three managers that runs the service `app`. */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#clients = new Map(
      managers.map((name) => {
        const address = `unix:${controlPlaneSocket(cluster.sandbox.layout, name)}`;
        return [name, new OperatorClient(address, credentials.createInsecure(), channelOptions)];
      }),
    );
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }

  async round(loss: Loss): Promise<LossOutcome> {
    const round = this.#rounds++;
    const manager = await this.#bothLeadersAtOne();
    const before = await this.#cluster.running('app');
    const stop = new AbortController();
    const writing = Array.from({ length: writers }, (_, index) =>
      this.#write(`r${round}-w${index}`, index, stop.signal),
    );
    const stayed = managers.filter((name) => name !== manager);
    const reading = stayed.map((name) => this.#read(name, stop.signal));
    await systemClock.sleep(warmUpMs);
    await this.#take(manager, loss);
    await systemClock.sleep(afterwardsMs);
    stop.abort();
    const written = (await Promise.all(writing)).flat();
    const reads = await Promise.all(reading);
    if (loss === 'power off') await this.#cluster.sandbox.act('start', manager);
    await this.#allWell();
    const lost = await this.#missing(written);
    return {
      manager,
      acknowledged: written.length,
      latencies: written.map(({ latency }) => latency),
      gap: longestGap(written.map(({ at }) => at)),
      readGap: Math.max(...reads.map(({ at }) => longestGap(at))),
      readsFailed: reads.reduce((sum, { failed }) => sum + failed, 0),
      sessionsMs: await this.#sessionsMs(),
      lost,
      restarted: notAmong(before, await this.#cluster.running('app')),
    };
  }

  /** Deploys so many tasks; `loss`: how the leader is taken once a tenth of them run. Then all of it is removed again. */
  async deployment(name: string, tasks: number, loss?: Loss): Promise<DeploymentOutcome> {
    const manager = await this.#bothLeadersAtOne();
    const service = `{ image: "registry:5000/hello:1", stop_grace_period: 1s, deploy: { replicas: ${tasks} } }`;
    const file = this.#cluster.compose(`${name}.yaml`, `name: ${name}\nservices: { ${name}: ${service} }\n`);
    const options = { timeoutMs: 180_000, everyMs: 50 };
    const running = async () => (await this.#tasks(name)).filter(({ state }) => state === 'running').length;
    const beganAt = systemClock.monotonic();
    const { code, stderr } = await this.#cluster.gantry('apply', '-f', file, '--detach');
    if (code !== 0) throw new Error(`apply ended with ${code}: ${stderr}`);
    if (loss) {
      await eventually(async () => (await running()) >= tasks / 10, options);
      await this.#take(manager, loss);
    }
    await eventually(async () => (await running()) === tasks, options);
    const ms = systemClock.monotonic() - beganAt;
    if (loss === 'power off') await this.#cluster.sandbox.act('start', manager);
    await this.#allWell();
    const all = await this.#tasks(name);
    const twice = all.length - new Set(all.map(({ slot }) => slot)).size;
    await this.#cluster.gantry('rm', name);
    await eventually(async () => (await this.#tasks(name)).length === 0, options);
    return { ms, twice };
  }

  /** All tasks of the service that there are records of, as whichever manager knows most has them. */
  async #tasks(name: string): Promise<Task[]> {
    const request = { kind: 'task', service: name, node: '', project: '', all: true };
    const asked = [...this.#clients.values()].map((one) => call(one, service.list, request, { timeoutMs: callMs }));
    const found = await Promise.allSettled(asked);
    const lists = found.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    return lists.sort((a, b) => b.revision - a.revision)[0]?.tasks ?? [];
  }

  async #take(manager: string, loss: Loss): Promise<void> {
    if (loss === 'power off') return void (await this.#cluster.sandbox.act('kill', manager));
    await this.#on(manager, "kill -9 $(pgrep -f '[c]ontrol-plane/main.ts run') $(pgrep -x etcd)");
  }

  /** New names at a steady pace; each is tried at one manager after the other until one acknowledges it. */
  async #write(prefix: string, first: number, signal: AbortSignal): Promise<Written[]> {
    const written: Written[] = [];
    const startedAt = systemClock.monotonic() + (first * everyMs) / writers;
    let asked = first;
    for (let count = 0; ; count++) {
      await systemClock.sleep(Math.max(0, startedAt + count * everyMs - systemClock.monotonic()));
      if (signal.aborted) return written;
      const name = `${prefix}-${count}`;
      const triedAt = systemClock.monotonic();
      for (;;) {
        const client = this.#clients.get(managers[asked % managers.length] as string) as OperatorClient;
        try {
          const request = { type: 'config', name, data: Buffer.from(name), labels: {} };
          await call(client, service.putDocument, request, { timeoutMs: callMs });
          const at = systemClock.monotonic();
          written.push({ name, latency: at - triedAt, at });
          break;
        } catch (error) {
          if (!isFault(error, 'unavailable', 'timeout')) throw error;
          asked++;
          if (signal.aborted) return written;
          await systemClock.sleep(20);
        }
      }
    }
  }

  async #read(manager: string, signal: AbortSignal): Promise<{ at: number[]; failed: number }> {
    const client = this.#clients.get(manager) as OperatorClient;
    const at: number[] = [];
    let failed = 0;
    while (!signal.aborted) {
      const request = { kind: 'node', service: '', node: '', project: '', all: false };
      await call(client, service.list, request, { timeoutMs: callMs }).then(
        () => at.push(systemClock.monotonic()),
        () => failed++,
      );
      await systemClock.sleep(readEveryMs);
    }
    return { at, failed };
  }

  /** Asks each manager for what was acknowledged: it is there at all of them once they have caught up. Then it is removed. */
  async #missing(written: readonly Written[]): Promise<string[]> {
    const wanted = new Set(written.map(({ name }) => name));
    const lost = new Set<string>();
    for (const client of this.#clients.values()) {
      const found = await call(client, service.list, {
        kind: 'config',
        service: '',
        node: '',
        project: '',
        all: false,
      });
      const names = new Set(found.documents.map(({ document }) => document?.name));
      for (const name of wanted) if (!names.has(name)) lost.add(name);
    }
    const all = await this.#cluster.json<{ name: string }[]>('config', 'ls');
    const [client] = this.#clients.values();
    const names = all.map(({ name }) => name);
    if (names.length > 0) await call(client as OperatorClient, service.removeDocument, { type: 'config', names });
    return [...lost];
  }

  async #allWell(): Promise<void> {
    const options = { timeoutMs: 60_000, everyMs: 100 };
    for (const name of managers) {
      await eventually(() => this.#etcdctl(name, 'endpoint health').then(() => true), options);
      const client = this.#clients.get(name) as OperatorClient;
      await eventually(() => call(client, service.info, {}, { timeoutMs: callMs }), options);
    }
    for (const node of ['h1', 'h2']) await this.#cluster.nodeIs(node, 'ready', 60_000);
    // A write at each: whoever has answered it has caught up with all before it.
    for (const [name, client] of this.#clients) {
      const request = { type: 'config', name: `caught-up-${name}`, data: Buffer.from(`${this.#rounds}`), labels: {} };
      await eventually(() => call(client, service.putDocument, request), options);
    }
  }

  async #sessionsMs(): Promise<number> {
    const logs = await Promise.all(
      managers.map((name) =>
        this.#on(name, "grep -h -e leading -e 'node connected' /var/log/control-plane.log || true"),
      ),
    );
    const lines = logs.flatMap((text) =>
      text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as LogLine),
    );
    const began = lines.filter(({ message }) => message === 'leading').sort((a, b) => b.epoch - a.epoch)[0];
    const connected = lines.filter(({ message, epoch }) => message === 'node connected' && epoch === began?.epoch);
    const first = new Map<string, number>();
    for (const { node = '', time } of connected) if (!first.has(node)) first.set(node, Date.parse(time));
    return Math.max(...first.values()) - Date.parse(began?.time ?? '');
  }

  /** Moves etcd's leader to where the control plane's is; its name. */
  async #bothLeadersAtOne(): Promise<string> {
    const found = await eventually(
      async () => {
        const { leader } = await this.#cluster.json<{ leader: string }>('info');
        const states = await Promise.all(managers.map((name) => this.#etcd(name)));
        const leading = states.find(({ leads }) => leads);
        const wanted = states.find(({ name }) => name === leader);
        if (!leading || !wanted) return undefined;
        if (leading === wanted) return leader;
        await this.#etcdctl(leading.name, `move-leader ${wanted.id}`);
        return undefined;
      },
      { timeoutMs: 30_000, everyMs: 300 },
    );
    return found as string;
  }

  async #etcd(name: string): Promise<{ readonly name: string; readonly id: string; readonly leads: boolean }> {
    const [, id = '', , , leads] = (await this.#etcdctl(name, 'endpoint status')).split(', ');
    return { name, id, leads: leads === 'true' };
  }

  #etcdctl(manager: string, command: string): Promise<string> {
    const pki = '/var/lib/gantry/control-plane/pki';
    const identity = `--cacert ${pki}/ca.pem --cert ${pki}/client/cert.pem --key ${pki}/client/key.pem`;
    return this.#on(manager, `ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 ${identity} ${command}`);
  }

  #on(host: string, line: string): Promise<string> {
    return this.#cluster.sandbox.run(host, ['sh', '-c', line]);
  }
}

function longestGap(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  return Math.max(0, ...sorted.slice(1).map((at, index) => at - (sorted[index] as number)));
}

/** How many of `before` do not run on as they did. */
function notAmong(before: readonly TaskRow[], after: readonly TaskRow[]): number {
  const still = new Set(after.map(({ id, pid }) => `${id} ${pid}`));
  return before.filter(({ id, pid }) => !still.has(`${id} ${pid}`)).length;
}
