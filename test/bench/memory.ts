/** (f) What our processes alone hold in memory, idle and at 300 tasks; and how soon the command line answers. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { eventually } from '#test/support/eventually.ts';
import { type BenchCluster, serviceText, workers } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import { commandLine, median, privateBytes, sum } from './measure.ts';

const tasks = 300;
const megabyte = 1e6;
const restMs = 10_000;

export async function memory(bench: BenchCluster): Promise<Figure[]> {
  await restartAll(bench);
  const idle = await look(bench);
  const started = bench.running('many', tasks, 120_000);
  await bench.apply(serviceText('many', tasks));
  await started;
  const full = await look(bench);
  const conmon = workers.flatMap((host) => bench.processes(host).filter((pid) => isConmon(pid)));
  const conmonMegabytes = sum(conmon.map(privateBytes)) / megabyte / tasks;
  const agentGrowth = (sum(full.agents) - sum(idle.agents)) / tasks;
  await bench.remove(['many']);
  const at = (name: string, value: number, target?: number): Figure => ({
    section: 'f',
    name,
    value,
    unit: 'MB',
    ...(target === undefined ? {} : { target: { bound: 'at most', value: target } }),
  });
  return [
    at('control plane, idle', idle.controlPlane, 150),
    at('control plane, 300 tasks', full.controlPlane, 150),
    at('agent, idle, p50 of 3', median(idle.agents), 90),
    at('agent, 100 tasks on it, p50 of 3', median(full.agents), 90),
    at('per task on its host', conmonMegabytes, 0.6),
    at('  growth of the agent per task', agentGrowth),
    help(),
  ];
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const isConmon = (pid: number) => commandLine(pid).startsWith('/usr/bin/conmon ');
const isAgent = (pid: number) => /^\S*node (?:-\S+ )*\S*node-agent\/main\.ts /.test(commandLine(pid));
const isControlPlane = (pid: number) => /^\S*node (?:-\S+ )*\S*control-plane\/main\.ts run /.test(commandLine(pid));

/** Megabytes when nothing has happened for a while. */
async function look(bench: BenchCluster): Promise<{ readonly controlPlane: number; readonly agents: number[] }> {
  await sleep(restMs);
  const own = (host: string, is: (pid: number) => boolean) =>
    sum(bench.processes(host).filter(is).map(privateBytes)) / megabyte;
  return { controlPlane: own('m1', isControlPlane), agents: workers.map((host) => own(host, isAgent)) };
}

/** Ended in order, so that they have written their compile cache; what keeps them running starts them again, warm. */
async function restartAll(bench: BenchCluster): Promise<void> {
  const restart = async (host: string, is: (pid: number) => boolean) => {
    const old = bench.processes(host).filter(is);
    for (const pid of old) process.kill(pid, 'SIGTERM');
    await eventually(() => bench.processes(host).some((pid) => is(pid) && !old.includes(pid)), { timeoutMs: 20_000 });
  };
  // Twice: the first start may still have had to compile what has changed since the cache was written.
  for (let round = 0; round < 2; round++) {
    for (const host of workers) await restart(host, isAgent);
    await sleep(1_000);
    for (const host of workers) await bench.cluster.nodeIs(host, 'ready');
  }
}

function help(): Figure {
  const cli = join(import.meta.dirname, '../../control-plane/cli/main.ts');
  const time = (args: readonly string[]) => {
    const samples = Array.from({ length: 11 }, () => {
      const began = performance.now();
      spawnSync(process.execPath, args);
      return performance.now() - began;
    });
    return median(samples.slice(1));
  };
  return {
    section: 'f',
    name: 'the CLI answers --help, p50 of 10',
    value: time([cli, '--help']),
    unit: 'ms',
    beside: { what: 'node that does nothing', value: time(['-e', '0']) },
    target: { bound: 'at most', value: 100 },
  };
}
