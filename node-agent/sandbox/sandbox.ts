/** A whole cluster on one machine, as functions: what the command line, the tests and the bench call. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Clock, systemClock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import {
  childrenOf,
  enterCgroupLine,
  type Hierarchy,
  machineHierarchies,
  makeCgroup,
  processesIn,
  removeCgroup,
  weighCgroup,
} from './cgroups.ts';
import { runCommand } from './command.ts';
import { lastLines } from './host.ts';
import {
  codeDir,
  commandLine,
  hostLayout,
  type Layout,
  layoutOf,
  managerNames,
  noSuchHost,
  notRunning,
  sandboxRoot,
} from './layout.ts';
import { ask, type HostOp, type SandboxStatus, type Wishes } from './protocol.ts';
import { assertTopology, flatTopology, numberOf } from './topology.ts';

const cgroupRoot = 'gantry-sandbox';
/** They are whole machines, with promises in seconds: two busy processes beside them may not have two thirds of the processors. */
const sandboxesWeigh = 10;
/** What is no host, but has a network of its own. */
const networkParts: readonly string[] = ['world', 'switch', 'router', 'nat'];

/** A named sandbox, running or not. */
export interface Sandbox {
  readonly layout: Layout;
  /**
   * Starts it, or what of it is off; harmless when it runs. `bare`: hosts with containerd and a registry, nothing of
   * Gantry. `settings`: GANTRY_… variables of a host's agent, or of a manager's control plane. The rest is its wires (topology.ts).
   */
  up(
    options?: Wishes & {
      readonly hosts?: number;
      readonly onProgress?: (text: string) => void;
    },
  ): Promise<SandboxStatus>;
  /** Ends every process of it, whatever state it is in, and removes its cgroups, mounts and (unless `keep`) its disk. */
  down(options?: { readonly keep?: boolean }): Promise<void>;
  /** Rejects with `unavailable` when it does not run. */
  status(): Promise<SandboxStatus>;
  /** Adds one more host. */
  add(onProgress?: (text: string) => void): Promise<SandboxStatus>;
  /** start: power on · kill: power plug (cable first) · crash: init alone dies · cut and join: the network cable. */
  act(op: HostOp, host: string, onProgress?: (text: string) => void): Promise<SandboxStatus>;
  /** The program and arguments that run `command` inside a host, or in the network of `world`, `switch`, `router` or `nat`. */
  execLine(host: string, command: readonly string[]): readonly [string, ...string[]];
  /** Runs a command inside a host to its end and resolves to its standard output. */
  run(host: string, command: readonly string[], input?: string): Promise<string>;
  /** Log files of a host, by service name. */
  logs(host: string): ReadonlyMap<string, string>;
}

/** The sandbox `name` ("default"), kept under `root` (GANTRY_SANDBOX_ROOT, /var/lib/gantry/sandbox). */
export function openSandbox(
  name = 'default',
  options: { readonly root?: string; readonly clock?: Clock } = {},
): Sandbox {
  const root = options.root ?? sandboxRoot(process.env);
  const layout = layoutOf(name, root);
  const clock = options.clock ?? systemClock;
  const sandbox: Sandbox = {
    layout,
    async up({ hosts = 3, onProgress, ...wishes } = {}) {
      if (process.getuid?.() !== 0)
        throw new Fault('forbidden', 'a sandbox needs root: it makes namespaces, mounts and cgroups');
      const { bare: _, managers, settings: told = {}, ...wires } = wishes;
      if (managers !== undefined) managerNames(managers);
      if (!existsSync(layout.stateFile)) assertTopology({ ...flatTopology, ...wires });
      for (const host of Object.keys(told)) numberOf(host);
      if (wires.ipv6 && !existsSync('/proc/sys/net/ipv6'))
        throw new Fault('unsupported', 'the kernel of this machine has no IPv6', { remedy: 'leave --ipv6 out' });
      mkdirSync(layout.dir, { recursive: true, mode: 0o755 });
      await refuseNamesake(layout, clock);
      const keeper = (await isListening(layout)) ? undefined : launchKeeper(layout, root, wishes);
      await untilListening(layout, clock, keeper);
      return await ask(layout, { op: 'up', hosts, wishes }, onProgress);
    },
    async down({ keep = false } = {}) {
      await endProcesses(layout, clock);
      await unmountLeftovers(layout);
      if (keep) for (const file of [layout.keeperSocket, layout.gatewaySocket]) rmSync(file, { force: true });
      else rmSync(layout.dir, { recursive: true, force: true });
    },
    status: () => ask(layout, { op: 'status' }),
    add: (onProgress) => ask(layout, { op: 'add' }, onProgress),
    act: (op, host, onProgress) => ask(layout, { op, host }, onProgress),
    execLine: (host, command) => execLine(layout, host, command),
    run(host, command, input) {
      const [program, ...args] = sandbox.execLine(host, command);
      return runCommand(program, args, input);
    },
    logs(host) {
      assertHost(layout, host);
      const dir = hostLayout(layout, host).log;
      const files = existsSync(dir) ? readdirSync(dir).filter((file) => file.endsWith('.log')) : [];
      return new Map(files.map((file) => [file.slice(0, -'.log'.length), join(dir, file)]));
    },
  };
  return sandbox;
}

