/** What the bench of peers asks of each orchestrator, and Gantry as one of them. */
import type { Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { BenchCluster, serviceText, workers } from './bench-cluster.ts';
import { commandLine } from './measure.ts';

export interface Contender {
  readonly name: string;
  readonly sandbox: Sandbox;
  /** Resolves when every host is a ready node, with the settings of this contender. */
  ready(): Promise<void>;
  /** Asks for a service of the sample image on a network across hosts; resolves when the wish is taken. */
  create(service: string, replicas: number): Promise<void>;
  /** Takes a service back; resolves when that is taken, which may be before its containers have ended. */
  remove(service: string): Promise<void>;
  /** Gives power to a host again; resolves when its parts are started. */
  boot(host: string): Promise<void>;
  /** The processes on a host that start and watch its tasks, as this machine numbers them. */
  agents(host: string): number[];
  close(): Promise<void>;
}

export async function gantry(): Promise<Contender> {
  const bench = await BenchCluster.start();
  const { sandbox } = bench.cluster;
  return {
    name: 'gantry',
    sandbox,
    async ready() {
      for (const host of workers) await bench.cluster.nodeIs(host, 'ready', 60_000);
    },
    async create(service, replicas) {
      await bench.apply(serviceText(service, replicas));
    },
    remove: (service) => bench.remove([service]),
    async boot(host) {
      await sandbox.act('start', host);
    },
    agents: (host) => bench.processes(host).filter((pid) => commandLine(pid).includes('/node-agent/main.ts ')),
    close: () => bench.close(),
  };
}
