/** A pair of tasks on two hosts and how fast they talk: by Gantry, or by what an operator sets up by hand, on the same switch. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';
import { eventually } from '#test/support/eventually.ts';
import type { LabHost, NetLab } from '#test/support/net-lab.ts';

const execute = promisify(execFile);
const script = join(import.meta.dirname, 'net-peer-process.ts');
/** Both ends have a processor of their own, always the same. */
const [clientProcessor, serverProcessor] = ['0', '1'] as const;
const echoPort = 7007;
const iperfPort = 5201;

export type Kind = 'bits' | 'trip' | 'connect';

/** Where the client asks from, and whom. */
export class Way {
  readonly #children: ChildProcess[] = [];
  readonly #client: string;
  readonly #server: string;
  readonly #asker: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  /** `client`, `server`: namespaces. */
  constructor(client: string, server: string) {
    this.#client = client;
    this.#server = server;
    this.#run(server, serverProcessor, process.execPath, script, 'serve', String(echoPort));
    this.#run(server, serverProcessor, 'iperf3', '--server', '--port', String(iperfPort));
    this.#asker = this.#run(client, clientProcessor, process.execPath, script, 'ask');
    if (!this.#asker.stdout) throw new Error('no output to read');
    this.#answers = readline.createInterface({ input: this.#asker.stdout })[Symbol.asyncIterator]();
  }

  #run(netns: string, processor: string, ...command: string[]): ChildProcess {
    const line = [`--net=${netns}`, 'taskset', '-c', processor, ...command];
    const child = spawn('nsenter', line, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#children.push(child);
    return child;
  }

  async listening(): Promise<this> {
    await eventually(async () => {
      const { stdout } = await execute('nsenter', [`--net=${this.#server}`, 'ss', '-Hltn']);
      return stdout.includes(`:${echoPort} `) && stdout.includes(`:${iperfPort} `);
    });
    return this;
  }

  /** To that address of the server: bits, round trips or new connections per second; measured over `window` bytes or ms. */
  async measure(kind: Kind, address: string, window: number): Promise<number> {
    if (kind === 'bits') return this.#throughput(address, window);
    this.#asker.stdin?.write(`${JSON.stringify({ kind, address, port: echoPort, ms: window })}\n`);
    const { value } = await this.#answers.next();
    const { perSecond, error } = JSON.parse(value as string) as { perSecond: number; error?: string };
    if (error) throw new Error(`from ${this.#client} to ${address}: ${error}`);
    return perSecond;
  }

  async #throughput(address: string, bytes: number): Promise<number> {
    const to = ['--client', address, '--port', String(iperfPort), '--bytes', String(bytes), '--json'];
    const line = [`--net=${this.#client}`, 'taskset', '-c', clientProcessor, 'iperf3', ...to];
    // The server says that it is busy for a moment after a test.
    return eventually(
      async () => {
        const { stdout } = await execute('nsenter', line, { timeout: 30_000, maxBuffer: 1 << 24 }).catch(
          (error) => error,
        );
        const report = JSON.parse(stdout) as { error?: string; end: { sum_received?: { bits_per_second: number } } };
        if (!report.end.sum_received) throw new Error(`iperf3 from ${this.#client} to ${address}: ${report.error}`);
        return report.end.sum_received.bits_per_second;
      },
      { timeoutMs: 5_000, everyMs: 100 },
    );
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
  }
}

/** A task's namespace on a bridge of its host, as the manual of any distribution says, without a rule of netfilter. */
async function taskByHand(lab: NetLab, host: LabHost, name: string, subnet: string): Promise<string> {
  const at = (last: number) => subnet.replace(/0\/24$/, String(last));
  await execute('ip', ['netns', 'add', name]);
  await host.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  await host.run('ip', 'address', 'add', `${at(1)}/24`, 'dev', 'br0');
  await host.run('ip', 'link', 'set', 'br0', 'up');
  await host.run('ip', 'link', 'add', 'task', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  await host.run('ip', 'link', 'set', 'task', 'master', 'br0', 'up');
  await host.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
  const netns = `/run/netns/${name}`;
  await lab.inside(netns, 'ip', 'link', 'set', 'lo', 'up');
  await lab.inside(netns, 'ip', 'address', 'add', `${at(2)}/24`, 'dev', 'eth0');
  await lab.inside(netns, 'ip', 'link', 'set', 'eth0', 'up');
  await lab.inside(netns, 'ip', 'route', 'add', 'default', 'via', at(1));
  return netns;
}

export interface HandMade {
  readonly client: string;
  readonly server: string;
  /** The server's. */
  readonly address: string;
  /** Forgets the hand-made namespaces. */
  close(): Promise<void>;
}

/** A task on each of two hosts that no agent has touched, and a route between them; `vxlan`: the route is a raw tunnel. */
export async function byHand(lab: NetLab, hosts: readonly [LabHost, LabHost], vxlan: boolean): Promise<HandMade> {
  const subnets = ['10.77.1.0/24', '10.77.2.0/24'] as const;
  const names = hosts.map((host) => `${host.netnsName}t`);
  const tasks: string[] = [];
  for (const [index, host] of hosts.entries()) {
    tasks.push(await taskByHand(lab, host, names[index] as string, subnets[index] as string));
  }
  for (const [index, host] of hosts.entries()) {
    const peer = hosts[1 - index] as LabHost;
    const there = subnets[1 - index] as string;
    if (!vxlan) {
      await host.run('ip', 'route', 'add', there, 'via', peer.address);
      continue;
    }
    const tunnel = ['id', '7', 'dstport', '4791', 'local', host.address, 'remote', peer.address, 'dev', 'eth0'];
    await host.run('ip', 'link', 'add', 'vx0', 'type', 'vxlan', ...tunnel);
    await host.run('ip', 'address', 'add', `10.78.0.${index + 1}/24`, 'dev', 'vx0');
    await host.run('ip', 'link', 'set', 'vx0', 'up');
    await host.run('ip', 'route', 'add', there, 'via', `10.78.0.${2 - index}`);
    // The path inside is narrower: told to the task, as any overlay does.
    await lab.inside(tasks[index] as string, 'ip', 'link', 'set', 'eth0', 'mtu', '1450');
  }
  const [client, server] = tasks as [string, string];
  return {
    client,
    server,
    address: '10.77.2.2',
    async close() {
      for (const name of names) await execute('ip', ['netns', 'delete', name]);
    },
  };
}

/** The one rule with which the tasks of a host get out of it. */
export async function masquerade(host: LabHost): Promise<void> {
  const rule = 'ip saddr 10.77.0.0/16 ip daddr != 10.77.0.0/16 masquerade';
  const body = `{ chain out { type nat hook postrouting priority 100; ${rule}; }; }`;
  await host.run('nft', `table ip way_out ${body}`);
}
