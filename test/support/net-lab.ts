/** Hosts as network namespaces on a switch of their own, each with a process that holds its Network; nothing outside is touched. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';
import type { Attachment, NetworkWanted } from '#net/network.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { nodeId, taskId } from '#proto/model/ids.ts';
import { attachment, networkWanted, peer } from './endpoint.ts';
import { eventually } from './eventually.ts';
import { endsWithTest } from './process.ts';

const execute = promisify(execFile);
const script = path.join(import.meta.dirname, 'net-host-process.ts');

/** What `command` prints; in the network namespace at `netns` where given. Rejects with what it says when it fails. */
async function run(netns: string | undefined, ...command: string[]): Promise<string> {
  const all = netns === undefined ? command : ['nsenter', `--net=${netns}`, ...command];
  const { stdout } = await execute(all[0] as string, all.slice(1), { timeout: 60_000 }).catch((error) => {
    error.message += error.stdout;
    throw error;
  });
  return stdout;
}

/** A namespace that stands for the outside: gateway of all hosts, with an address that only it has. */
export const worldAddress = '198.51.100.1';

/** What the IPv6 addresses of a link begin with. */
const link6 = (link: number) => (link === 0 ? 'fd00:90::' : 'fd00:90:0:1::');

const netnsOf = (name: string) => `/run/netns/${name}`;

/** How the hosts are joined. */
export interface LabLayout {
  /** Hosts 2, 4 … are on a link of their own, 10.90.1.0/24, behind a router. */
  readonly routed?: boolean;
  /** The widest packet that the router lets through, where it is not as wide as the links; bytes. */
  readonly mtu?: number;
}

export class NetLab {
  readonly #tag = newId(systemRandom).slice(0, 6);
  readonly #dir = fs.mkdtempSync(path.join(os.tmpdir(), 'gantry-net-'));
  readonly #hosts: LabHost[] = [];
  readonly #children: ChildProcess[] = [];
  readonly #layout: LabLayout;
  readonly world = `/run/netns/gtw${this.#tag}`;
  /** The namespace of the router of a routed layout: eth0 is on the first link (.253), eth1 on the second. */
  readonly router = `/run/netns/gtr${this.#tag}`;

  private constructor(layout: LabLayout) {
    this.#layout = layout;
  }

  static async start(hosts: number, layout: LabLayout = {}): Promise<NetLab> {
    const lab = new NetLab(layout);
    await run(undefined, 'ip', 'netns', 'add', `gtw${lab.#tag}`);
    await lab.outside('ip', 'link', 'set', 'lo', 'up');
    await lab.outside('ip', 'address', 'add', `${worldAddress}/32`, 'dev', 'lo');
    await lab.outside('ip', 'link', 'add', 'switch', 'type', 'bridge');
    await lab.outside('ip', 'link', 'set', 'switch', 'up');
    await lab.outside('ip', 'address', 'add', '10.90.0.254/24', 'dev', 'switch');
    if (layout.routed) await lab.#addRouter(layout.mtu);
    for (let number = 1; number <= hosts; number++) await lab.#addHost(number);
    return lab;
  }

  /** Locked, the width of a route counts for what is forwarded: the hosts see links of 1500, as on a way through the internet. */
  async #addRouter(mtu = 1500): Promise<void> {
    const name = `gtr${this.#tag}`;
    await run(undefined, 'ip', 'netns', 'add', name);
    for (const which of ['all', 'default'])
      await run(this.router, 'sysctl', '-qw', `net.ipv6.conf.${which}.accept_dad=0`);
    await this.outside('ip', 'link', 'add', 'switch1', 'type', 'bridge');
    await this.outside('ip', 'link', 'set', 'switch1', 'up');
    await this.inside(this.router, 'ip', 'link', 'set', 'lo', 'up');
    for (const [index, link] of ['switch', 'switch1'].entries()) {
      const card = `eth${index}`;
      await this.outside('ip', 'link', 'add', `router${index}`, 'type', 'veth', 'peer', 'name', card, 'netns', name);
      await this.outside('ip', 'link', 'set', `router${index}`, 'master', link, 'up');
      await this.inside(this.router, 'ip', 'address', 'add', `10.90.${index}.253/24`, 'dev', card);
      await this.inside(this.router, 'ip', 'address', 'add', `${link6(index)}253/64`, 'dev', card, 'nodad');
      await this.inside(this.router, 'ip', 'link', 'set', card, 'up');
      const way = [`10.90.${index}.0/24`, 'dev', card, 'proto', 'kernel', 'scope', 'link', 'src', `10.90.${index}.253`];
      await this.inside(this.router, 'ip', 'route', 'replace', ...way, 'mtu', 'lock', String(mtu));
    }
    await this.inside(this.router, 'ip', 'route', 'add', 'default', 'via', '10.90.0.254');
    for (const setting of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'])
      await this.inside(this.router, 'sysctl', '-qw', `${setting}=1`);
    await this.outside('ip', 'route', 'add', '10.90.1.0/24', 'via', '10.90.0.253');
  }

