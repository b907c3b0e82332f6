/** The faults of `npm run chaos`: each by its name, what it takes from whom, and how it ends. */
import { systemClock } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { Cluster } from './cluster.ts';
import { type HostPart, hostParts, killing } from './host-parts.ts';
import { otherVersion, ownVersion } from './other-version.ts';
import { type Ending, endings, UpgradeLab } from './upgrade-lab.ts';
import { noticedMs, setClock } from './wall-clock.ts';

/** Where a fault happens, and with which die. */
export interface Scene {
  readonly cluster: Cluster;
  readonly random: Random;
  /** A worker, drawn for this round. */
  readonly host: string;
}

export interface ChaosFault {
  /** As `--only` takes it. */
  readonly name: string;
  /** Of ../shared/FAULTS.md, where it is of that list: `F12`. */
  readonly number?: string;
  /** Tasks of the scene's host may be others afterwards; of all other hosts never. */
  readonly losesTasks?: true;
  /** Happens, lasts and ends; resolves when it has ended, as far as it is ours to end it. */
  readonly happen: (scene: Scene) => Promise<void>;
}

const isOfManager = (part: HostPart) => ['control plane', 'etcd', 'NATS', 'registry'].includes(part);

const shell = ({ cluster }: Scene, host: string, script: string) => cluster.sandbox.run(host, ['sh', '-c', script]);
const lasts = ({ random }: Scene, fromMs: number, toMs: number) =>
  systemClock.sleep(fromMs + random.int(toMs - fromMs));

const killed = (part: HostPart, number?: string): ChaosFault => ({
  name: `kill ${part}`,
  ...(number && { number }),
  happen: async (scene) => {
    await shell(scene, isOfManager(part) ? 'm1' : scene.host, `${killing(part)} || true`);
  },
});

/** Stopped for a while, then let go on: it finds a world that has gone on without it. */
const stopped = (part: HostPart, longestMs: number): ChaosFault => ({
  name: `stop ${part}`,
  number: 'F12',
  happen: async (scene) => {
    const where = isOfManager(part) ? 'm1' : scene.host;
    const pids = (await shell(scene, where, `pgrep ${hostParts[part]} || true`)).split('\n').filter(Boolean);
    for (const pid of pids) await shell(scene, where, `kill -STOP ${pid} || true`);
    await lasts(scene, 500, longestMs);
    for (const pid of pids) await shell(scene, where, `kill -CONT ${pid} || true`);
  },
});

/** What the sandbox does to a host, and undoes a while later. */
const undone = (
  fault: Pick<ChaosFault, 'name' | 'number' | 'losesTasks'>,
  act: 'kill' | 'crash' | 'cut',
  undo: 'start' | 'join',
  longestMs: number,
  victim?: string,
): ChaosFault => ({
  ...fault,
  happen: async (scene) => {
    const { sandbox } = scene.cluster;
    await sandbox.act(act, victim ?? scene.host);
    await lasts(scene, 500, longestMs);
    await sandbox.act(undo, victim ?? scene.host);
  },
});

/** A chain in the switch that sees what comes in from, or goes out to, one host. */
const onCable = (name: string, number: string, match: (host: string) => string, verdict: string): ChaosFault => ({
  name,
  number,
  losesTasks: true,
  happen: async (scene) => {
    const chain = `nft add table bridge chaos; nft 'add chain bridge chaos c { type filter hook forward priority 0; }'`;
    await shell(scene, 'switch', `${chain}; nft add rule bridge chaos c ${match(scene.host)} ${verdict}`);
    await lasts(scene, 1_000, 6_000);
    await shell(scene, 'switch', 'nft delete table bridge chaos');
  },
});

const endingOf = (random: Random) => endings[random.int(endings.length)] as Ending;

/** An hour off, perhaps to the other side then, and right again: no clock of that kind decides anything about hosts. */
const clockStep = (name: string, of: (scene: Scene) => string): ChaosFault => ({
  name,
  number: 'F12',
  happen: async (scene) => {
    const hour = scene.random.int(2) === 0 ? 3_600 : -3_600;
    for (const aheadSeconds of scene.random.int(2) === 0 ? [hour] : [hour, -hour]) {
      setClock(scene.cluster, of(scene), aheadSeconds);
      await lasts(scene, noticedMs + 500, 4_000);
    }
    setClock(scene.cluster, of(scene), 0);
    await systemClock.sleep(noticedMs);
  },
});

