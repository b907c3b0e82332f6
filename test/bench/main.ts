/** `npm run bench`: every figure of a promise beside what the machine can do without us. `npm run bench -- a c`, `-- failover --rounds 30`, `-- calm --minutes 60`. */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { BenchCluster } from './bench-cluster.ts';
import { burst } from './burst.ts';
import { calm } from './calm.ts';
import { failover, failoverActs } from './failover.ts';
import { type Figure, met, ratio, table } from './figure.ts';
import { Floor } from './floor.ts';
import { memory } from './memory.ts';
import { network } from './net.ts';
import { oneService } from './one-service.ts';
import { placement } from './placement.ts';
import { powerOff } from './power-off.ts';
import { reconnect } from './reconnect.ts';
import { writeRecord } from './record.ts';
import { replacement } from './replacement.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '60' },
    rounds: { type: 'string', default: '30' },
    acts: { type: 'string', default: failoverActs.join() },
    /** Busy processes a core. */
    hogs: { type: 'string', default: '4' },
    /** Agents that reconnect, and the tasks of their cluster. */
    nodes: { type: 'string', default: '1000' },
    tasks: { type: 'string', default: '20000' },
  },
});
const sections = positionals.length > 0 ? positionals : ['a', 'b', 'c', 'd', 'e', 'f', 'net'];

const acts = values.acts.split(',');

interface Lab {
  readonly bench: BenchCluster;
  readonly floor: Floor;
}

const actions: Readonly<Record<string, (lab: Lab) => Promise<Figure[]>>> = {
  a: ({ bench, floor }) => oneService(bench, floor),
  b: ({ bench, floor }) => burst(bench, floor),
  c: ({ bench, floor }) => replacement(bench, floor),
  d: ({ bench }) => powerOff(bench),
  f: ({ bench }) => memory(bench),
  calm: ({ bench }) => calm(bench, Number(values.minutes), Number(values.hogs)),
  failover: ({ bench }) => failover(bench, Number(values.rounds), acts),
};

const closers: (() => Promise<void>)[] = [];
/** Those that need no cluster. */
const alone: Readonly<Record<string, () => Promise<Figure[]>>> = {
  e: placement,
  net: network,
  reconnect: () => reconnect(Number(values.nodes), Number(values.tasks), (closer) => void closers.push(closer)),
};
/** Memory before power-off: hosts that have just booted are no idle hosts. */
const order = ['a', 'c', 'b', 'f', 'd', 'failover', 'calm'];
const unknown = sections.filter((section) => !(section in alone) && !(section in actions));
if (unknown.length > 0) {
  process.stderr.write(
    `bench: there is no section ${unknown.join(', ')}; there are a to f, net, failover, calm and reconnect\n`,
  );
  process.exit(2);
}
const unknownActs = acts.filter((act) => !failoverActs.includes(act));
if (unknownActs.length > 0) {
  process.stderr.write(`bench: --acts knows no ${unknownActs.join(', ')}; there are ${failoverActs.join(', ')}\n`);
  process.exit(2);
}

const close = async () => {
  for (let closer = closers.pop(); closer; closer = closers.pop())
    await closer().catch((error: unknown) => process.stderr.write(`bench: left something behind: ${error}\n`));
};
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void close().then(() => process.exit(130)));

const figures: Figure[] = [];
const loads: Record<string, number> = {};
const beganAt = Date.now();
let failed = false;
async function run(section: string, action: () => Promise<Figure[]>): Promise<void> {
  process.stderr.write(`bench: ${section} …\n`);
  try {
    figures.push(...(await action()));
  } catch (error) {
    failed = true;
    process.stderr.write(`bench: section ${section} failed: ${(error as Error).stack}\n`);
  }
  loads[section] = loadavg()[0]!;
}

try {
  for (const [section, action] of Object.entries(alone)) if (sections.includes(section)) await run(section, action);
  if (sections.some((section) => section in actions)) {
    const floor = await Floor.start();
    closers.push(() => floor.close());
    const bench = await BenchCluster.start();
    closers.push(() => bench.close());
    for (const section of order)
      if (sections.includes(section)) await run(section, () => actions[section]!({ bench, floor }));
  }
} finally {
  await close();
}

figures.sort((a, b) => (a.section < b.section ? -1 : a.section > b.section ? 1 : 0));
const seconds = Math.round((Date.now() - beganAt) / 1_000);
const path = writeRecord('', beganAt, {
  seconds,
  loadAverages: loads,
  figures: figures.map((figure) => ({ ...figure, ratio: ratio(figure), met: met(figure) })),
});
const missed = figures.filter((figure) => met(figure) === false).length;
const load = Object.entries(loads).map(([section, value]) => `${section} ${value.toFixed(1)}`);
process.stdout.write(
  `${table(figures)}\n\n${failed ? 'a section failed' : missed === 0 ? 'every target met' : `${missed} targets missed`} in ${seconds} s; load average after ${load.join(', ')}\n${path}\n`,
);
process.exitCode = failed ? 1 : 0;
