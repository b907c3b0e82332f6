/** A real etcd for tests and benches: its own data directory, free ports, and signals to stop, freeze and restart it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Etcd3 } from 'etcd3';
import { eventually } from './eventually.ts';
import { endsWithTest } from './process.ts';

export interface TestEtcd {
  /** What clients dial: `http://127.0.0.1:PORT`, or https with `tls`. */
  readonly url: string;
  readonly dataDir: string;
  readonly pid: number | undefined;
  /** Sends a signal: SIGSTOP and SIGCONT freeze and thaw it. */
  signal(name: NodeJS.Signals): void;
  /** Ends the process (SIGKILL: a crash) and waits until it has gone; the data stays. */
  kill(name?: NodeJS.Signals): Promise<void>;
  /** Starts it again on the same port and data. */
  start(): Promise<void>;
  /** Compacts the history up to the present revision. */
  compact(): Promise<void>;
  /** Ends it and removes its data. */
  close(): Promise<void>;
}

export interface TestEtcdOptions {
  /** Files for mTLS: the server's certificate and key, the CA that clients must come from, and a client's own pair to ask it with. */
  readonly tls?: {
    readonly ca: string;
    readonly cert: string;
    readonly key: string;
    readonly clientCert: string;
    readonly clientKey: string;
  };
  /** Flags beyond ours; later ones win. */
  readonly flags?: readonly string[];
}

/** The flags every etcd of ours runs with, beside names, ports and files. */
export const etcdFlags: readonly string[] = [
  '--max-txn-ops=8192',
  '--max-request-bytes=9437184',
  '--heartbeat-interval=50',
  '--election-timeout=500',
  '--pre-vote',
  '--auto-compaction-mode=periodic',
  '--auto-compaction-retention=10m',
];

/** Starts one and waits until it answers. */
export async function startEtcd(options: TestEtcdOptions = {}): Promise<TestEtcd> {
  const dataDir = mkdtempSync(join(tmpdir(), 'gantry-etcd-'));
  const [clientPort, peerPort] = await freePorts(2);
  const { tls } = options;
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${clientPort}`;
  const flags = [
    `--data-dir=${dataDir}`,
    '--name=test',
    `--listen-client-urls=${url}`,
    `--advertise-client-urls=${url}`,
    `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-cluster=test=http://127.0.0.1:${peerPort}`,
    '--log-level=error',
    ...etcdFlags,
    ...(tls
      ? [`--cert-file=${tls.cert}`, `--key-file=${tls.key}`, '--client-cert-auth', `--trusted-ca-file=${tls.ca}`]
      : []),
    ...(options.flags ?? []),
  ];
  const answers = async () => {
    const client = new Etcd3({ hosts: url, ...(await credentials(tls)), grpcOptions: fastRedial });
    try {
      await client.kv.range({ key: Buffer.from('x') }, { deadline: Date.now() + 500 });
      return true;
    } finally {
      client.close();
    }
  };
  let child: ChildProcess | undefined;
  const start = async () => {
    child = spawn('setpriv', [...endsWithTest, 'etcd', ...flags], { stdio: ['ignore', 'ignore', 'inherit'] });
    await eventually(answers, { everyMs: 50 });
  };
  const kill = async (name: NodeJS.Signals = 'SIGKILL') => {
    const dying = child;
    child = undefined;
    if (!dying || dying.exitCode !== null || dying.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => dying.once('exit', () => resolve()));
    dying.kill(name);
    dying.kill('SIGCONT');
    await gone;
  };
  await start();
  return {
    url,
    dataDir,
    get pid() {
      return child?.pid;
    },
    signal: (name) => void child?.kill(name),
    kill,
    start,
    async compact() {
      const client = new Etcd3({ hosts: url, ...(await credentials(tls)) });
      try {
        const { header } = await client.kv.range({ key: Buffer.from('x') });
        await client.kv.compact({ revision: header.revision, physical: true });
      } finally {
        client.close();
      }
    },
    async close() {
      await kill();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

const fastRedial = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 100 };

async function credentials(tls: TestEtcdOptions['tls']) {
  if (!tls) return {};
  const { readFile } = await import('node:fs/promises');
  return {
    credentials: {
      rootCertificate: await readFile(tls.ca),
      privateKey: await readFile(tls.clientKey),
      certChain: await readFile(tls.clientCert),
    },
  };
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer();
          server.listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
