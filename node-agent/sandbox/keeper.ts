/** The process that holds a sandbox: parent of its switch, its hosts and its forwarder; the commands only ask it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type Clock, systemClock } from '#proto/kernel/clock.ts';
import { describe, Fault } from '#proto/kernel/errors.ts';
import { jsonLog, type Log } from '#proto/kernel/log.ts';
import { enterCgroupLine, machineHierarchies, makeCgroup } from './cgroups.ts';
import { type Forwarder, openForwarder } from './forwarder.ts';
import { type HostParts, lastWord, type RunningHost, startHost, writeSettings } from './host.ts';
import {
  commandLine,
  controlPlaneSocket,
  firstManager,
  hostLayout,
  type Layout,
  layoutOf,
  managerNames,
  maxHosts,
  noSuchHost,
  roleOf,
} from './layout.ts';
import { startNetwork } from './network.ts';
import { connectOperator, type Operator } from './operator.ts';
import { answer, type HostOp, type Request, type SandboxStatus, type Settings, type Wishes } from './protocol.ts';
import { assertTopology, flatTopology, numberOf, placeOf, type Topology } from './topology.ts';

/** What survives the keeper: which hosts there are, how they are wired, and what they are told. */
interface Saved {
  readonly hosts: readonly string[];
  /** How many managers. */
  readonly managers: number;
  readonly bare: boolean;
  readonly topology: Topology;
  readonly settings: Settings;
}

type Progress = (text: string) => void;

class Keeper {
  readonly #layout: Layout;
  readonly #parts: HostParts;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #hosts = new Map<string, RunningHost>();
  readonly #operator: Operator;
  readonly #forwarder: Forwarder;
  #saved: Saved;
  /** Requests that change something run one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(layout: Layout, parts: Omit<HostParts, 'settings'>, saved: Saved, log: Log) {
    this.#layout = layout;
    this.#parts = { ...parts, settings: (host) => this.#saved.settings[host] ?? {} };
    this.#clock = parts.clock;
    this.#saved = saved;
    this.#log = log;
    this.#operator = connectOperator(() => this.#managersUp().map((name) => controlPlaneSocket(layout, name)));
    this.#forwarder = openForwarder({
      gateway: layout.gatewaySocket,
      operator: this.#operator,
      clock: this.#clock,
      log,
    });
  }

  handle(request: Request, progress: Progress): Promise<SandboxStatus> {
    if (request.op === 'status') return this.#status();
    const turn = this.#turn.then(() => this.#change(request, progress));
    this.#turn = turn.catch((error) => this.#log.warn('a command failed', { step: request.op, error }));
    return turn;
  }

  async #change(request: Exclude<Request, { op: 'status' }>, progress: Progress): Promise<SandboxStatus> {
    if (request.op === 'up') await this.#up(request.hosts, request.wishes, progress);
    else if (request.op === 'add') await this.#add(progress);
    else await this.#act(request.op, request.host, progress);
    return this.#status();
  }

  async #up(count: number, wishes: Wishes, progress: Progress): Promise<void> {
    assertSame(this.#layout, this.#saved, wishes);
    this.#set(wishes.settings ?? {});
    const wanted = [...this.#parts.managers, ...Array.from({ length: count }, (_, index) => `h${index + 1}`)];
    this.#save([...new Set([...wanted, ...this.#saved.hosts])]);
    await this.#boot(this.#saved.hosts, progress);
  }

  /** What hosts are told from now on; those that run take it up when what it is for is started anew. */
  #set(settings: Settings): void {
    for (const [host, variables] of Object.entries(settings)) {
      const told = { ...this.#saved.settings[host], ...variables };
      this.#saved = { ...this.#saved, settings: { ...this.#saved.settings, [host]: told } };
      if (this.#hosts.get(host)?.isRunning()) writeSettings(this.#parts, host);
    }
  }

  async #add(progress: Progress): Promise<void> {
    const next = Array.from({ length: maxHosts }, (_, index) => `h${index + 1}`).find(
      (name) => !this.#saved.hosts.includes(name),
    );
    if (next === undefined) throw new Fault('exhausted', `a sandbox holds at most ${maxHosts} hosts`);
    this.#save([...this.#saved.hosts, next]);
    await this.#boot([next], progress);
  }

