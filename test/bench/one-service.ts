/** (a) One networked service, from apply to running, split by stage, beside the same steps by hand. */
import { readFileSync } from 'node:fs';
import { type BenchCluster, type Heard, project, serviceText, workers } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import type { Floor } from './floor.ts';
import { median, percentile } from './measure.ts';

const samples = 50;
const warmUps = 5;
const atOnce = 10;

/** The steps of an agent, as its metrics name them, in the words of the issue. */
const steps: readonly (readonly [string, string, string])[] = [
  ['ensure-image', 'image', ''],
  ['prepare-rootfs', 'snapshot', 'snapshot'],
  ['prepare-mounts', 'mounts', ''],
  ['attach-network', 'network', 'network'],
  ['create', 'create', 'create'],
  ['start', 'start', 'start'],
];

interface Sample {
  readonly task: string;
  readonly sentAt: number;
  readonly committedAt: number;
  readonly scheduledAt: number;
  readonly runningAt: number;
}

export async function oneService(bench: BenchCluster, floor: Floor): Promise<Figure[]> {
  const before = await floor.steps('runc');
  for (let index = 0; index < warmUps; index++) await applyOne(bench, `warm${index}`);
  await bench.remove(Array.from({ length: warmUps }, (_, index) => `warm${index}`));
  const stepsBefore = await stepTimes(bench);
  const taken: Sample[] = [];
  while (taken.length < samples) {
    const names: string[] = [];
    for (let index = 0; index < atOnce; index++) {
      const name = `one${taken.length}`;
      names.push(name);
      taken.push(await applyOne(bench, name));
    }
    await bench.remove(names);
  }
  const stepsAfter = await stepTimes(bench);
  const byHand = await floor.steps('runc');
  const whole = (before.whole + byHand.whole) / 2;
  const totals = taken.map((one) => one.runningAt - one.sentAt);
  const figures: Figure[] = [
    {
      section: 'a',
      name: 'apply to running, p50 of 50',
      value: median(totals),
      unit: 'ms',
      beside: { what: 'all steps by hand', value: whole },
      target: { bound: 'at most', value: 120 },
      samples: totals,
    },
    { section: 'a', name: 'apply to running, p99 of 50', value: percentile(totals, 0.99), unit: 'ms' },
  ];
  const stage = (name: string, value: number, hand?: number) =>
    figures.push({
      section: 'a',
      name: `  ${name}`,
      value,
      unit: 'ms',
      ...(hand === undefined ? {} : { beside: { what: 'by hand', value: hand } }),
    });
  const arrivals = agentTimes(bench);
  stage('commit', median(taken.map((one) => one.committedAt - one.sentAt)));
  stage('schedule', median(taken.map((one) => one.scheduledAt - one.committedAt)));
  stage(
    'dispatch',
    median(taken.map((one) => (arrivals.get(one.task)?.get('preparing') ?? Number.NaN) - one.scheduledAt)),
  );
  for (const [step, name, hand] of steps) {
    const [a, b] = [stepsBefore.get(step), stepsAfter.get(step)];
    const count = (b?.count ?? 0) - (a?.count ?? 0);
    const mean = count > 0 ? (((b?.sum ?? 0) - (a?.sum ?? 0)) / count) * 1_000 : 0;
    const handMs = byHand.byStep.get(hand);
    stage(name, mean, handMs === undefined || hand !== 'create' ? handMs : handMs + (byHand.byStep.get('mount') ?? 0));
  }
  stage('all of the agent', median(taken.map((one) => between(arrivals.get(one.task)))));
  stage('report', median(taken.map((one) => one.runningAt - (arrivals.get(one.task)?.get('running') ?? Number.NaN))));
  return figures;
}

async function applyOne(bench: BenchCluster, name: string): Promise<Sample> {
  let committed: Heard | undefined;
  let scheduled: Heard | undefined;
  const running = bench.until((event) => {
    if (event.name === `${project}/${name}` && event.action === 'created') committed = event;
    if (event.name !== `${name}.1`) return false;
    if (event.action === 'created') scheduled = event;
    return event.action === 'running';
  });
  const { sentAt } = await bench.apply(serviceText(name, 1));
  const { heardAt, id } = await running;
  return {
    task: id,
    sentAt,
    committedAt: committed?.heardAt ?? Number.NaN,
    scheduledAt: scheduled?.heardAt ?? Number.NaN,
    runningAt: heardAt,
  };
}

async function stepTimes(bench: BenchCluster): Promise<Map<string, { sum: number; count: number }>> {
  const total = new Map<string, { sum: number; count: number }>();
  for (const host of workers) {
    for (const [step, { sum, count }] of await bench.histogram(host, 'gantry_task_step_seconds', 'step')) {
      const held = total.get(step) ?? { sum: 0, count: 0 };
      total.set(step, { sum: held.sum + sum, count: held.count + count });
    }
  }
  return total;
}

/** When the agents entered each state of each task, from their logs, on our clock: to the millisecond. */
function agentTimes(bench: BenchCluster): Map<string, Map<string, number>> {
  const found = new Map<string, Map<string, number>>();
  for (const host of workers) {
    const path = bench.cluster.sandbox.logs(host).get('agent');
    for (const line of path ? readFileSync(path, 'utf8').split('\n') : []) {
      if (!line.includes('"task state"')) continue;
      const { time, task, state } = JSON.parse(line) as { time: string; task: string; state: string };
      const states = found.get(task) ?? new Map<string, number>();
      // Half of the millisecond that was cut off, on average.
      states.set(state, Date.parse(time) + 0.5 - performance.timeOrigin);
      found.set(task, states);
    }
  }
  return found;
}

function between(states: ReadonlyMap<string, number> | undefined): number {
  return (states?.get('running') ?? Number.NaN) - (states?.get('preparing') ?? Number.NaN);
}
