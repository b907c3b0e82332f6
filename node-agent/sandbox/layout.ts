/** Where everything of a sandbox lies: one page of names, so that commands, keeper and tests agree without asking each other. */
import { join, resolve } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';

/** Paths of one named sandbox. All of its state is below `dir`, all of its processes below the cgroup `gantry-sandbox/<name>`. */
export interface Layout {
  readonly name: string;
  readonly dir: string;
  /** Held by the keeper's process tree for as long as it lives. */
  readonly lockFile: string;
  /** Commands are sent to the keeper here. */
  readonly keeperSocket: string;
  readonly keeperLog: string;
  /** Connections into the virtual switch's network are made by whoever listens here. */
  readonly gatewaySocket: string;
  readonly stateFile: string;
}

/** What one host keeps on the machine's disk; each directory is bound to the place named beside it. */
export interface HostLayout {
  readonly dir: string;
  /** /run */
  readonly run: string;
  /** /var/lib/gantry */
  readonly gantry: string;
  /** /var/lib/containerd */
  readonly containerd: string;
  /** /var/log */
  readonly log: string;
  /** The upper layer of /etc. */
  readonly etc: string;
  readonly bootIdFile: string;
}

export type Role = 'manager' | 'worker';

/** The first manager: images come from its registry. */
export const firstManager = 'm1';
/** How many managers a sandbox may have. */
export const managerCounts: readonly number[] = [1, 3, 5];
/** The sandbox's registry, as images are named: plain HTTP inside the switch's network. */
export const registryName = 'registry:5000';
export const maxHosts = 200;

/** The repository (or installation) this code runs from. */
export const codeDir = resolve(import.meta.dirname, '../..');

/** The layout of the sandbox `name` under `root`. Throws `invalid` for a name that could leave its directory. */
export function layoutOf(name: string, root: string): Layout {
  if (!/^[a-z0-9][a-z0-9-]{0,30}$/.test(name)) {
    throw new Fault('invalid', `"${name}" cannot name a sandbox`, {
      remedy: 'use up to 31 of a-z, 0-9 and -, beginning with a letter or digit',
    });
  }
  const dir = join(root, name);
  const layout: Layout = {
    name,
    dir,
    lockFile: join(dir, 'lock'),
    keeperSocket: join(dir, 'keeper.sock'),
    keeperLog: join(dir, 'keeper.log'),
    gatewaySocket: join(dir, 'gateway.sock'),
    stateFile: join(dir, 'sandbox.json'),
  };
  const longest = controlPlaneSocket(layout, firstManager);
  if (longest.length > 100) {
    throw new Fault('invalid', `the sandbox directory ${dir} is too long for unix sockets in it`, {
      remedy: 'set GANTRY_SANDBOX_ROOT to a shorter directory',
    });
  }
  return layout;
}

/** Where sandboxes are kept unless the environment says otherwise. */
export function sandboxRoot(env: Readonly<Record<string, string | undefined>>): string {
  return env.GANTRY_SANDBOX_ROOT ?? '/var/lib/gantry/sandbox';
}

export function hostLayout(layout: Layout, host: string): HostLayout {
  const dir = join(layout.dir, host);
  return {
    dir,
    run: join(dir, 'run'),
    gantry: join(dir, 'gantry'),
    containerd: join(dir, 'containerd'),
    log: join(dir, 'log'),
    etc: join(dir, 'etc'),
    bootIdFile: join(dir, 'boot-id'),
  };
}

/** How a user calls `gantry sandbox WORDS` for this sandbox. */
export function commandLine({ name }: Layout, words: string): string {
  return `gantry sandbox ${name === 'default' ? '' : `--name ${name} `}${words}`;
}

/** That nobody holds this sandbox at the moment. */
export function notRunning(layout: Layout, cause?: unknown): Fault {
  return new Fault('unavailable', `sandbox ${layout.name} is not running`, {
    cause,
    remedy: commandLine(layout, 'up'),
  });
}

/** That this sandbox has no such host. */
export function noSuchHost(layout: Layout, host: string, hosts: readonly string[]): Fault {
  return new Fault('not-found', `sandbox ${layout.name} has no host ${host}`, {
    remedy: hosts.length > 0 ? `it has ${hosts.join(', ')}` : commandLine(layout, 'up'),
  });
}

/** The operator's socket at a manager of the sandbox, seen from the machine. */
export function controlPlaneSocket(layout: Layout, manager: string): string {
  return join(layout.dir, manager, 'run', 'gantry', 'control-plane.sock');
}

/** Their names. Faults: `invalid`, with the reason, for a number that no sandbox can have. */
export function managerNames(count: number): string[] {
  if (!managerCounts.includes(count))
    throw new Fault(
      'invalid',
      `a sandbox cannot have ${count} managers: a majority must live, which an even number does not make likelier, and more than five only make each write wait`,
      { remedy: `give --managers ${managerCounts.slice(0, -1).join(', ')} or ${managerCounts.at(-1)}` },
    );
  return Array.from({ length: count }, (_, index) => `m${index + 1}`);
}

export function roleOf(host: string): Role {
  return host.startsWith('m') ? 'manager' : 'worker';
}
