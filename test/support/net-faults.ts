/** A cluster whose network is broken in every way there is, by a seeded die, and held to the oracle after each. */
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { OperatorClient, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { type Random, seededRandom } from '#proto/kernel/random.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import type { Cluster } from './cluster.ts';
import {
  differences,
  goneOf,
  type KernelWords,
  ledTo,
  namesOf,
  oracle,
  questions,
  readAnswers,
  readKernel,
  type Stored,
} from './net-oracle.ts';

export const faultsProject = `
name: faults
services:
  web:
    image: registry:5000/hello:1
    stop_grace_period: 0s
    deploy: { replicas: 6 }
  one:
    image: registry:5000/hello:1
    stop_grace_period: 0s
    deploy: { replicas: 1 }
`;

/** How long after a fault has ended every node must say what the oracle says. */
export const convergeMs = 2_000;
const hosts = ['h1', 'h2', 'h3'] as const;
type Host = (typeof hosts)[number];

/** What hands break, in the shell of a host. */
const damages: readonly string[] = [
  'ip route del "$(ip -4 route show proto 71 | grep via | head -1 | cut -d" " -f1)"',
  'ip -4 route flush proto 71',
  'ip route flush table "$(ip -4 route show proto 71 table all | grep -o "table [0-9]*" | head -1 | cut -d" " -f2)"',
  'ip route replace unreachable "$(ip -4 route show proto 71 | grep via | head -1 | cut -d" " -f1)" metric 71 proto 71',
  'ip rule del priority 18201; ip rule del priority 18200',
  'nft delete table ip gantry',
  'nft flush chain ip gantry prerouting',
  'nft flush chain ip gantry forward',
  'nft flush map ip gantry services',
  'nft flush map ip gantry backends',
  'nft insert rule ip gantry forward drop',
  'ip address flush dev gantry0',
  'ip link set gantry0 down',
  'ip link del gantry0',
  'link=$(ip -o link show master gantry0 | head -1 | cut -d: -f2 | cut -d@ -f1); [ -z "$link" ] || ip link del $link',
  'link=$(ip -o link show master gantry0 | head -1 | cut -d: -f2 | cut -d@ -f1); [ -z "$link" ] || ip link set $link nomaster',
  'sysctl -qw net.ipv4.ip_forward=0',
];

const movedOn = 'the store moves on';
/** As long as that the store may move on after a fault. */
const longestMs = 30_000;

export interface FaultRun {
  readonly rounds: number;
  readonly seed: number;
  readonly log?: (line: string) => void;
  /** After each fault; `convergeMs` unless told. */
  readonly withinMs?: number;
}

export interface FaultOutcome {
  /** What did not come right in time, or led somebody to who was gone; with the round. */
  readonly failures: readonly string[];
  /** From the end of each fault until all nodes said what the oracle said; ms. */
  readonly convergedMs: readonly number[];
  /** How often each kind of fault was made. */
  readonly counts: Readonly<Record<string, number>>;
}

export class FaultLab {
  readonly #cluster: Cluster;
  readonly #client: OperatorClient;
  readonly #cut = new Set<Host | 'm1'>();
  /** Of each node, the addresses that were gone when it last said the right things. */
  readonly #gone = new Map<Host, ReadonlySet<string>>();
  /** Of each node, what it said of its kernel before the first fault. */
  readonly #kernels = new Map<Host, KernelWords>();

  /** `cluster` runs `faultsProject`. */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    const socket = join(cluster.sandbox.layout.dir, 'm1/run/gantry/control-plane.sock');
    this.#client = new OperatorClient(`unix:${socket}`, grpc.credentials.createInsecure(), channelOptions);
  }

  close(): void {
    this.#client.close();
  }

  /** What the control plane has stored, of one revision. */
  async stored(): Promise<Stored> {
    const list = (kind: string) =>
      call(this.#client, OperatorService.list, { kind, service: '', node: '', project: '', all: true });
    for (;;) {
      const [services, tasks, nodes] = await Promise.all([list('service'), list('task'), list('node')]);
      if (services.revision !== tasks.revision || tasks.revision !== nodes.revision) continue;
      return {
        revision: tasks.revision,
        services: services.services.map(({ service }) => ({
          id: service!.id,
          name: service!.spec!.name,
          project: service!.spec!.project,
          vip: service!.vip,
        })),
        tasks: tasks.tasks,
        nodes: nodes.nodes.map(({ node }) => node!),
      };
    }
  }

  #ask(host: Host, stored: Stored): Promise<string> {
    return this.#cluster.sandbox.run(host, ['sh', '-c', questions(namesOf(stored))]);
  }

  /** In what the nodes that are not cut off differ from the oracle, now; nothing: they agree with one revision of the store. */
  async #look(): Promise<readonly string[]> {
    const before = await this.stored();
    const asked = hosts.filter((host) => !this.#cut.has(host) && !this.#cut.has('m1'));
    const found = await Promise.all(asked.map((host) => this.#ask(host, before)));
    const problems: string[] = [];
    for (const [index, host] of asked.entries()) {
      const text = found[index] as string;
      const seen = readAnswers(text);
      const kernel = readKernel(text);
      const known = this.#kernels.get(host) ?? kernel;
      for (const line of kernel) if (!known.includes(line)) problems.push(`${host}: in the kernel ${line}`);
      const gone = this.#gone.get(host);
      for (const address of ledTo(seen)) {
        if (gone?.has(address) && goneOf(before).has(address)) problems.push(`GONE: ${host} leads to ${address}`);
      }
      problems.push(...differences(oracle(before, host), seen).map((line) => `${host}: ${line}`));
    }
    // What is stored has moved on meanwhile: nobody is to blame.
    if (problems.length > 0 && (await this.stored()).revision !== before.revision) return [movedOn];
    if (problems.length > 0) return problems;
    for (const [index, host] of asked.entries()) {
      this.#gone.set(host, goneOf(before));
      if (!this.#kernels.has(host)) this.#kernels.set(host, readKernel(found[index] as string));
    }
    return [];
  }

  /**
   * Until all agree; how long after now, or after the last change of what is stored, and what was wrong at the end. Whoever
   * leads to one who is gone fails at once.
   */
  async agree(withinMs: number): Promise<{ readonly ms: number; readonly problems: readonly string[] }> {
    const began = systemClock.monotonic();
    let since = began;
    for (;;) {
      const lookedAt = systemClock.monotonic();
      const problems = await this.#look().catch((error) => [String(error)]);
      if (problems[0] === movedOn && lookedAt - began < longestMs) since = systemClock.monotonic();
      const ms = Math.max(0, lookedAt - since);
      const gone = problems.filter((line) => line.startsWith('GONE'));
      if (gone.length > 0) return { ms, problems: gone };
      if (problems.length === 0) {
        return { ms, problems: ms <= withinMs ? [] : [`right only after ${Math.round(ms)} ms`] };
      }
      if (ms > withinMs) return { ms, problems };
      await systemClock.sleep(50);
    }
  }

  /** All of it, one after the other. */
  async run({ rounds, seed, log = () => {}, withinMs = convergeMs }: FaultRun): Promise<FaultOutcome> {
    const random = seededRandom(seed);
    const first = await this.agree(longestMs);
    const failures = first.problems.map((line) => `before any fault: ${line}`);
    const convergedMs: number[] = [];
    const counts: Record<string, number> = {};
    for (let round = 1; round <= rounds; round++) {
      const { kind, what } = await this.#fault(random);
      counts[kind] = (counts[kind] ?? 0) + 1;
      const { ms, problems } = await this.agree(withinMs);
      convergedMs.push(ms);
      log(
        `${round}/${rounds} ${what}: ${problems.length === 0 ? `right after ${Math.round(ms)} ms` : problems.join('; ')}`,
      );
      if (problems.length === 0) continue;
      failures.push(...problems.map((line) => `round ${round}, ${what}: ${line}`));
      // One fault is to be counted once.
      await this.agree(20_000);
    }
    for (const host of [...this.#cut]) await this.#cluster.sandbox.act('join', host);
    this.#cut.clear();
    return { failures, convergedMs, counts };
  }

  /** Makes one fault, or ends one; resolves when it is over, as far as it is to be over. */
  async #fault(random: Random): Promise<{ readonly kind: string; readonly what: string }> {
    const pick = <T>(items: readonly T[]): T => items[random.int(items.length)] as T;
    const { sandbox } = this.#cluster;
    const die = random.int(100);
    const [isCut] = this.#cut;
    if (isCut !== undefined && die < 50) {
      // Some heal before anybody has noticed, some long after.
      await systemClock.sleep(random.int(3_000));
      await sandbox.act('join', isCut);
      this.#cut.delete(isCut);
      return { kind: 'heal', what: `heal ${isCut}` };
    }
    if (isCut === undefined && die < 35) {
      const host = random.int(100) < 85 ? pick(hosts) : 'm1';
      await sandbox.act('cut', host);
      this.#cut.add(host);
      return { kind: 'cut', what: `cut ${host}` };
    }
    if (die < 65) {
      const host = pick(hosts);
      const began = systemClock.monotonic();
      // It is over when its successor is at work: with a session, where there can be one.
      const fail = this.#cut.has(host) || this.#cut.has('m1') ? '' : '--fail';
      const isUp = `curl -s -o /dev/null --max-time 1 ${fail} http://127.0.0.1:7403/healthz`;
      const kill = "kill -9 $(pgrep -f '[n]ode-agent/main.ts')";
      await sandbox.run(host, ['sh', '-c', `${kill}; until ${isUp}; do sleep 0.05; done`]);
      const ms = Math.round(systemClock.monotonic() - began);
      return { kind: 'agent kill', what: `kill the agent of ${host}, up after ${ms} ms` };
    }
    if (die < 75) {
      const replicas = 3 + random.int(6);
      await this.#cluster.gantry('scale', '--detach', `web=${replicas}`);
      return { kind: 'scale', what: `scale web to ${replicas}` };
    }
    const [host, damage] = [pick(hosts), pick(damages)];
    await sandbox.run(host, ['sh', '-c', `${damage} || true`]);
    return { kind: 'hand deletion', what: `on ${host}: ${damage}` };
  }
}
