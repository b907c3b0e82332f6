/** Three nats-servers that keep what is in JetStream together, on loopback, each of which can be killed or stand still. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'nats';
import { eventually } from './eventually.ts';
import { startProcess, type TestProcess } from './process.ts';
import { freePort } from './registry.ts';

export interface TestNatsServer {
  readonly url: string;
  /** `SIGSTOP` as of a host that has lost its power: nobody closes its connections. */
  signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void;
}

export interface TestNatsCluster {
  readonly servers: readonly TestNatsServer[];
  stop(): Promise<void>;
}

/** Starts them; resolves when they have elected who leads JetStream. */
export async function startNatsCluster(): Promise<TestNatsCluster> {
  const directory = await mkdtemp(join(tmpdir(), 'gantry-nats-'));
  const names = ['n1', 'n2', 'n3'];
  const ports = await Promise.all(
    names.map(async (name) => ({ name, client: await freePort(), route: await freePort() })),
  );
  const routes = ports.map(({ route }) => `nats://127.0.0.1:${route}`).join(',');
  const processes: TestProcess[] = [];
  const servers = ports.map(({ name, client, route }): TestNatsServer => {
    const where = ['--addr', '127.0.0.1', '--port', String(client), '--store_dir', join(directory, name)];
    const cluster = ['--cluster_name', 'test', '--cluster', `nats://127.0.0.1:${route}`, '--routes', routes];
    const running = startProcess('nats-server', ['--jetstream', '--name', name, ...where, ...cluster]);
    processes.push(running);
    return { url: `nats://127.0.0.1:${client}`, signal: (signal) => running.kill(signal) };
  });
  await eventually(
    async () => {
      const connection = await connect({ servers: servers.map(({ url }) => url), timeout: 1_000 });
      try {
        return await (await connection.jetstreamManager({ timeout: 1_000 })).getAccountInfo();
      } finally {
        await connection.close();
      }
    },
    { timeoutMs: 60_000, everyMs: 200 },
  );
  return {
    servers,
    async stop() {
      for (const one of processes) one.kill('SIGKILL');
      await Promise.all(processes.map((one) => one.stop()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}
