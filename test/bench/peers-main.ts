/** `npm run bench:peers`: Gantry and Docker Swarm on the same kind of hosts, in turns. `npm run bench:peers -- power cut --rounds 10`. */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { type Contender, gantry } from './contender.ts';
import { type Figure, ratio, table } from './figure.ts';
import { median } from './measure.ts';
import { type Samples, sections, units, warm } from './peers.ts';
import { writeRecord } from './record.ts';
import { defaults, Swarm, tuned } from './swarm.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { rounds: { type: 'string' } } });
const rounds = Number(values.rounds ?? 3);
const chosen = positionals.length > 0 ? positionals : Object.keys(sections);
const unknown = chosen.filter((section) => !(section in sections));
if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1) {
  const what =
    unknown.length > 0 ? `there is no section ${unknown.join(', ')}` : `--rounds ${values.rounds} is no count`;
  process.stderr.write(`bench:peers: ${what}; sections are ${Object.keys(sections).join(', ')}\n`);
  process.exit(2);
}

const closers: (() => Promise<void>)[] = [];
const close = async () => {
  for (let closer = closers.pop(); closer; closer = closers.pop())
    await closer().catch((error: unknown) => process.stderr.write(`bench:peers: left something behind: ${error}\n`));
};
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void close().then(() => process.exit(130)));

/** Of each contender, the samples of each figure. */
const taken = new Map<string, Map<string, number[]>>();
const failures: string[] = [];
const loads: number[] = [];
const beganAt = Date.now();

async function turn(section: string, contender: Contender, round: number): Promise<void> {
  process.stderr.write(`bench:peers: round ${round + 1}, ${section}, ${contender.name} …\n`);
  loads.push(loadavg()[0]!);
  await contender.ready();
  const samples: Samples = await sections[section]!(contender, round);
  const own = taken.get(contender.name) ?? new Map<string, number[]>();
  taken.set(contender.name, own);
  for (const [name, value] of Object.entries(samples)) own.set(name, [...(own.get(name) ?? []), value]);
}

try {
  const swarm = await Swarm.start();
  closers.push(() => swarm.close());
  const ours = await gantry();
  closers.push(() => ours.close());
  // A beat and a delay before restarts make no difference to what is only started or held.
  const peers = (section: string) => [defaults, ...(['start', 'memory'].includes(section) ? [] : [tuned])];
  for (const contender of [ours, swarm.as(defaults)]) {
    process.stderr.write(`bench:peers: ${contender.name} brings the image to every host …\n`);
    await contender.ready();
    await warm(contender);
  }
  for (let round = 0; round < rounds; round++) {
    for (const section of chosen) {
      const contenders = [ours, ...peers(section).map((settings) => swarm.as(settings))];
      // Who goes first alternates.
      for (const contender of round % 2 === 0 ? contenders : contenders.reverse()) {
        await turn(section, contender, round);
      }
    }
  }
} catch (error) {
  failures.push((error as Error).stack ?? String(error));
} finally {
  await close();
}

const figures: Figure[] = [];
for (const [name, unit] of units) {
  const samples = taken.get('gantry')?.get(name);
  if (!samples) continue;
  for (const { name: peer } of [defaults, tuned]) {
    const theirs = taken.get(peer)?.get(name);
    if (!theirs) continue;
    const beside = { what: peer, value: median(theirs), samples: theirs };
    figures.push({ section: 'peers', name, value: median(samples), unit, beside, samples });
  }
}
const seconds = Math.round((Date.now() - beganAt) / 1_000);
const path = writeRecord('peers-', beganAt, {
  seconds,
  rounds,
  loadAverages: loads,
  failures,
  figures: figures.map((figure) => ({ ...figure, ratio: ratio(figure) })),
});
for (const failure of failures) process.stderr.write(`bench:peers: failed: ${failure}\n`);
const load = `load average ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}`;
process.stdout.write(`${table(figures)}\n\nmedians of ${rounds} rounds in ${seconds} s; ${load}\n${path}\n`);
process.exitCode = failures.length > 0 ? 1 : 0;