  async #act(op: HostOp, name: string, progress: Progress): Promise<void> {
    numberOf(name);
    if (!this.#saved.hosts.includes(name)) throw noSuchHost(this.#layout, name, this.#saved.hosts);
    const host = this.#hosts.get(name);
    if (op === 'start') return this.#boot([name], progress);
    if (!host?.isRunning()) {
      if (op === 'kill' || op === 'crash') return;
      throw new Fault('precondition', `host ${name} is off`, { remedy: commandLine(this.#layout, `start ${name}`) });
    }
    if (op === 'cut' || op === 'join') return host.setCable(op === 'join');
    if (op === 'kill') await host.setCable(false); // No FIN of the dying reaches anybody: this is a power plug.
    await host.killInit();
  }

  /** Boots those of the hosts that are off, side by side, and waits until they are nodes. */
  async #boot(names: readonly string[], progress: Progress): Promise<void> {
    const off = names.filter((name) => !this.#hosts.get(name)?.isRunning());
    const startedAt = this.#clock.monotonic();
    await Promise.all(
      off.map(async (name) => {
        this.#hosts.set(name, await startHost(this.#parts, name));
      }),
    );
    await this.#shareIdentity(off);
    if (off.length > 0) progress(`${off.join(', ')} on after ${Math.round(this.#clock.monotonic() - startedAt)} ms`);
    if (this.#saved.bare) await this.#untilParts(off);
    else await this.#untilJoined(names, progress);
  }

  /** Brings managers that have none yet the identity that the first one makes, as an operator would. */
  async #shareIdentity(names: readonly string[]): Promise<void> {
    if (this.#saved.bare) return;
    const pkiOf = (name: string) => join(hostLayout(this.#layout, name).gantry, 'control-plane', 'pki');
    const without = names.filter(
      (name) => roleOf(name) === 'manager' && name !== firstManager && !existsSync(join(pkiOf(name), 'ca.pem')),
    );
    if (without.length === 0) return;
    const made = pkiOf(firstManager);
    const log = join(hostLayout(this.#layout, firstManager).log, 'control-plane.log');
    // The last that init makes.
    await this.#until(() => existsSync(join(made, 'seal.key')), 60_000, `the identity of ${firstManager}`, log);
    for (const name of without) {
      mkdirSync(pkiOf(name), { recursive: true, mode: 0o700 });
      for (const file of ['seal.key', 'cross.pem', 'ca.key', 'ca.pem']) {
        if (!existsSync(join(made, file))) continue; // A CA that was never rotated is vouched for by no other.
        cpSync(join(made, file), join(pkiOf(name), `${file}.new`));
        renameSync(join(pkiOf(name), `${file}.new`), join(pkiOf(name), file));
      }
    }
  }

  /** Of a bare sandbox: every containerd has its socket. */
  async #untilParts(names: readonly string[]): Promise<void> {
    for (const name of names.filter((one) => roleOf(one) === 'worker')) {
      const socket = join(hostLayout(this.#layout, name).run, 'containerd', 'containerd.sock');
      await this.#until(
        () => existsSync(socket),
        20_000,
        `containerd of ${name}`,
        join(hostLayout(this.#layout, name).log, 'containerd.log'),
      );
    }
  }

  async #untilJoined(names: readonly string[], progress: Progress): Promise<void> {
    const managers = this.#managersUp();
    if (managers.length * 2 <= this.#saved.managers) return; // Hosts may be started while too few managers are on.
    const workers = names.filter((name) => roleOf(name) === 'worker');
    const managerLog = join(hostLayout(this.#layout, managers[0] as string).log, 'control-plane.log');
    await this.#until(
      async () => {
        await this.#letIn(workers, progress);
        return true;
      },
      60_000,
      'the control plane',
      managerLog,
    );
    progress('control plane answers');
    for (const name of workers) {
      if (!this.#hosts.get(name)?.isPlugged()) continue;
      // A node may still be called ready from the life before: this boot is meant.
      const bootId = readFileSync(hostLayout(this.#layout, name).bootIdFile, 'utf8').trim();
      const isThisBoot = (node: { name: string; bootId: string }) => node.name === name && node.bootId === bootId;
      const ready = async () => (await this.#operator.readyNodes()).some(isThisBoot);
      await this.#until(ready, 60_000, `node ${name}`, join(hostLayout(this.#layout, name).log, 'agent.log'));
      writeFileSync(this.#joinedFile(name), '');
      progress(`${name} is ready`);
    }
  }

  /** Hands a join token to hosts that never joined, and to those whose node was removed: they become nodes anew. */
  async #letIn(names: readonly string[], progress: Progress): Promise<void> {
    const members = await this.#operator.nodeIds();
    const fresh = names.filter((name) => !existsSync(this.#joinedFile(name)));
    const removed = names.filter((name) => this.#isUp(name) && !this.#isMember(name, members));
    if (fresh.length === 0 && removed.length === 0) return;
    const token = await this.#operator.createToken();
    for (const name of new Set([...fresh, ...removed])) {
      writeFileSync(join(hostLayout(this.#layout, name).run, 'sandbox', 'join-token'), token, { mode: 0o600 });
    }
    for (const name of removed) {
      rmSync(this.#joinedFile(name), { force: true });
      rmSync(this.#identityDir(name), { recursive: true, force: true });
      this.#hosts.get(name)?.killAgent();
      progress(`${name} was removed from the cluster: it joins anew`);
    }
  }

  /** Whether the identity that the host's agent has, if any, is of one of these nodes. */
  #isMember(name: string, members: readonly string[]): boolean {
    try {
      const text = readFileSync(join(this.#identityDir(name), 'identity.json'), 'utf8');
      return members.includes((JSON.parse(text) as { nodeId: string }).nodeId);
    } catch {
      return true; // None yet, or one that its agent complains about.
    }
  }

  async #until(check: () => boolean | Promise<boolean>, timeoutMs: number, what: string, log: string): Promise<void> {
    const deadline = this.#clock.monotonic() + timeoutMs;
    let last: unknown = 'not ready';
    while (this.#clock.monotonic() < deadline) {
      try {
        if (await check()) return;
      } catch (error) {
        last = error;
      }
      await this.#clock.sleep(25);
    }
    throw new Fault(
      'timeout',
      `${what} is not up after ${timeoutMs / 1_000} s: ${describe(last)}; the last in its log: ${lastWord(log)}`,
      {
        remedy: `read ${log}`,
      },
    );
  }

  async #status(): Promise<SandboxStatus> {
    const nodes = this.#saved.bare ? undefined : await this.#operator.readyNodes().catch(() => undefined);
    return {
      name: this.#layout.name,
      bare: this.#saved.bare,
      topology: this.#saved.topology,
      hosts: this.#saved.hosts.map((name) => ({
        name,
        role: roleOf(name),
        address: placeOf(this.#saved.topology, name).address,
        power: this.#hosts.get(name)?.isRunning() ? 'on' : 'off',
        cable: this.#hosts.get(name)?.isPlugged() === false ? 'cut' : 'plugged',
      })),
      controlPlane: this.#saved.bare ? 'none' : nodes ? 'answering' : 'silent',
      // A host without power or cable is no node, whether the cluster has noticed or not.
      ready: nodes?.map((node) => node.name).filter((name) => this.#isUp(name)) ?? [],
      ports: this.#forwarder.ports(),
    };
  }

  /** Those that have power and cable. */
  #managersUp(): readonly string[] {
    return this.#parts.managers.filter((name) => this.#isUp(name));
  }

  #isUp(name: string): boolean {
    const host = this.#hosts.get(name);
    return host?.isRunning() === true && host.isPlugged();
  }

  #joinedFile(name: string): string {
    return join(hostLayout(this.#layout, name).gantry, 'joined');
  }

  #identityDir(name: string): string {
    return join(hostLayout(this.#layout, name).gantry, 'agent', 'identity');
  }

  #save(hosts: readonly string[]): void {
    this.#saved = { ...this.#saved, hosts };
    writeFileSync(this.#layout.stateFile, JSON.stringify(this.#saved));
  }
}

/** The wires of a sandbox are laid once: an `up` that asks for others is refused. */
function assertSame(layout: Layout, saved: Saved, { settings: _, ...wishes }: Wishes): void {
  const held: Readonly<Record<string, unknown>> = { bare: saved.bare, managers: saved.managers, ...saved.topology };
  for (const [key, wish] of Object.entries(wishes)) {
    if (JSON.stringify(held[key]) === JSON.stringify(wish)) continue;
    throw new Fault('precondition', `sandbox ${layout.name} is there with ${key} ${JSON.stringify(held[key])}`, {
      remedy: `${commandLine(layout, 'down')}, then up again`,
    });
  }
}

/** A process of the sandbox in a cgroup of its own, started again 300 ms after it ends unless `once`. */
function startPart(
  parts: { clock: Clock; log: Log },
  cgroupDirs: readonly string[],
  line: string,
  once: boolean,
): ChildProcess {
  const child = spawn('sh', ['-c', `${enterCgroupLine(cgroupDirs)} && exec ${line}`], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  child.on('exit', (code) => {
    parts.log.warn('a part of the sandbox ended', { step: line, count: code ?? -1 });
    if (once) process.exit(1); // Without its switch a sandbox is nothing: end it whole.
    parts.clock.after(300, () => startPart(parts, cgroupDirs, line, once));
  });
  return child;
}

async function main(name: string, root: string, wishes: Wishes): Promise<void> {
  const layout = layoutOf(name, root);
  const clock = systemClock;
  const log = jsonLog((line) => process.stderr.write(line), clock.now, 'info', 'sandbox');
  const hierarchies = machineHierarchies();
  const cgroup = (part: string) => `gantry-sandbox/${name}/${part}`;
  const { bare = false, managers = 1, settings: _, ...wires } = wishes;
  const fresh: Saved = { hosts: [], managers, bare, topology: { ...flatTopology, ...wires }, settings: {} };
  const saved: Saved = existsSync(layout.stateFile)
    ? { ...fresh, ...(JSON.parse(readFileSync(layout.stateFile, 'utf8')) as Partial<Saved>) }
    : fresh;
  assertTopology(saved.topology);
  mkdirSync(layout.dir, { recursive: true });
  const network = await startNetwork(
    (part, line, once) => startPart({ clock, log }, makeCgroup(hierarchies, cgroup(part)), line, once),
    layout,
    saved.topology,
    clock,
  );
  const compileCache = process.env.NODE_COMPILE_CACHE ?? '/var/cache/gantry';
  const parts = {
    layout,
    hierarchies,
    keeperCgroup: cgroup('keeper'),
    switchPid: network.switchPid,
    compileCache,
    bare: saved.bare,
    topology: saved.topology,
    managers: managerNames(saved.managers),
    clock,
  };
  const keeper = new Keeper(layout, parts, saved, log);
  rmSync(layout.keeperSocket, { force: true });
  const server = createServer((socket) => answer(socket, (request, progress) => keeper.handle(request, progress)));
  server.listen(layout.keeperSocket);
}

const [name, root, wishes = '{}'] = process.argv.slice(2);
if (name === undefined || root === undefined) throw new Fault('invalid', 'usage: keeper.ts NAME ROOT [WISHES as JSON]');
await main(name, root, JSON.parse(wishes) as Wishes);
