/** A sandbox cluster as the bench uses it: wishes by the operator's API, and every event with the moment it was heard. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { machineHierarchies, processesIn } from '#node-agent/sandbox/cgroups.ts';
import {
  ApplyRequest,
  type ApplyResponse,
  OperatorClient,
  OperatorService,
  ServiceRequest,
  SourceFile,
} from '#proto/gen/gantry/v1/operator.ts';
import type { Event, Task } from '#proto/gen/gantry/v1/types.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

/** An event and when it reached us, on `performance.now()`'s clock. */
export interface Heard extends Event {
  readonly heardAt: number;
}

export const project = 'bench';
export const image = 'registry:5000/hello:1';

export class BenchCluster {
  readonly cluster: Cluster;
  readonly #client: OperatorClient;
  #events: grpc.ClientReadableStream<Event> | undefined;
  /** Of the last event, by the control plane's clock. */
  #heardMs = 0;
  readonly #listeners = new Set<(event: Heard) => void>();

  static async start(): Promise<BenchCluster> {
    const cluster = await startCluster(3);
    const bench = new BenchCluster(cluster);
    // Each round stands for itself, however often a host went down before.
    await cluster.gantry('cluster', 'set', 'flap-damping=off');
    await bench.#listening();
    return bench;
  }

  constructor(cluster: Cluster) {
    this.cluster = cluster;
    const socket = join(cluster.sandbox.layout.dir, 'm1/run/gantry/control-plane.sock');
    this.#client = new OperatorClient(`unix:${socket}`, grpc.credentials.createInsecure(), channelOptions);
    this.#follow();
  }

  /** On a busy machine either end may stand still for so long that the other takes it for dead: it goes on where that was. */
  #follow(): void {
    const events = this.#client.events({ follow: true, sinceMs: this.#heardMs && this.#heardMs + 1 });
    this.#events = events;
    events.on('data', (event: Event) => {
      this.#heardMs = event.atMs;
      const heard = { ...event, heardAt: performance.now() };
      for (const listener of this.#listeners) listener(heard);
    });
    events.on('error', () => {});
    events.on('close', () => {
      if (this.#events === events) setTimeout(() => this.#events && this.#follow(), 100);
    });
  }

  /** The stream hears nothing of what happened before the server took it. */
  async #listening(): Promise<void> {
    for (let attempt = 0; attempt < 50; attempt++) {
      const heard = this.until(() => true, 200).catch(() => undefined);
      await this.apply(serviceText(`probe${attempt}`, 1));
      if (await heard) break;
    }
    for (const { name } of await this.services()) await this.remove([name]);
  }

