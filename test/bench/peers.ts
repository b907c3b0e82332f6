/** What orchestrators are asked to do side by side: start replicas, lose a host, have one cut off or its agent stopped, and hold little. */

import { workers } from './bench-cluster.ts';
import { Census, pidsOf, total } from './census.ts';
import type { Contender } from './contender.ts';
import { median, sum } from './measure.ts';

const replicas = 30;
const megabyte = 1e6;
/** Of a busy machine: what takes so long is a failure. */
const patienceMs = 300_000;
/** Longer than a second look of any of them at what it has. */
const restMs = 8_000;
const stopMs = 5_000;

/** What one contender did in one round, by the name of the figure. */
export type Samples = Readonly<Record<string, number>>;

export const sections: Readonly<Record<string, (contender: Contender, round: number) => Promise<Samples>>> = {
  start,
  memory,
  power,
  cut,
  stop,
};

/** How the figures are read. Times are until the last container's own program runs, seen from the machine. */
export const units: ReadonlyMap<string, string> = new Map([
  ...[3, 30, 90].map((count) => [`${count} replicas run`, 'ms'] as const),
  ['a worker, idle', 'MB'],
  ['the manager, idle', 'MB'],
  ['each task more on its worker', 'MB'],
  [`power-off: all ${replicas} run elsewhere`, 'ms'],
  [`cable cut: all ${replicas} run elsewhere`, 'ms'],
  ['  copies too many while cut', ''],
  ['  healed: no copy too many', 'ms'],
  ['  most less fewest on a host, healed', ''],
  [`  of ${replicas} still the ones from before`, ''],
  [`agent stopped ${stopMs / 1_000} s: started anew`, ''],
]);

/** Brings the image to every host, so that nobody's first figure has it. */
export async function warm(contender: Contender): Promise<void> {
  const census = new Census(contender.sandbox);
  await timeToRun(contender, census, 'warm', 3 * workers.length);
  await removed(contender, census, 'warm');
}

async function start(contender: Contender, round: number): Promise<Samples> {
  const census = new Census(contender.sandbox);
  const samples: Record<string, number> = {};
  for (const count of [3, 30, 90]) {
    const name = `start-${count}-${round}`;
    samples[`${count} replicas run`] = await timeToRun(contender, census, name, count);
    await removed(contender, census, name);
  }
  return samples;
}

/** Private memory of all processes outside of containers: engine, shims or monitors, agent. The manager runs no tasks. */
async function memory(contender: Contender, round: number): Promise<Samples> {
  const census = new Census(contender.sandbox);
  const tasks = 90;
  const look = async () => {
    await rest();
    return { workers: workers.map((host) => census.hostBytes(host)), manager: census.hostBytes('m1') };
  };
  const idle = await look();
  const name = `memory-${round}`;
  await timeToRun(contender, census, name, tasks);
  const full = await look();
  await removed(contender, census, name);
  return {
    'a worker, idle': median(idle.workers) / megabyte,
    'the manager, idle': idle.manager / megabyte,
    'each task more on its worker': (sum(full.workers) - sum(idle.workers)) / tasks / megabyte,
  };
}

async function power(contender: Contender, round: number): Promise<Samples> {
  const census = new Census(contender.sandbox);
  const name = `power-${round}`;
  const victim = workers[round % workers.length]!;
  await timeToRun(contender, census, name, replicas);
  await rest();
  const pulledAt = performance.now();
  await contender.sandbox.act('kill', victim);
  const { at } = await census.until((count) => total(count) === replicas, patienceMs);
  await contender.boot(victim);
  await contender.ready();
  await removed(contender, census, name);
  return { [`power-off: all ${replicas} run elsewhere`]: at - pulledAt };
}

async function cut(contender: Contender, round: number): Promise<Samples> {
  const census = new Census(contender.sandbox);
  const name = `cut-${round}`;
  const victim = workers[round % workers.length]!;
  const others = workers.filter((host) => host !== victim);
  await timeToRun(contender, census, name, replicas);
  await rest();
  const before = pidsOf(census.take());
  const cutAt = performance.now();
  await contender.sandbox.act('cut', victim);
  const replaced = await census.until((count) => total(count, others) >= replicas, patienceMs);
  await rest();
  const extra = total(census.take()) - replicas;
  const healedAt = performance.now();
  await contender.sandbox.act('join', victim);
  const single = await census.until((count) => total(count) <= replicas, patienceMs);
  await contender.ready();
  await rest();
  const { count } = await census.until((seen) => total(seen) === replicas, patienceMs);
  const sizes = [...count.values()].map((pids) => pids.size);
  await removed(contender, census, name);
  return {
    [`cable cut: all ${replicas} run elsewhere`]: replaced.at - cutAt,
    '  copies too many while cut': extra,
    '  healed: no copy too many': single.at - healedAt,
    '  most less fewest on a host, healed': Math.max(...sizes) - Math.min(...sizes),
    [`  of ${replicas} still the ones from before`]: [...pidsOf(count)].filter((pid) => before.has(pid)).length,
  };
}

/** SIGSTOP to what starts and watches the tasks of a host that is well, and on with it: how many tasks were replaced for nothing. */
async function stop(contender: Contender, round: number): Promise<Samples> {
  const census = new Census(contender.sandbox);
  const name = `stop-${round}`;
  await timeToRun(contender, census, name, replicas);
  await rest();
  const before = pidsOf(census.take());
  const agents = contender.agents(workers[round % workers.length]!);
  if (agents.length === 0) throw new Error(`${contender.name} has no agent to stop`);
  for (const pid of agents) process.kill(pid, 'SIGSTOP');
  try {
    await new Promise((resolve) => setTimeout(resolve, stopMs));
  } finally {
    for (const pid of agents) process.kill(pid, 'SIGCONT');
  }
  await contender.ready();
  await rest();
  const { count } = await census.until((seen) => total(seen) === replicas, patienceMs);
  await removed(contender, census, name);
  return {
    [`agent stopped ${stopMs / 1_000} s: started anew`]: [...pidsOf(count)].filter((pid) => !before.has(pid)).length,
  };
}

async function timeToRun(contender: Contender, census: Census, name: string, count: number): Promise<number> {
  const askedAt = performance.now();
  const [{ at }] = await Promise.all([
    census.until((seen) => total(seen) === count, patienceMs),
    contender.create(name, count),
  ]);
  return at - askedAt;
}

async function removed(contender: Contender, census: Census, name: string): Promise<void> {
  await contender.remove(name);
  await census.until((count) => total(count) === 0, patienceMs);
}

function rest(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, restMs));
}
