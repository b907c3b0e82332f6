/** A host loses power, its cable is cut, or it ends with its sockets reset: until all its replicas run elsewhere and the service answers. */
import { type BenchCluster, image, project, workers } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import { heal } from './heal.ts';
import { median } from './measure.ts';

const replicas = 30;
const port = 18_095;
const name = 'failover';

/** What happens to a host, how it is mended, and how long all of it may take. */
const kinds = [
  { act: 'kill', mend: 'start', what: 'power-off', atMostMs: 2_000 },
  { act: 'cut', mend: 'join', what: 'silent cable cut', atMostMs: 2_000 },
  { act: 'crash', mend: 'start', what: 'crash, its sockets reset', atMostMs: 500 },
] as const;

/** What `--acts` may name. */
export const failoverActs: readonly string[] = kinds.map(({ act }) => act);

/** `rounds` of each of `acts`, the hosts by turns. Answers are asked for at a host that is left, once all replicas were heard to run. */
export async function failover(bench: BenchCluster, rounds: number, acts: readonly string[]): Promise<Figure[]> {
  const started = bench.running(name, replicas);
  await bench.apply(`name: ${project}
services:
  ${name}:
    image: ${image}
    ports: ["${port}:8080"]
    deploy: { replicas: ${replicas} }
`);
  await started;
  const figures: Figure[] = [];
  for (const { act, mend, what, atMostMs } of kinds.filter(({ act }) => acts.includes(act))) {
    const whole: number[] = [];
    const verdicts: number[] = [];
    const heals: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const victim = workers[round % workers.length]!;
      const other = workers[(round + 1) % workers.length]!;
      await even(bench);
      const lost = (await present(bench)).filter(({ nodeName }) => nodeName === victim);
      const verdict = bench.until((event) => event.kind === 'node' && event.name === victim && event.action === 'down');
      const replaced = bench.running(name, lost.length);
      const beganAt = performance.now();
      await bench.cluster.sandbox.act(act, victim);
      verdicts.push((await verdict).heardAt - beganAt);
      await replaced;
      for (let answer = 0; answer < 3; answer++) await bench.cluster.http(`http://10.90.0.${other.slice(1)}:${port}/`);
      whole.push(performance.now() - beganAt);
      process.stderr.write(
        `bench: ${what} of ${victim}: ${Math.round(whole.at(-1)!)} ms, verdict ${Math.round(verdicts.at(-1)!)} ms\n`,
      );
      if (act === 'cut') {
        const slots = new Set(lost.map(({ slot }) => slot));
        const copies = (await present(bench)).filter(({ slot }) => slots.has(slot));
        heals.push(await heal(bench, victim, copies, port));
        process.stderr.write(`bench: extra copies ended ${Math.round(heals.at(-1)!)} ms after the heal\n`);
      } else await bench.cluster.sandbox.act(mend, victim);
      await bench.cluster.nodeIs(victim, 'ready', 60_000);
    }
    figures.push(
      {
        section: 'failover',
        name: `${what} to all ${replicas} running and answering, worst of ${rounds}`,
        value: Math.max(...whole),
        unit: 'ms',
        target: { bound: 'at most', value: atMostMs },
        samples: whole,
      },
      { section: 'failover', name: '  p50', value: median(whole), unit: 'ms' },
      {
        section: 'failover',
        name: '  of it until the verdict, p50',
        value: median(verdicts),
        unit: 'ms',
        samples: verdicts,
      },
    );
    if (heals.length === 0) continue;
    figures.push(
      {
        section: 'failover',
        name: `cable plugged in again to extra copies ended, connections kept open, worst of ${rounds}`,
        value: Math.max(...heals),
        unit: 'ms',
        target: { bound: 'at most', value: 1_000 },
        samples: heals,
      },
      { section: 'failover', name: '  p50', value: median(heals), unit: 'ms' },
    );
  }
  await bench.remove([name]);
  return figures;
}

/** Those that count. */
async function present(bench: BenchCluster) {
  const tasks = await bench.tasks(name);
  return tasks.filter(({ state, wanted, absence }) => state === 'running' && wanted === 'running' && !absence);
}

/** Waits until all run, no host has more than one too many, and nothing moves. */
async function even(bench: BenchCluster): Promise<void> {
  const deadline = performance.now() + 120_000;
  for (let calm = 0; calm < 4; ) {
    const tasks = await bench.tasks(name);
    const running = await present(bench);
    const counts = workers.map((host) => running.filter(({ nodeName }) => nodeName === host).length);
    calm = running.length === replicas && tasks.length === replicas && Math.min(...counts) >= 8 ? calm + 1 : 0;
    if (performance.now() > deadline) throw new Error(`the replicas were not spread again: ${counts.join(', ')}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