  /** Commits a Compose text. Resolves to when it was sent and the answer; rejects with what is wrong with it. */
  async apply(text: string): Promise<{ readonly sentAt: number; readonly response: ApplyResponse }> {
    const sentAt = performance.now();
    const request = ApplyRequest.create({
      files: [SourceFile.create({ path: 'bench.yaml', text })],
      composeFiles: 1,
      project,
      directory: project,
      answered: true,
      root: '/tmp',
    });
    const response = await call(this.#client, OperatorService.apply, request);
    if (response.errors.length > 0) throw new Error(JSON.stringify(response.errors));
    return { sentAt, response };
  }

  /** Calls `listener` for each event from now on, until the returned function is called. */
  listen(listener: (event: Heard) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first event from now on for which `test` holds. */
  until(test: (event: Heard) => boolean, timeoutMs = 60_000): Promise<Heard> {
    return new Promise((resolve, reject) => {
      const leave = this.listen((event) => {
        if (!test(event)) return;
        clearTimeout(timer);
        leave();
        resolve(event);
      });
      const timer = setTimeout(() => {
        leave();
        reject(new Error(`nothing of the kind happened in ${timeoutMs} ms`));
      }, timeoutMs);
    });
  }

  /** Resolves to when the last of `count` tasks of a service was heard to run, counted from now on. */
  running(service: string, count: number, timeoutMs = 60_000): Promise<Heard> {
    const seen = new Set<string>();
    const prefix = `${service}.`;
    return this.until((event) => {
      if (event.kind === 'task' && event.action === 'running' && event.name.startsWith(prefix)) seen.add(event.id);
      return seen.size === count;
    }, timeoutMs);
  }

  async tasks(service: string): Promise<Task[]> {
    const { tasks } = await call(this.#client, OperatorService.list, listOf('task', service));
    return tasks;
  }

  async services(): Promise<{ readonly name: string }[]> {
    const { services } = await call(this.#client, OperatorService.list, listOf('service', ''));
    return services.map(({ service }) => ({ name: service!.spec!.name }));
  }

  /** Resolves when nothing of the services is left in the cluster. */
  async remove(services: readonly string[]): Promise<void> {
    if (services.length === 0) return;
    const left = new Set(services.map((name) => `${project}/${name}`));
    const gone = this.until((event) => {
      if (event.kind === 'service' && event.action === 'removed') left.delete(event.name);
      return left.size === 0;
    });
    await call(this.#client, OperatorService.remove, ServiceRequest.create({ services: [...services] }));
    await gone;
    // Their agents clean up after the record has gone.
    await new Promise((resolve) => setTimeout(resolve, 400));
  }

  /** Resolves when the hosts have removed the namespaces of all tasks, and the kernel has had a moment for their links. */
  async cleaned(): Promise<void> {
    const { layout } = this.cluster.sandbox;
    const left = (host: string) => readdirSync(join(layout.dir, host, 'run/gantry/netns')).length;
    await eventually(() => workers.every((host) => left(host) === 0), { timeoutMs: 30_000, everyMs: 50 });
    await new Promise((resolve) => setTimeout(resolve, 500));
  }

  /** Processes of a host, as this machine numbers them. */
  processes(host: string): number[] {
    return processesIn(machineHierarchies(), `gantry-sandbox/${this.cluster.sandbox.layout.name}/${host}`);
  }

  /** This machine's number of a container's first process. */
  firstProcess(task: Pick<Task, 'id' | 'nodeName'>): number {
    for (const pid of this.processes(task.nodeName)) {
      try {
        const inside = readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(task.id);
        const numbers = /^NSpid:(.*)$/m
          .exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
          ?.trim()
          .split(/\s+/);
        if (inside && numbers?.at(-1) === '1') return pid;
      } catch {
        // It ended while we looked.
      }
    }
    throw new Error(`task ${task.id} has no first process on ${task.nodeName}`);
  }

  /** The sums and counts of a histogram on a host, by the value of one label. */
  async histogram(host: string, name: string, label: string): Promise<Map<string, { sum: number; count: number }>> {
    const text = await this.cluster.sandbox.run(host, ['curl', '-sS', '--fail', 'http://127.0.0.1:7403/metrics']);
    const found = new Map<string, { sum: number; count: number }>();
    for (const [, kind, value, number] of text.matchAll(
      new RegExp(`^${name}_(sum|count)\\{${label}="([^"]+)"\\} (\\S+)$`, 'gm'),
    )) {
      const entry = found.get(value!) ?? { sum: 0, count: 0 };
      entry[kind as 'sum' | 'count'] = Number(number);
      found.set(value!, entry);
    }
    return found;
  }

  async close(): Promise<void> {
    const events = this.#events;
    this.#events = undefined;
    events?.cancel();
    this.#client.close();
    await this.cluster.close();
  }
}

function listOf(kind: string, service: string) {
  return { kind, service: service && `${project}/${service}`, node: '', project: '', all: false };
}

/** One service of the sample image, on the cluster's network. */
export function serviceText(name: string, replicas: number, runtime = 'runc'): string {
  return `name: ${project}
services:
  ${name}:
    image: ${image}
    runtime: ${runtime}
    deploy: { replicas: ${replicas} }
`;
}

export const workers = ['h1', 'h2', 'h3'];