export const chaosFaults: readonly ChaosFault[] = [
  killed('agent', 'F2'),
  killed('watchdog'),
  killed('control plane', 'F1'),
  killed('containerd', 'F17'),
  killed('etcd', 'F6'),
  killed('NATS', 'F32'),
  killed('registry', 'F23'),
  {
    name: 'kill a task',
    number: 'F19',
    losesTasks: true,
    happen: async (scene) => {
      const tasks = (await scene.cluster.tasks()).filter(({ node, pid }) => node === scene.host && pid > 0);
      const task = tasks[scene.random.int(Math.max(1, tasks.length))];
      if (task) await shell(scene, scene.host, `kill -9 ${task.pid} || true`);
    },
  },
  {
    name: 'kill a conmon',
    number: 'F18',
    losesTasks: true,
    happen: async (scene) => {
      await shell(scene, scene.host, 'kill -9 $(pgrep -x conmon | head -1) || true');
    },
  },
  stopped('agent', 5_000),
  stopped('watchdog', 5_000),
  stopped('control plane', 5_000),
  stopped('etcd', 4_000),
  stopped('NATS', 5_000),
  stopped('containerd', 5_000),
  undone({ name: 'power off', number: 'F25', losesTasks: true }, 'kill', 'start', 5_000),
  undone({ name: 'crash', losesTasks: true }, 'crash', 'start', 3_000),
  undone({ name: 'cut', number: 'F14', losesTasks: true }, 'cut', 'join', 8_000),
  undone({ name: 'cut the manager', number: 'F30' }, 'cut', 'join', 8_000, 'm1'),
  {
    name: 'flap',
    number: 'F30',
    losesTasks: true,
    happen: async (scene) => {
      for (let time = 0; time < 4; time++) {
        await scene.cluster.sandbox.act('cut', scene.host);
        await systemClock.sleep(500);
        await scene.cluster.sandbox.act('join', scene.host);
        await systemClock.sleep(500);
      }
    },
  },
  onCable('deaf', 'F30', (host) => `oifname ${host}`, 'drop'),
  onCable('mute', 'F30', (host) => `iifname ${host}`, 'drop'),
  onCable('lossy', 'F30', (host) => `iifname ${host} numgen random mod 100 '<' 30`, 'drop'),
  onCable('partial cut', 'F30', (host) => `iifname ${host} oifname ${host === 'h1' ? 'h2' : 'h1'}`, 'drop'),
  {
    name: 'flush rules',
    number: 'F28',
    happen: async (scene) => {
      await shell(scene, scene.host, 'nft flush ruleset');
    },
  },
  {
    name: 'slow disk',
    number: 'F11',
    happen: async (scene) => {
      const inject = 'fsync,fdatasync:delay_exit=400000';
      await shell(
        scene,
        'm1',
        `timeout 4 strace -f -qq -o /dev/null -e trace=fsync,fdatasync -e inject=${inject} -p $(pgrep -x etcd) || true`,
      );
    },
  },
  {
    name: 'full disk',
    number: 'F22',
    happen: async (scene) => {
      // Only where the agent's directory is a small disk of its own.
      await shell(
        scene,
        smallDiskHost,
        `mountpoint -q ${agentDirectory} && cat /dev/zero > ${agentDirectory}/filler || true`,
      );
      await lasts(scene, 1_000, 4_000);
      await shell(scene, smallDiskHost, `rm -f ${agentDirectory}/filler`);
    },
  },
  {
    name: 'upgrade an agent',
    number: 'F36',
    happen: async ({ cluster, random, host }) => {
      const lab = new UpgradeLab(cluster, random);
      const version = (await lab.versionOf(host)) === ownVersion ? otherVersion : ownVersion;
      await lab.agentTo(host, version, endingOf(random));
    },
  },
  {
    name: 'upgrade the control plane',
    number: 'F36',
    happen: async ({ cluster, random }) => {
      const lab = new UpgradeLab(cluster, random);
      const version = (await lab.versionOfManager('m1')) === ownVersion ? otherVersion : ownVersion;
      await lab.managerTo('m1', version, endingOf(random));
    },
  },
  clockStep('clock of a host', ({ host }) => host),
  clockStep('clock of the manager', () => 'm1'),
  {
    name: 'flood of logs',
    number: 'F34',
    happen: async (scene) => {
      await scene.cluster.gantry(
        'exec',
        'one.1',
        'sh',
        '-c',
        'timeout 3 yes 0123456789012345678901234567890123456789 > /proc/1/fd/1',
      );
    },
  },
];

/** The host whose agent has a small disk of its own, and where that is. */
export const smallDiskHost = 'h3';
export const agentDirectory = '/var/lib/gantry/agent';
