/** Faults against a singleton that writes down each moment of its life into one file on the machine's disk, which all hosts of a sandbox share. */
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import type { Cluster } from './cluster.ts';
import { eventually } from './eventually.ts';

/** One line of a task: when by the kernel's clock since boot, and who. Lines are in the order in which they were written. */
interface Beat {
  readonly atMs: number;
  readonly writer: string;
}

export interface Overlap {
  readonly first: string;
  readonly second: string;
  /** From the first line of the second to the last line of the first; 0 ms may be less than the clock's step of 10 ms. */
  readonly ms: number;
}

/** Strikes `host`, where the singleton runs; the result mends it. */
type Strike = (lab: FenceLab, host: string) => Promise<() => Promise<unknown>>;

const agent = 'node-agent/main.ts';
const watchdog = 'node-agent/watchdog/main.ts';
const guard = 'watchdog/guard.sh';
const controlPlane = 'control-plane/main.ts';
const nothing = async () => {};

const signalled =
  (program: string, signal: string, where: 'host' | 'leader' = 'host'): Strike =>
  async (lab, host) => {
    const struck = where === 'leader' ? await lab.leader() : host;
    await lab.signal(struck, program, signal);
    return signal === 'STOP' ? () => lab.signal(struck, program, 'CONT') : nothing;
  };

/** Frames from the host, or to it, are lost at the switch. */
const oneWay =
  (side: 'iifname' | 'oifname'): Strike =>
  async ({ cluster: { sandbox } }, host) => {
    const chain = `chain c { type filter hook forward priority 0; ${side} "${host}" drop; }`;
    await sandbox.run('switch', ['nft', `table bridge fence { ${chain}; }`]);
    return () => sandbox.run('switch', ['nft', 'delete table bridge fence']);
  };

const both =
  (...strikes: readonly Strike[]): Strike =>
  async (lab, host) => {
    const mends = await Promise.all(strikes.map((strike) => strike(lab, host)));
    return () => Promise.all(mends.map((mend) => mend()));
  };

export const fenceFaults: Readonly<Record<string, Strike>> = {
  'power off': async ({ cluster: { sandbox } }, host) => {
    await sandbox.act('kill', host);
    return () => sandbox.act('start', host);
  },
  'cable cut': async ({ cluster: { sandbox } }, host) => {
    await sandbox.act('cut', host);
    return () => sandbox.act('join', host);
  },
  'nothing gets out': oneWay('iifname'),
  'nothing gets in': oneWay('oifname'),
  'agent killed': signalled(agent, 'KILL'),
  'agent stopped': signalled(agent, 'STOP'),
  'watchdog killed': signalled(watchdog, 'KILL'),
  'watchdog stopped': signalled(watchdog, 'STOP'),
  'guard killed': signalled(guard, 'KILL'),
  'guard stopped': signalled(guard, 'STOP'),
  'agent, watchdog and guard killed': both(
    signalled(agent, 'KILL'),
    signalled(watchdog, 'KILL'),
    signalled(guard, 'KILL'),
  ),
  'cut off, agent and guard stopped': both(
    signalled(agent, 'STOP'),
    signalled(guard, 'STOP'),
    async ({ cluster: { sandbox } }, host) => {
      await sandbox.act('cut', host);
      return () => sandbox.act('join', host);
    },
  ),
  'agent and watchdog stopped': both(signalled(agent, 'STOP'), signalled(watchdog, 'STOP')),
  'leader killed': signalled(controlPlane, 'KILL', 'leader'),
  'leader stopped': signalled(controlPlane, 'STOP', 'leader'),
  'control plane restarted': signalled(controlPlane, 'TERM', 'leader'),
  'etcd stopped': signalled('--data-dir /var/lib/gantry/etcd', 'STOP', 'leader'),
  'containerd killed': signalled('containerd --config', 'KILL'),
  'conmon killed': signalled('conmon --cid', 'KILL'),
  drained: async ({ cluster }, host) => {
    await cluster.gantry('drain', host);
    return () => cluster.gantry('activate', host);
  },
  'rolled out': async ({ cluster }) => {
    await cluster.gantry('restart', 'only', '--detach');
    return nothing;
  },
};

export interface FenceReport {
  readonly counts: Readonly<Record<string, number>>;
  readonly overlaps: readonly Overlap[];
  /** Longest silence of the singleton in each round, by fault. */
  readonly silences: readonly { readonly fault: string; readonly ms: number }[];
}

export class FenceLab {
  readonly cluster: Cluster;
  readonly #log: string;