/** One that is there, running or not. Faults: `precondition` (there is none of that name), with those there are. */
export function findSandbox(name: string, root = sandboxRoot(process.env)): Sandbox {
  const sandbox = openSandbox(name, { root });
  const names = listSandboxes(root);
  if (names.includes(name)) return sandbox;
  const others = names.length > 0 ? `there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ')}; or ` : '';
  throw new Fault('precondition', `there is no sandbox ${name}`, {
    remedy: `${others}start it: ${commandLine(sandbox.layout, 'up')}`,
  });
}

/** Names of the sandboxes that have a disk or processes. */
export function listSandboxes(root = sandboxRoot(process.env)): string[] {
  const kept = existsSync(root) ? readdirSync(root) : [];
  return [...new Set([...kept, ...childrenOf(machineHierarchies(), cgroupRoot)])].sort();
}

/** One that runs, kept under another root than asked for. */
export interface ForeignSandbox {
  readonly name: string;
  /** Undefined: its keeper has ended, and nothing else knows. */
  readonly root: string | undefined;
}

/** Those that are kept under `root`, running or not, and those that run and are kept elsewhere. */
export function sandboxesByRoot(root = sandboxRoot(process.env)): {
  readonly own: readonly string[];
  readonly foreign: readonly ForeignSandbox[];
} {
  const hierarchies = machineHierarchies();
  const kept = new Set(existsSync(root) ? readdirSync(root) : []);
  const running = childrenOf(hierarchies, cgroupRoot).map((name) => ({ name, root: keeperRoot(hierarchies, name) }));
  const isForeign = (one: ForeignSandbox) =>
    one.root === undefined ? !kept.has(one.name) : one.root !== resolve(root);
  const foreign = running.filter(isForeign);
  const foreignNames = new Set(foreign.map(({ name }) => name));
  const own = new Set([...kept, ...running.map(({ name }) => name)]);
  return { own: [...own].filter((name) => !foreignNames.has(name)).sort(), foreign };
}

/** That it is not ended from here: whoever started it may be at work with it. */
export function runsElsewhere({ name, root }: ForeignSandbox): Fault {
  return root === undefined
    ? new Fault('conflict', `processes of a sandbox ${name} run on this machine, kept nobody knows where: they stay`, {
        remedy: `gantry sandbox --name ${name} down ends them`,
      })
    : new Fault('conflict', `sandbox ${name} is kept under ${root}: it stays`, {
        remedy: `end it with GANTRY_SANDBOX_ROOT=${root} gantry sandbox --name ${name} down`,
      });
}

/** As `launchKeeper` has said it: the word after the name. */
function keeperRoot(hierarchies: readonly Hierarchy[], name: string): string | undefined {
  for (const pid of processesIn(hierarchies, `${cgroupRoot}/${name}/keeper`)) {
    const words = commandOf(pid);
    const at = words.findIndex((word) => word.endsWith('/keeper.ts'));
    if (at >= 0 && words[at + 1] === name && words[at + 2] !== undefined) return resolve(words[at + 2]!);
  }
  return undefined;
}

function commandOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

async function isListening(layout: Layout): Promise<boolean> {
  return ask(layout, { op: 'status' }).then(
    () => true,
    (error) => !isFault(error, 'unavailable'),
  );
}

/** The mark is the name alone: a sandbox of the same name under another root would be ended with this one. */
async function refuseNamesake(layout: Layout, clock: Clock): Promise<void> {
  const deadline = clock.monotonic() + 3_000;
  const path = `${cgroupRoot}/${layout.name}`;
  // The lock file appears a moment after the first process of our own.
  while (!existsSync(layout.lockFile) && processesIn(machineHierarchies(), path).length > 0) {
    if (clock.monotonic() > deadline) {
      throw new Fault('conflict', `another sandbox ${layout.name} runs on this machine, from another directory`, {
        remedy: 'choose another --name, or end that one where it was started',
      });
    }
    await clock.sleep(20);
  }
}

/** Starts the keeper detached, in its cgroup and a pid namespace whose init reaps; a lock lets only one of two win. */
function launchKeeper(layout: Layout, root: string, wishes: Wishes): ChildProcess {
  const hierarchies = machineHierarchies();
  const dirs = makeCgroup(hierarchies, `${cgroupRoot}/${layout.name}/keeper`);
  weighCgroup(hierarchies, cgroupRoot, sandboxesWeigh);
  const keeper = [
    process.execPath,
    join(codeDir, 'node-agent/sandbox/keeper.ts'),
    layout.name,
    root,
    JSON.stringify({ ...wishes, settings: {} }), // These come with the request, and never stand in a process list.
  ];
  const inside = `mount -t proc proc /proc && exec tini -- ${keeper.map((word) => `'${word}'`).join(' ')}`;
  const line = `${enterCgroupLine(dirs)} && exec flock --nonblock --conflict-exit-code 75 "$1" unshare --mount --pid --fork --kill-child --propagation private sh -c "$2"`;
  const log = openSync(layout.keeperLog, 'a');
  const child = spawn('sh', ['-c', line, 'sh', layout.lockFile, inside], {
    detached: true,
    stdio: ['ignore', log, log],
    cwd: '/',
  });
  closeSync(log);
  child.unref();
  return child;
}

