/** A whole sandbox cluster for a suite, driven as a user drives it: through the CLI as a process. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Wishes } from '#node-agent/sandbox/protocol.ts';
import { pushSampleImage } from '#node-agent/sandbox/sample-image.ts';
import { openSandbox, type Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { eventually } from './eventually.ts';

const cliMain = join(import.meta.dirname, '../../control-plane/cli/main.ts');

/** How one run of the CLI ended. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A task as `gantry ps --json` prints it; the fields that stories look at. */
export interface TaskRow {
  readonly name: string;
  readonly id: string;
  readonly node: string;
  readonly slot: number;
  readonly state: string;
  readonly wanted: string;
  readonly health: string;
  readonly address: string;
  readonly pid: number;
  readonly error: string;
  readonly message: string;
  readonly why: string;
  readonly exitCode: number;
  readonly revision: number;
  /** Its node is down. */
  readonly absence?: object;
}

/** A node as `gantry nodes --json` prints it. */
export interface NodeRow {
  readonly name: string;
  readonly state: string;
  readonly availability: string;
  readonly message: string;
  readonly address: string;
  readonly subnet: string;
  readonly pinnedSubnet: string;
  readonly link: string;
  readonly address6: string;
  readonly foreignNetworks: readonly string[];
  readonly tasks: number;
  readonly agentVersion: string;
}

export interface Cluster {
  readonly sandbox: Sandbox;
  /** Runs the CLI to its end. */
  gantry(...args: string[]): Promise<Ran>;
  /** Runs the CLI with that standard input. */
  feed(input: string, ...args: string[]): Promise<Ran>;
  /** Runs the CLI, which must succeed; its standard output as JSON. */
  json<T>(...args: string[]): Promise<T>;
  /** Writes a Compose file into the lab's directory; its path. */
  compose(name: string, text: string): string;
  /** Applies a Compose text, which must converge. */
  apply(text: string): Promise<void>;
  tasks(service?: string, ...args: string[]): Promise<TaskRow[]>;
  /** Tasks of a service that run and are wanted. */
  running(service: string): Promise<TaskRow[]>;
  /** Waits until exactly `count` tasks of a service run, and no other is wanted. */
  settled(service: string, count: number, timeoutMs?: number): Promise<TaskRow[]>;
  nodes(): Promise<NodeRow[]>;
  /** Waits until a node is in a state. */
  nodeIs(name: string, state: string, timeoutMs?: number): Promise<void>;
  /** The body of an HTTP answer, asked from `world` (or a host); rejects where there is none within 2 s. */
  http(url: string, from?: string): Promise<string>;
  /** CLI and stories may spawn a process of their own with this line and environment. */
  readonly cli: { readonly line: readonly string[]; readonly env: NodeJS.ProcessEnv };
  close(): Promise<void>;
}

/** Starts a cluster of `hosts` workers, wired as wished, with the images hello:1, hello:2 and hello:broken in its registry. */
export async function startCluster(
  hosts = 3,
  wishes: Wishes = {},
  /** Done before anything of it runs. */
  before: (cluster: Cluster) => Promise<void> = async () => {},
): Promise<Cluster> {
  const root = mkdtempSync(join(tmpdir(), 'gst-'));
  const name = `t${newId(systemRandom).slice(0, 6)}`;
  const sandbox = openSandbox(name, { root });
  const env = { ...process.env, GANTRY_SANDBOX_ROOT: root, NO_COLOR: '1' };
  const line = [process.execPath, cliMain];
  const gantry = (...args: string[]) => run([...line, ...withSandbox(args, name)], env);
  const cluster: Cluster = {
    sandbox,
    cli: { line, env: { ...env, GANTRY_SOCKET: join(sandbox.layout.dir, 'm1/run/gantry/control-plane.sock') } },
    gantry,
    feed: (input, ...args) => run([...line, ...withSandbox(args, name)], env, input),
    async json<T>(...args: string[]) {
      const { code, stdout, stderr } = await gantry(...args, '--json');
      if (code !== 0) throw new Error(`gantry ${args.join(' ')} ended with ${code}: ${stderr}${stdout}`);
      return JSON.parse(stdout) as T;
    },
    compose(file, text) {
      const path = join(root, file);
      writeFileSync(path, text);
      return path;
    },
    async apply(text) {
      const path = cluster.compose(`${newId(systemRandom).slice(0, 8)}.yaml`, text);
      const { code, stdout, stderr } = await gantry('apply', '-f', path);
      if (code !== 0) throw new Error(`apply ended with ${code}: ${stdout}${stderr}`);
    },
    tasks: (service, ...args) => cluster.json('ps', ...(service ? [service] : []), ...args),
    async running(service) {
      return (await cluster.tasks(service)).filter(runs);
    },
    settled: (service, count, timeoutMs = 30_000) =>
      eventually(
        async () => {
          const tasks = (await cluster.tasks(service)).filter(({ absence }) => !absence);
          const running = tasks.filter(runs);
          if (running.length !== count || tasks.length !== count) {
            throw new Error(`${running.length} of ${count} run: ${JSON.stringify(tasks.map(brief))}`);
          }
          return running;
        },
        { timeoutMs, everyMs: 100 },
      ),
    nodes: () => cluster.json('nodes'),
    async nodeIs(node, state, timeoutMs = 30_000) {
      await eventually(async () => (await cluster.nodes()).find((one) => one.name === node)?.state === state, {
        timeoutMs,
        everyMs: 100,
      });
    },
    http: (url, from = 'world') => sandbox.run(from, ['curl', '-sS', '--fail', '--max-time', '2', url]),
    async close() {
      await sandbox.down();
      rmSync(root, { recursive: true, force: true });
    },
  };
  try {
    await before(cluster);
    await sandbox.up({ ...wishes, hosts });
    for (const tag of ['1', '2', 'broken']) await eventually(() => pushSampleImage(sandbox, `hello:${tag}`));
    await eventually(
      async () => (await cluster.nodes()).filter((node) => node.state === 'ready').length === hosts || undefined,
      { timeoutMs: 30_000, everyMs: 100 },
    );
  } catch (error) {
    await cluster.close();
    throw error;
  }
  return cluster;
}

const runs = ({ state, wanted, absence }: TaskRow) => state === 'running' && wanted === 'running' && !absence;

const brief = ({ name, state, wanted, node, error, message }: TaskRow) => ({
  name,
  state,
  wanted,
  node,
  error,
  message,
});

/** `--sandbox` goes before the words of a command that passes its own options through. */
function withSandbox(args: readonly string[], name: string): string[] {
  const [command = '', ...rest] = args;
  const words = [
    'node',
    'token',
    'context',
    'net',
    'network',
    'autoscale',
    'cluster',
    'config',
    'secret',
    'trash',
    'volume',
    'rollout',
    'job',
    'ca',
  ].includes(command)
    ? 2
    : 1;
  const head = [command, ...rest].slice(0, words);
  return [...head, '--sandbox', name, ...[command, ...rest].slice(words)];
}

function run(line: readonly string[], env: NodeJS.ProcessEnv, input = ''): Promise<Ran> {
  const [program = '', ...args] = line;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, stdio: 'pipe' });
    child.stdin.on('error', () => {}); // It may end without reading.
    child.stdin.end(input);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 137, stdout, stderr }));
  });
}
