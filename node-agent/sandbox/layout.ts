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

/** The addresses on the virtual switch; every sandbox has a switch of its own, so all use the same. */
export const switchNetwork = '10.90.0.0/24';
export const managerAddress = '10.90.0.250';
export const worldAddress = '10.90.0.254';
/** An address beyond the switch that answers HTTP with the address of who asks. */
export const outsideAddress = '203.0.113.1';
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
  const longest = controlPlaneSocket(layout);
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

/** The operator socket of the sandbox's manager, seen from the machine. */
export function controlPlaneSocket(layout: Layout): string {
  return join(layout.dir, 'm1', 'run', 'gantry', 'control-plane.sock');
}

/** The address of a host: m1 is the manager, hK the K-th worker. Throws `invalid` for other names. */
export function addressOf(host: string): string {
  if (host === 'm1') return managerAddress;
  const index = /^h([1-9][0-9]{0,2})$/.exec(host)?.[1];
  if (index === undefined || Number(index) > maxHosts) {
    throw new Fault('invalid', `"${host}" is not a host of a sandbox`, {
      remedy: `hosts are m1 and h1 to h${maxHosts}`,
    });
  }
  return `10.90.0.${index}`;
}

/** A host keeps its network card when it boots anew: with another one, its neighbours would talk to the old for ten seconds. */
export function hardwareAddressOf(host: string): string {
  return `02:67:00:00:00:${Number(addressOf(host).split('.').at(-1)).toString(16).padStart(2, '0')}`;
}

export function roleOf(host: string): Role {
  return host.startsWith('m') ? 'manager' : 'worker';
}
