/** Docker Swarm on bare hosts of a sandbox, asked by its own API: one manager (m1, drained, as ours runs no tasks), three workers. */
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { machineHierarchies, processesIn } from '#node-agent/sandbox/cgroups.ts';
import { firstManager, hostLayout, registryName } from '#node-agent/sandbox/layout.ts';
import { pushSampleImage } from '#node-agent/sandbox/sample-image.ts';
import { openSandbox, type Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { flatTopology, managerAddress, placeOf } from '#node-agent/sandbox/topology.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { eventually } from '#test/support/eventually.ts';
import { image, workers } from './bench-cluster.ts';
import type { Contender } from './contender.ts';
import { commandLine } from './measure.ts';

const second = 1e9; // The API counts nanoseconds.

/** Defaults are those of `docker service create` and `docker swarm init`. */
export interface SwarmSettings {
  readonly name: string;
  readonly heartbeatSeconds: number;
  readonly restartDelaySeconds: number;
}

export const defaults: SwarmSettings = { name: 'Swarm', heartbeatSeconds: 5, restartDelaySeconds: 5 };
export const tuned: SwarmSettings = { name: 'Swarm, 1 s beat', heartbeatSeconds: 1, restartDelaySeconds: 0 };

interface Versioned<Spec> {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Spec;
}
type SwarmNode = Versioned<object> & {
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
};

export class Swarm {
  readonly sandbox: Sandbox;
  readonly #root = mkdtempSync(join(tmpdir(), 'gbs-'));
  #heartbeatSeconds = defaults.heartbeatSeconds;
  #network = '';
  #image = '';

  static async start(): Promise<Swarm> {
    const swarm = new Swarm();
    try {
      await swarm.sandbox.up({ hosts: workers.length, bare: true });
      await eventually(() => pushSampleImage(swarm.sandbox, 'hello:1'), { timeoutMs: 20_000 });
      await Promise.all(['m1', ...workers].map((host) => swarm.#daemon(host)));
      await swarm.#form();
    } catch (error) {
      await swarm.close();
      throw error;
    }
    return swarm;
  }

  constructor() {
    this.sandbox = openSandbox(`s${newId(systemRandom).slice(0, 6)}`, { root: this.#root });
  }

  /** The same cluster with other settings: only one of them can take its turn at a time. */
  as(settings: SwarmSettings): Contender {
    const { sandbox } = this;
    return {
      name: settings.name,
      sandbox,
      ready: async () => {
        await this.#beat(settings.heartbeatSeconds);
        await eventually(async () => (await this.#nodes()).every(({ Status }) => Status.State === 'ready'), {
          timeoutMs: 60_000,
          everyMs: 200,
        });
      },
      create: async (service, replicas) => {
        await this.#api('POST', '/services/create', {
          Name: service,
          TaskTemplate: {
            ContainerSpec: { Image: this.#image },
            RestartPolicy: { Condition: 'any', Delay: settings.restartDelaySeconds * second },
            Networks: [{ Target: this.#network }],
          },
          Mode: { Replicated: { Replicas: replicas } },
          EndpointSpec: { Mode: 'dnsrr' },
        });
      },
      remove: async (service) => {
        await this.#api('DELETE', `/services/${service}`);
      },
      boot: async (host) => {
        await sandbox.act('start', host);
        await this.#daemon(host);
      },
      agents: (host) =>
        processesIn(machineHierarchies(), `gantry-sandbox/${sandbox.layout.name}/${host}`).filter((pid) =>
          commandLine(pid).startsWith('dockerd '),
        ),
      close: () => this.close(),
    };
  }

  async close(): Promise<void> {
    await this.sandbox.down();
    rmSync(this.#root, { recursive: true, force: true });
  }

  /**
   * Workers use their host's containerd; the manager, which has none, lets dockerd start its own. Ports are not published and nothing goes
   * outwards, so it needs neither its bridge nor iptables (which some kernels do not have).
   */
  async #daemon(host: string): Promise<void> {
    const containerd = host === 'm1' ? '' : '--containerd /run/containerd/containerd.sock';
    const daemon = `dockerd --host unix:///run/docker.sock --data-root /var/lib/gantry/docker --exec-root /run/docker \\
      --pidfile /run/docker.pid ${containerd} --storage-driver overlay2 --insecure-registry ${registryName} \\
      --bridge none --iptables=false --ip6tables=false`;
    await this.sandbox.run(host, [
      'sh',
      '-c',
      `mkdir -p /var/lib/gantry/docker; exec setsid ${daemon} > /var/log/dockerd.log 2>&1 < /dev/null &`,
    ]);
    await eventually(() => this.#api('GET', '/info', undefined, host), { timeoutMs: 60_000, everyMs: 100 });
  }

  async #form(): Promise<void> {
    await this.#api('POST', '/swarm/init', {
      ListenAddr: `${managerAddress(firstManager)}:2377`,
      AdvertiseAddr: managerAddress(firstManager),
    });
    const { JoinTokens } = await this.#api<{ JoinTokens: { Worker: string } }>('GET', '/swarm');
    for (const host of workers) {
      const { address } = placeOf(flatTopology, host);
      const join = {
        ListenAddr: `${address}:2377`,
        AdvertiseAddr: address,
        RemoteAddrs: [`${managerAddress(firstManager)}:2377`],
        JoinToken: JoinTokens.Worker,
      };
      await this.#api('POST', '/swarm/join', join, host);
    }
    const manager = (await this.#nodes()).find(({ Description }) => Description.Hostname === 'm1')!;
    const drained = { ...manager.Spec, Availability: 'drain' };
    await this.#api('POST', `/nodes/${manager.ID}/update?version=${manager.Version.Index}`, drained);
    const network = await this.#api<{ Id: string }>('POST', '/networks/create', { Name: 'apps', Driver: 'overlay' });
    this.#network = network.Id;
    // As its CLI does it: by digest, so that a worker which has the image does not ask the registry again.
    const { Descriptor } = await this.#api<{ Descriptor: { digest: string } }>('GET', `/distribution/${image}/json`);
    this.#image = `${image}@${Descriptor.digest}`;
  }

  /** Workers learn a period with the answer to a beat of the old one. */
  async #beat(seconds: number): Promise<void> {
    if (seconds === this.#heartbeatSeconds) return;
    const { Version, Spec } = await this.#api<Versioned<{ Dispatcher?: object }>>('GET', '/swarm');
    const spec = { ...Spec, Dispatcher: { ...Spec.Dispatcher, HeartbeatPeriod: seconds * second } };
    await this.#api('POST', `/swarm/update?version=${Version.Index}`, spec);
    await new Promise((resolve) => setTimeout(resolve, (defaults.heartbeatSeconds + 1) * 1_000));
    this.#heartbeatSeconds = seconds;
  }

  #nodes(): Promise<SwarmNode[]> {
    return this.#api('GET', '/nodes');
  }

  #api<T = unknown>(method: string, path: string, body?: object, host = 'm1'): Promise<T> {
    const socketPath = join(hostLayout(this.sandbox.layout, host).run, 'docker.sock');
    return new Promise((resolve, reject) => {
      const headers = body ? { 'Content-Type': 'application/json' } : {};
      const asked = request({ socketPath, path: `/v1.41${path}`, method, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('error', reject).on('end', () => {
          if (response.statusCode! >= 400) reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
          else resolve((response.headers['content-type']?.includes('json') ? JSON.parse(text) : undefined) as T);
        });
      });
      asked.on('error', reject).end(body && JSON.stringify(body));
    });
  }
}
