/** A real cluster under one fault after the other, with writes going on, held to the invariants of ../shared/FAULTS.md after each. */
import type { Wishes } from '#node-agent/sandbox/protocol.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { agentDirectory, type ChaosFault, chaosFaults, smallDiskHost } from './chaos-faults.ts';
import type { Cluster, TaskRow } from './cluster.ts';
import { remains } from './leaks.ts';
import { FaultLab } from './net-faults.ts';
import { onSmallDisk } from './small-disk.ts';
import { settableClocks } from './wall-clock.ts';

/** `web` is scaled all the time, the others are nobody's business: their tasks may change only where a fault takes them. */
export const chaosProject = `
name: chaos
services:
  web:
    image: registry:5000/hello:1
    ports: ["18090:8080"]
    stop_grace_period: 0s
    x-drain: 0s
    deploy: { replicas: 6 }
  calm:
    image: registry:5000/hello:1
    stop_grace_period: 0s
    x-rebalance: off
    deploy: { replicas: 6 }
  one:
    image: registry:5000/hello:1
    stop_grace_period: 0s
  each:
    image: registry:5000/hello:1
    stop_grace_period: 0s
    deploy: { mode: global }
`;

const hosts = ['h1', 'h2', 'h3'] as const;
/** What the cluster is started with. */
export const chaosWishes: Wishes = { settings: settableClocks('m1', ...hosts) };
/** From the end of a fault until all invariants hold (I8). */
export const convergeMs = 10_000;
/** A host that was off starts its kernel's services, containerd and agent first. */
const startMs = 20_000;

export interface ChaosRun {
  readonly rounds: number;
  readonly seed: number;
  /** Names or numbers of faults; empty: all. */
  readonly only?: readonly string[];
  /** In place of `convergeMs`, where the machine does other things beside. */
  readonly withinMs?: number;
  readonly log?: (line: string) => void;
}

export interface ChaosOutcome {
  readonly failures: readonly string[];
  /** From the end of each fault until all was well, ms. */
  readonly convergedMs: readonly number[];
  readonly counts: Readonly<Record<string, number>>;
  readonly writes: { readonly acknowledged: number; readonly refused: number };
}

/** The faults that `only` names; throws where one names none. */
export function chosenFaults(only: readonly string[]): readonly ChaosFault[] {
  if (only.length === 0) return chaosFaults;
  return only.flatMap((word) => {
    const found = chaosFaults.filter(({ name, number }) => name === word || number === word);
    if (found.length > 0) return found;
    throw new Error(
      `no fault ${word}; there are ${chaosFaults.map(({ name, number }) => `${name}${number ? ` (${number})` : ''}`).join(', ')}`,
    );
  });
}

export class ChaosLab {
  readonly #cluster: Cluster;
  readonly #net: FaultLab;
  /** What the last acknowledged write made of `web`; several where writes after it were not acknowledged. */
  #replicas = new Set([6]);
  #acknowledged = 0;
  #refused = 0;

