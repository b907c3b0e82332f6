/** Users outside of a cluster who go on asking, and where those of their requests are that nobody answers. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';
import type { Cluster } from './cluster.ts';
import type { LoadReport } from './load-process.ts';

const loadProcess = join(import.meta.dirname, 'load-process.ts');
const lookEveryMs = 100;
/** Where nobody is answered, the first tell enough. */
const mostTraces = 10;

/** What is asked for, of whom, and what each is to answer. */
export interface Asking {
  readonly targets: readonly string[];
  readonly expected: string;
  /** Requests a second. */
  readonly rate: number;
}

/** `traces`: of each request that was silent for long, what was known of it. */
export type Traced = LoadReport & { readonly traces: readonly string[] };

export interface Load {
  /** Asks no more, and says what came of it, once the last answers are there. */
  end(): Promise<Traced>;
}

/** Begins to ask from outside. Of a request that is silent for long the kernels of all hosts are asked at once what they know of its connection. */
export function startLoad(cluster: Cluster, { targets, expected, rate }: Asking): Load {
  const { layout } = cluster.sandbox;
  const stopFile = join(layout.dir, 'load-stop');
  const silentFile = `${stopFile}.silent`;
  const said = cluster.sandbox.run('world', [
    process.execPath,
    loadProcess,
    String(rate),
    '/',
    expected,
    stopFile,
    ...targets,
  ]);
  let ended = false;
  const traces: string[] = [];
  const traced = (async () => {
    for (let seen = 0; !ended; await systemClock.sleep(lookEveryMs)) {
      const lines = linesOf(silentFile);
      for (; seen < lines.length && seen < mostTraces; seen++) traces.push(await traceOf(cluster, lines[seen]!));
    }
  })();
  return {
    async end() {
      writeFileSync(stopFile, '');
      try {
        const report = JSON.parse(await said) as LoadReport;
        ended = true;
        await traced;
        return { ...report, traces };
      } finally {
        ended = true;
        for (const file of [stopFile, silentFile]) rmSync(file, { force: true });
      }
    },
  };
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').slice(0, -1);
  } catch {
    return [];
  }
}

/** `silent`: ends with the client's port, `:36700`. */
async function traceOf(cluster: Cluster, silent: string): Promise<string> {
  const port = /:(\d+)$/.exec(silent)?.[1] ?? 'none';
  const look = `grep -w 'port=${port}' /proc/net/nf_conntrack; ss -Htanio 'sport = :${port} or dport = :${port}'; true`;
  const { hosts } = await cluster.sandbox.status();
  const places = ['world', ...hosts.filter(({ power }) => power === 'on').map(({ name }) => name)];
  const found = await Promise.all(
    places.map(async (place) => {
      const known = await cluster.sandbox.run(place, ['sh', '-c', look]).catch(String);
      return known === '' ? [] : [`${place}: ${known.trim()}`];
    }),
  );
  return [silent, ...found.flat()].join('\n');
}