  /** `directory`: on the machine's disk; made where it is missing. */
  constructor(cluster: Cluster, directory: string) {
    this.cluster = cluster;
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, 0o777);
    this.#log = join(directory, 'log');
  }

  get project(): string {
    return `
name: fence
services:
  only:
    image: registry:5000/hello:1
    x-failover: singleton
    x-drain: 0s
    stop_grace_period: 1s
    hostname: "{{.Node.Hostname}}-{{.Task.ID}}"
    user: "0"
    entrypoint: ["sh", "-c"]
    command:
      - |
        trap 'exit 0' TERM
        read -r host </proc/sys/kernel/hostname
        while :; do
          read -r up idle </proc/uptime
          echo "$$up $$host" >>/shared/log
          usleep 5000
        done
    volumes: ["${join(this.#log, '..')}:/shared"]
`;
  }

  beats(): Beat[] {
    if (!existsSync(this.#log)) return [];
    const lines = readFileSync(this.#log, 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => {
      const [up, writer = ''] = line.split(' ');
      return { atMs: Math.round(Number(up) * 1_000), writer };
    });
  }

  /** By the order of the lines alone, whatever clocks say: a task that writes after another one has begun was not over. */
  overlaps(): Overlap[] {
    const beats = this.beats();
    const lastOf = new Map<string, number>();
    for (const [index, { writer }] of beats.entries()) lastOf.set(writer, index);
    const overlaps: Overlap[] = [];
    const begun = new Set<string>();
    for (const [index, { writer, atMs }] of beats.entries()) {
      if (begun.has(writer)) continue;
      begun.add(writer);
      for (const other of begun) {
        const last = lastOf.get(other)!;
        if (other !== writer && last > index)
          overlaps.push({ first: other, second: writer, ms: beats[last]!.atMs - atMs });
      }
    }
    return overlaps;
  }

  /** Processes of the host whose command line has `program` in it, by their ids in the host's own pid namespace. */
  async signal(host: string, program: string, signal: string): Promise<void> {
    const script = `for p in /proc/[0-9]*; do
      [ "$p" = /proc/$$ ] || ! tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -qF -e "$1" || kill -s "$2" "\${p#/proc/}"
    done; true`;
    await this.cluster.sandbox.run(host, ['sh', '-c', script, 'signal', program, signal]);
  }

  /** The manager whose control plane leads. */
  leader(): Promise<string> {
    return eventually(async () => (await this.cluster.json<{ leader: string }>('info')).leader);
  }

  /** The host that the singleton last wrote on, once it writes. */
  async where(timeoutMs = 30_000): Promise<string> {
    return eventually(
      () => {
        const last = this.beats().at(-1);
        return last && systemClock.boottime() - last.atMs < 500 && last.writer.split('-')[0];
      },
      { timeoutMs },
    ) as Promise<string>;
  }

  async run(options: {
    readonly rounds: number;
    readonly seed: number;
    readonly log: (line: string) => void;
    /** Each at least once, in this order; then any. */
    readonly first?: readonly string[];
    /** A fault lasts no longer than this. */
    readonly mostMs?: number;
  }): Promise<FenceReport> {
    const random = seededRandom(options.seed);
    const counts: Record<string, number> = {};
    const silences: { fault: string; ms: number }[] = [];
    for (let round = 0; round < options.rounds; round++) {
      const names = Object.keys(fenceFaults);
      const fault = options.first?.[round] ?? names[random.int(names.length)]!;
      const ms = await this.#round(fault, 500 + random.int(options.mostMs ?? 7_500), options.log);
      counts[fault] = (counts[fault] ?? 0) + 1;
      silences.push({ fault, ms });
      const overlaps = this.overlaps();
      options.log(
        `${round + 1} ${fault}: silent for ${ms} ms${overlaps.length > 0 ? `; ${overlaps.length} OVERLAPS` : ''}`,
      );
    }
    return { counts, overlaps: this.overlaps(), silences };
  }

  /** The longest silence between two lines from the strike until all is well again. */
  async #round(fault: string, holdMs: number, log: (line: string) => void): Promise<number> {
    const host = await this.where();
    const beganAtMs = systemClock.boottime();
    const mend = await fenceFaults[fault]!(this, host);
    const untilMs = beganAtMs + holdMs;
    await eventually(() => systemClock.boottime() >= untilMs);
    await mend();
    // It may be another one by now, and is to be there for a while.
    const calmAtMs = systemClock.boottime();
    await eventually(
      async () => {
        const nodes = await this.cluster.nodes();
        const well = nodes.every(({ state, availability }) => state === 'ready' && availability === 'active');
        const last = this.beats().at(-1)!;
        const now = systemClock.boottime();
        return well && now - last.atMs < 500 && now - calmAtMs > 1_500;
      },
      { timeoutMs: 60_000, everyMs: 100 },
    ).catch((error) => {
      log(`${fault} on ${host}: ${error}`);
      throw error;
    });
    const beats = this.beats().filter(({ atMs }) => atMs >= beganAtMs - 1_000);
    return beats.slice(1).reduce((most, { atMs }, index) => Math.max(most, atMs - beats[index]!.atMs), 0);
  }
}