  async #addHost(number: number): Promise<void> {
    const name = `gth${number}${this.#tag}`;
    const { routed } = this.#layout;
    const second = routed === true && number % 2 === 0;
    await run(undefined, 'ip', 'netns', 'add', name);
    for (const which of ['all', 'default'])
      await run(netnsOf(name), 'sysctl', '-qw', `net.ipv6.conf.${which}.accept_dad=0`);
    await this.outside('ip', 'link', 'add', `h${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    await this.outside('ip', 'link', 'set', `h${number}`, 'master', second ? 'switch1' : 'switch', 'up');
    const host = new LabHost(number, name, path.join(this.#dir, `h${number}`), second ? 1 : 0);
    this.#hosts.push(host);
    await host.run('ip', 'link', 'set', 'lo', 'up');
    await host.run('ip', 'address', 'add', `${host.address}/24`, 'dev', 'eth0');
    await host.run('ip', 'address', 'add', `${host.address6}/64`, 'dev', 'eth0', 'nodad');
    await host.run('ip', 'link', 'set', 'eth0', 'up');
    await host.run('ip', 'route', 'add', 'default', 'via', second ? '10.90.1.253' : '10.90.0.254');
    if (routed && !second) await host.run('ip', 'route', 'add', '10.90.1.0/24', 'via', '10.90.0.253');
    if (routed) {
      const other = second ? ['fd00:90::/64', 'via', 'fd00:90:0:1::253'] : ['fd00:90:0:1::/64', 'via', 'fd00:90::253'];
      await host.run('ip', '-6', 'route', 'add', ...other);
    }
    host.startAgent();
  }

  host(number: number): LabHost {
    return this.#hosts[number - 1] as LabHost;
  }

  /** Records what passes the first card of the router; `stop` ends that and gives all bytes. */
  async capture(): Promise<{ readonly stop: () => Promise<Buffer> }> {
    const file = path.join(this.#dir, `capture-${newId(systemRandom)}`);
    const words = [`--net=${this.router}`, 'tcpdump', '-i', 'eth0', '-s', '0', '--immediate-mode', '-U', '-w', file];
    const child = spawn('setpriv', [...endsWithTest, 'nsenter', ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#children.push(child);
    await new Promise<void>((resolve, reject) => {
      child.once('exit', () => reject(new Error('tcpdump ended')));
      child.stderr?.on('data', (data) => String(data).includes('listening on') && resolve());
    });
    const stop = async () => {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGINT');
      await ended;
      return fs.readFileSync(file);
    };
    return { stop };
  }

  #program(netns: string, text: string): ChildProcess {
    const command = ['nsenter', `--net=${netns}`, process.execPath, '-e', text];
    const child = spawn('setpriv', [...endsWithTest, ...command], { stdio: 'ignore' });
    this.#children.push(child);
    return child;
  }

  /** Starts a Node program in the namespace at `netns` that runs until the lab stops; what it prints, as it does. */
  background(netns: string, text: string): { readonly output: () => string; readonly stop: () => void } {
    const child = spawn('setpriv', [...endsWithTest, 'nsenter', `--net=${netns}`, process.execPath, '-e', text], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#children.push(child);
    let output = '';
    child.stdout?.on('data', (data) => {
      output += data;
    });
    return { output: () => output, stop: () => child.kill('SIGKILL') };
  }

  /** Runs a command in the outside namespace. */
  outside(...command: string[]): Promise<string> {
    return run(this.world, ...command);
  }

  /** Runs a command in the namespace at `netns`. */
  inside(netns: string, ...command: string[]): Promise<string> {
    return run(netns, ...command);
  }

  /** A TCP server in the namespace at `netns` that answers each connection `<name> <client address>:<port>`; resolves when it listens. */
  async serve(netns: string, port: number, name: string): Promise<() => void> {
    const program = `require('net').createServer((s) => { s.on('error', () => {});
      s.end('${name} ' + s.remoteAddress + ':' + s.remotePort + '\\n'); }).listen(${port}, '0.0.0.0')`;
    const child = this.#program(netns, program);
    await eventually(async () => (await run(netns, 'ss', '-Hltn')).includes(`:${port} `));
    return () => child.kill('SIGKILL');
  }

  /** A server in the namespace at `netns` that answers every piece of a connection, and every datagram, `<name> <client address>:<port>`. */
  async serveTalk(netns: string, port: number, name: string): Promise<void> {
    const program = `const hello = (from) => '${name} ' + from.address + ':' + from.port + '\\n';
      require('net').createServer((s) => { s.on('error', () => {});
        s.on('data', () => s.write(hello({ address: s.remoteAddress, port: s.remotePort }))); }).listen(${port}, '0.0.0.0');
      const u = require('dgram').createSocket('udp4');
      u.on('message', (_, from) => u.send(hello(from), from.port, from.address)); u.bind(${port});`;
    this.#program(netns, program);
    await eventually(async () => (await run(netns, 'ss', '-Hlnut')).split(`:${port} `).length === 3);
  }

  /** Starts a Node program in the namespace at `netns`; what it prints, once it ends. */
  program(netns: string, text: string): Promise<string> {
    return run(netns, process.execPath, '-e', text);
  }

  /** As serve, by UDP: each datagram is answered with the name. */
  async serveUdp(netns: string, port: number, name: string): Promise<void> {
    const program = `const s = require('dgram').createSocket('udp4');
      s.on('message', (_, from) => s.send('${name}', from.port, from.address)); s.bind(${port});`;
    this.#program(netns, program);
    await eventually(async () => (await run(netns, 'ss', '-Hlun')).includes(`:${port} `));
  }

  /** What a datagram from that source port is answered within a second; '' for nothing. */
  async getUdp(netns: string, address: string, port: number, fromPort: number): Promise<string> {
    const program = `const s = require('dgram').createSocket('udp4');
      s.on('message', (answer) => { process.stdout.write(answer); s.close(); });
      s.on('error', () => s.close()); setTimeout(() => process.exit(), 1000).unref();
      s.bind(${fromPort}, () => s.send('?', ${port}, '${address}'));`;
    return run(netns, process.execPath, '-e', program);
  }

  /** What a server answers to a connection from the namespace at `netns`; rejects when it is refused or times out. */
  async get(netns: string, address: string, port: number): Promise<string> {
    return (await run(netns, 'busybox', 'nc', '-w', '3', address, String(port))).trim();
  }

  /** How many of `count` connections each server name answered. */
  async spread(netns: string, address: string, port: number, count: number): Promise<Map<string, number>> {
    const loop = `for i in $(seq ${count}); do busybox nc -w 3 ${address} ${port} </dev/null || echo failed; done`;
    const names = (await run(netns, 'sh', '-c', loop)).trim().split('\n');
    const counts = new Map<string, number>();
    for (const line of names) {
      const name = line.split(' ')[0] as string;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return counts;
  }

  async stop(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const host of this.#hosts) await host.stop();
    for (const host of this.#hosts) await run(undefined, 'ip', 'netns', 'delete', host.netnsName);
    await run(undefined, 'ip', 'netns', 'delete', `gtw${this.#tag}`);
    if (this.#layout.routed) await run(undefined, 'ip', 'netns', 'delete', `gtr${this.#tag}`);
    fs.rmSync(this.#dir, { recursive: true, force: true });
  }
}

export class LabHost {
  readonly nodeId = nodeId(newId(systemRandom));
  readonly name: string;
  readonly address: string;
  /** On the link of `address`; plans have it only where a test says so. */
  readonly address6: string;
  readonly subnet: string;
  readonly netnsName: string;
  readonly netns: string;
  readonly runDir: string;
  /** What onRepair has said since the start of the process. */
  readonly repairs: string[] = [];
  /** What the process has logged. */
  log = '';
  #child: ChildProcess | undefined;
  #pending = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #next = 1;
  #revision = 1;

  /** `link`: 0 or 1, the first or the second of a routed layout. */
  constructor(number: number, netnsName: string, runDir: string, link: number) {
    this.name = `h${number}`;
    this.address = `10.90.${link}.${number}`;
    this.address6 = `${link6(link)}${number}`;
    this.subnet = `10.192.${number}.0/24`;
    this.netnsName = netnsName;
    this.netns = `/run/netns/${netnsName}`;
    this.runDir = runDir;
    fs.mkdirSync(runDir, { recursive: true });
    fs.writeFileSync(path.join(runDir, 'resolv.conf'), '');
  }

  run(...command: string[]): Promise<string> {
    return run(this.netns, ...command);
  }

  startAgent(): void {
    const command = [
      `--net=${this.netns}`,
      process.execPath,
      script,
      this.runDir,
      path.join(this.runDir, 'resolv.conf'),
    ];
    const child = spawn('setpriv', [...endsWithTest, 'nsenter', ...command], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    this.repairs.length = 0;
    child.stderr.on('data', (data) => {
      this.log += data;
    });
    child.on('exit', () => {
      for (const { reject } of this.#pending.values())
        reject(new Error(`the agent of ${this.name} ended: ${this.log}`));
      this.#pending.clear();
    });
    readline.createInterface({ input: child.stdout }).on('line', (line) => {
      const { id, result, error, code, repair } = JSON.parse(line);
      if (repair) this.repairs.push(repair);
      const waiting = this.#pending.get(id);
      this.#pending.delete(id);
      if (error) waiting?.reject(Object.assign(new Error(error), { code }));
      else waiting?.resolve(result as never);
    });
  }

  /** Kills the agent's process as a crash would; the kernel keeps what it has. */
  async killAgent(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  call<T>(call: string, argument?: unknown): Promise<T> {
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#child?.stdin?.write(`${JSON.stringify({ id, call, argument })}\n`);
    });
  }

  /** Applies what `wanted` says on top of a network of the given hosts without services. */
  apply(hosts: readonly LabHost[], wanted: Partial<NetworkWanted> = {}): Promise<void> {
    return this.call('apply', this.wanted(hosts, wanted));
  }

  wanted(hosts: readonly LabHost[], wanted: Partial<NetworkWanted> = {}): NetworkWanted {
    const { nodeId, address, subnet } = this;
    return networkWanted(
      { nodeId, address, subnet },
      {
        revision: this.#revision++,
        peers: hosts.map((host) => peer(host.name, host.address, host.subnet, { nodeId: host.nodeId })),
        ...wanted,
      },
    );
  }

  /** A fresh task on this host: its attachment, and the path of its namespace. */
  async attach(lastByte: number, over: Partial<Attachment> = {}): Promise<Attachment & { readonly netns: string }> {
    const task = attachment(taskId(newId(systemRandom)), this.subnet.replace('.0/24', `.${lastByte}`), over);
    const { netnsPath } = await this.call<{ netnsPath: string }>('attach', task);
    return { ...task, netns: netnsPath };
  }

  /** Has `damage` done, and waits until it is told to be put right. How soon after it the network looks: test/unit/net/reconcile. */
  async repaired(damage: () => Promise<unknown>, message: RegExp): Promise<void> {
    this.repairs.length = 0;
    await damage();
    const { netns, repairs } = this;
    await eventually(() => repairs.some((text) => message.test(text))).catch((cause) => {
      throw new Error(`${netns} told of no ${message}, but of ${JSON.stringify(repairs)}: ${this.log}`, { cause });
    });
  }

  async stop(): Promise<void> {
    await this.killAgent();
    // Its process ends with it.
    await this.run('ip', 'link', 'delete', 'gantry-wg').catch(() => {});
    const dir = path.join(this.runDir, 'netns');
    for (const name of fs.existsSync(dir) ? fs.readdirSync(dir) : []) {
      await run(undefined, 'umount', '-l', path.join(dir, name)).catch(() => {});
    }
  }
}
