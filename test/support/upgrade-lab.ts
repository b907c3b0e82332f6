/** Hosts of a cluster that go over to another version and back, one by one: as an operator does it, and with kill -9 wherever it hurts. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { codeDir, controlPlaneSocket, hostLayout } from '#node-agent/sandbox/layout.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { Cluster } from './cluster.ts';
import { eventually } from './eventually.ts';
import { hostParts } from './host-parts.ts';
import { otherVersion, ownVersion, writeOtherVersion } from './other-version.ts';

/** How the program of before ends; `at every step`: by kill -9, and the next one too, again and again while it starts. */
export const endings = ['SIGTERM', 'SIGKILL', 'at every step'] as const;
export type Ending = (typeof endings)[number];

const within = { timeoutMs: 60_000, everyMs: 100 };
/** An agent, or a control plane, has come up by then. */
const startMs = 2_000;

export class UpgradeLab {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #other: string;

  /** Makes the other version where the cluster has none yet. */
  constructor(cluster: Cluster, random: Random) {
    this.#cluster = cluster;
    this.#random = random;
    this.#other = join(cluster.sandbox.layout.dir, 'other-version');
    if (!existsSync(this.#other)) writeOtherVersion(this.#other);
  }

  /** Of the agent that the control plane last heard. */
  async versionOf(host: string): Promise<string> {
    const found = (await this.#cluster.nodes()).find(({ name }) => name === host);
    return found?.agentVersion ?? '';
  }

  /** The host runs agent and watchdog of that version from here on, and is ready again. */
  async agentTo(host: string, version: string, ending: Ending): Promise<void> {
    await this.#put(host, version);
    await this.#end(host, hostParts.agent, ending);
    await eventually(async () => (await this.versionOf(host)) === version, within);
    await this.#cluster.nodeIs(host, 'ready', within.timeoutMs);
    await eventually(async () => {
      const running = await this.#on(host, `pgrep -a ${hostParts.watchdog} || true`);
      const programs = running.split('\n').filter(Boolean);
      return programs.length === 1 && programs[0]!.includes(`${this.#program(version)}/node-agent/watchdog/`);
    }, within);
  }

  /** The manager's control plane is of that version from here on, and answers. */
  async managerTo(manager: string, version: string, ending: Ending): Promise<void> {
    await this.#put(manager, version);
    await this.#end(manager, hostParts['control plane'], ending);
    await eventually(async () => (await this.versionOfManager(manager)) === version, within);
  }

  /** '' where it does not answer. */
  async versionOfManager(manager: string): Promise<string> {
    const socket = controlPlaneSocket(this.#cluster.sandbox.layout, manager);
    const { code, stdout } = await this.#cluster.gantry('version', '--json', '--socket', socket);
    return code === 0 ? ((JSON.parse(stdout) as { controlPlane: string | null }).controlPlane ?? '') : '';
  }

  /** Pids of the program on the host, in its own numbers. */
  async pids(host: string, pattern: string): Promise<string[]> {
    return (await this.#on(host, `pgrep ${pattern} || true`)).split('\n').filter(Boolean).sort();
  }

  #program(version: string): string {
    if (version === ownVersion) return codeDir;
    if (version === otherVersion) return this.#other;
    throw new Error(`no version ${version} here`);
  }

  /** In place for the next start: nothing is restarted yet. */
  async #put(host: string, version: string): Promise<void> {
    await this.#cluster.sandbox.up({ hosts: 1, settings: { [host]: { GANTRY_PROGRAM: this.#program(version) } } });
    await eventually(() =>
      existsSync(join(hostLayout(this.#cluster.sandbox.layout, host).run, 'sandbox/settings.env')),
    );
  }

  async #end(host: string, pattern: string, ending: Ending): Promise<void> {
    await this.#on(host, `kill -${ending === 'SIGTERM' ? 'TERM' : 'KILL'} $(pgrep ${pattern}) || true`);
    for (let times = 0; ending === 'at every step' && times < 4; times++) {
      await systemClock.sleep(this.#random.int(startMs));
      await this.#on(host, `kill -KILL $(pgrep ${pattern}) || true`);
    }
  }

  #on(host: string, line: string): Promise<string> {
    return this.#cluster.sandbox.run(host, ['sh', '-c', line]);
  }
}