async function untilListening(layout: Layout, clock: Clock, keeper: ChildProcess | undefined): Promise<void> {
  const deadline = clock.monotonic() + 15_000;
  while (clock.monotonic() < deadline) {
    if (await isListening(layout)) return;
    const code = keeper?.exitCode;
    if (code !== null && code !== undefined && code !== 75) break;
    await clock.sleep(20);
  }
  throw new Fault(
    'unavailable',
    `the keeper of sandbox ${layout.name} does not answer: ${lastLines(layout.keeperLog)}`,
    {
      remedy: `${commandLine(layout, 'down')}, then up again`,
    },
  );
}

/** Kills by the mark of the cgroup until none is left: also what a half-done `up` is starting at this moment. */
async function endProcesses(layout: Layout, clock: Clock): Promise<void> {
  const hierarchies = machineHierarchies();
  const path = `${cgroupRoot}/${layout.name}`;
  const deadline = clock.monotonic() + 10_000;
  for (;;) {
    const pids = processesIn(hierarchies, path).filter((pid) => pid !== process.pid);
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended between the look and the shot.
      }
    }
    if (pids.length === 0 && removeCgroup(hierarchies, path)) break;
    if (clock.monotonic() > deadline) {
      throw new Fault('timeout', `processes ${pids.slice(0, 5).join(', ')} of sandbox ${layout.name} do not end`, {
        remedy: 'see "ps" and the kernel log, then try again',
      });
    }
    await clock.sleep(10);
  }
  if (childrenOf(hierarchies, cgroupRoot).length === 0) removeCgroup(hierarchies, cgroupRoot);
}

/** The sandbox mounts nothing in the machine's own mount namespace; this is for what a hand has put there. */
async function unmountLeftovers(layout: Layout): Promise<void> {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '))
    .filter((point) => point.startsWith(`${layout.dir}/`));
  for (const point of mounts.reverse()) await runCommand('umount', ['--lazy', point]);
}

/** Every host has had a disk since it was made. */
function assertHost(layout: Layout, host: string): void {
  numberOf(host);
  if (existsSync(hostLayout(layout, host).dir)) return;
  if (!existsSync(layout.dir)) throw notRunning(layout);
  throw noSuchHost(layout, host, hostsOf(layout));
}

function hostsOf(layout: Layout): string[] {
  return readdirSync(layout.dir)
    .filter((entry) => /^[mh]\d+$/.test(entry))
    .sort();
}

function execLine(layout: Layout, host: string, command: readonly string[]): readonly [string, ...string[]] {
  const hierarchies = machineHierarchies();
  const cgroup = `${cgroupRoot}/${layout.name}/${host}`;
  const pids = processesIn(hierarchies, cgroup);
  if (networkParts.includes(host)) {
    const holder = pids.find((pid) => namespaceDepth(pid).depth === 2);
    if (holder === undefined)
      throw existsSync(layout.dir) ? noSuchHost(layout, host, hostsOf(layout)) : notRunning(layout);
    return ['nsenter', '-t', String(holder), '-n', '--', ...command];
  }
  assertHost(layout, host);
  const init = pids.find((pid) => isInitOf(pid, 3));
  if (init === undefined) {
    throw new Fault('unavailable', `host ${host} is off`, { remedy: commandLine(layout, `start ${host}`) });
  }
  const dirs = hierarchies.map((one) => innerCgroup(one, cgroup));
  const enter = `${enterCgroupLine(dirs)}; exec nsenter -t ${init} -m -p -n -u -i -C -- "$@"`;
  return ['sh', '-c', enter, 'sh', ...command];
}

/** Version 2 keeps a host's own processes in `init`, for its root must be free to pass controllers on. */
function innerCgroup(hierarchy: Hierarchy, cgroup: string): string {
  const dir = join(hierarchy.mountPoint, cgroup);
  const inner = join(dir, 'init');
  return hierarchy.version === 2 && existsSync(inner) ? inner : dir;
}

/** How deep in pid namespaces a process is, seen from here, and its number in the innermost. */
function namespaceDepth(pid: number): { readonly depth: number; readonly innermost: number } {
  try {
    const line = /^NSpid:(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
    const numbers = line.trim().split(/\s+/).map(Number);
    return { depth: numbers.length, innermost: numbers.at(-1) ?? 0 };
  } catch {
    return { depth: 0, innermost: 0 };
  }
}

function isInitOf(pid: number, depth: number): boolean {
  const place = namespaceDepth(pid);
  return place.depth === depth && place.innermost === 1;
}