  private constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#net = new FaultLab(cluster);
  }

  /** Deploys the project on a cluster of three hosts, one of which gets a small disk. */
  static async start(cluster: Cluster): Promise<ChaosLab> {
    await onSmallDisk(cluster.sandbox, smallDiskHost, '-f node-agent/main.t[s]', agentDirectory, '32m');
    await cluster.nodeIs(smallDiskHost, 'ready');
    await cluster.apply(chaosProject);
    return new ChaosLab(cluster);
  }

  close(): void {
    this.#net.close();
  }

  async run({ rounds, seed, only = [], withinMs = convergeMs, log = () => {} }: ChaosRun): Promise<ChaosOutcome> {
    const random = seededRandom(seed);
    const faults = chosenFaults(only);
    const failures: string[] = [];
    const convergedMs: number[] = [];
    const counts: Record<string, number> = {};
    const deck: ChaosFault[] = [];
    await this.#well(startMs, new Map());
    for (let round = 0; round < rounds; round++) {
      // Each once before any comes again.
      if (deck.length === 0) deck.push(...faults);
      const [fault] = deck.splice(random.int(deck.length), 1);
      const host = hosts[random.int(hosts.length)] as string;
      const { name, losesTasks } = fault as ChaosFault;
      counts[name] = (counts[name] ?? 0) + 1;
      const before = await this.#calmTasks();
      const writing = this.#write(random);
      await (fault as ChaosFault).happen({ cluster: this.#cluster, random, host });
      const endedAt = systemClock.monotonic();
      await writing.stop();
      const kept = new Map([...before].filter(([, { node }]) => !losesTasks || node !== host));
      const offMs = name === 'power off' || name === 'crash' ? startMs : 0;
      const problems = await this.#well(withinMs + offMs, kept, withinMs);
      const ms = Math.round(systemClock.monotonic() - endedAt);
      convergedMs.push(ms);
      const what = `${name} (${host})`;
      log(`${round + 1}/${rounds} ${what}: ${problems.length === 0 ? `well after ${ms} ms` : problems.join('; ')}`);
      failures.push(...problems.map((line) => `round ${round + 1}, ${what}: ${line}`));
      if (problems.length === 0) continue;
      // What it said itself is gone with the cluster otherwise.
      log(await this.#cluster.sandbox.run(host, ['tail', '-n', '40', '/var/log/agent.log']).catch(String));
      await this.#well(30_000, new Map());
    }
    return { failures, convergedMs, counts, writes: { acknowledged: this.#acknowledged, refused: this.#refused } };
  }

  /** Scales `web` again and again. A write that was not acknowledged may have gone through or not. */
  #write(random: { int(below: number): number }): { stop(): Promise<void> } {
    let stopped = false;
    const loop = async () => {
      while (!stopped) {
        const replicas = 3 + random.int(5);
        const { code } = await this.#cluster.gantry('scale', '--detach', `web=${replicas}`);
        if (code === 0) {
          this.#acknowledged++;
          this.#replicas = new Set([replicas]);
        } else {
          this.#refused++;
          this.#replicas.add(replicas);
        }
        await systemClock.sleep(300);
      }
    };
    const running = loop();
    return {
      stop: () => {
        stopped = true;
        return running;
      },
    };
  }

  async #calmTasks(): Promise<Map<string, TaskRow>> {
    return new Map((await this.#cluster.running('calm')).map((task) => [task.id, task]));
  }

  /** Until every invariant holds; what did not at the end. */
  async #well(withinMs: number, kept: ReadonlyMap<string, TaskRow>, agreeMs = convergeMs): Promise<readonly string[]> {
    const deadline = systemClock.monotonic() + withinMs;
    for (;;) {
      const problems = await this.#problems(kept).catch((error) => [String(error).split('\n')[0] as string]);
      if (problems.length === 0) return (await this.#net.agree(agreeMs)).problems;
      if (systemClock.monotonic() > deadline) return problems;
      await systemClock.sleep(200);
    }
  }

  async #problems(kept: ReadonlyMap<string, TaskRow>): Promise<readonly string[]> {
    const problems: string[] = [];
    const nodes = await this.#cluster.nodes();
    for (const { name, state } of nodes) if (state !== 'ready') problems.push(`node ${name} is ${state}`);
    const tasks = await this.#cluster.tasks();
    const up = tasks.filter(({ state, wanted }) => state === 'running' && wanted === 'running');
    const others = tasks.filter((task) => !up.includes(task));
    problems.push(...others.map(({ name, state, wanted }) => `${name} is ${state}, wanted ${wanted}`));
    const wanted = { calm: [6], one: [1], each: [nodes.length], web: [...this.#replicas] };
    for (const [service, counts] of Object.entries(wanted)) {
      const count = up.filter(({ name }) => name.startsWith(`${service}.`)).length;
      if (!counts.includes(count)) problems.push(`${count} of ${counts.join(' or ')} ${service} run`);
    }
    // I3: no two live tasks share an address.
    const addresses = new Set<string>();
    for (const { name, address } of up) {
      if (addresses.has(address)) problems.push(`${name} shares its address ${address}`);
      addresses.add(address);
    }
    // I9: nobody's task was touched but by the fault itself.
    const running = new Map(up.map((task) => [task.id, task]));
    for (const [id, { name, node, pid }] of kept) {
      const now = running.get(id);
      if (!now) problems.push(`${name} on ${node} was replaced, which the fault is no reason for`);
      else if (now.pid !== pid) problems.push(`${name} on ${node} has another process than before`);
    }
    if (problems.length === 0) problems.push(...(await this.#containers(up)));
    return problems;
  }

  /** I2: the containers of each host are those of its tasks. I4: every host leads to a living task. */
  async #containers(up: readonly TaskRow[]): Promise<readonly string[]> {
    const problems: string[] = [];
    for (const host of hosts) {
      const listed = await this.#cluster.sandbox.run(host, [
        'sh',
        '-c',
        'ls /run/gantry/oci/* | grep -x "[a-z0-9]\\{25\\}" | sort -u || true',
      ]);
      const found = listed.split('\n').filter(Boolean);
      const expected = up.filter(({ node }) => node === host).map(({ id }) => id);
      for (const id of found) if (!expected.includes(id)) problems.push(`${host} runs ${id}, which nobody wants`);
      for (const id of expected) if (!found.includes(id)) problems.push(`${host} does not run ${id}`);
      await this.#cluster.http(`http://10.90.0.${host.slice(1)}:18090/`);
    }
    return problems;
  }

  /** Takes everything away; what is left of it on the hosts, in words. */
  async nothingLeft(): Promise<readonly string[]> {
    const { code, stderr } = await this.#cluster.gantry('rm', 'web', 'calm', 'one', 'each');
    if (code !== 0) return [`rm ended with ${code}: ${stderr}`];
    // Logs of what is gone wait until they are shipped, and some were floods.
    const deadline = systemClock.monotonic() + 90_000;
    for (;;) {
      const left = Object.entries(await remains(this.#cluster, hosts));
      if (left.length === 0) return [];
      if (systemClock.monotonic() > deadline)
        return left.map(([kind, lines]) => `left behind: ${kind}: ${lines.join(', ')}`);
      await systemClock.sleep(500);
    }
  }
}
