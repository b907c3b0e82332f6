/** A singleton under faults, on real hosts: at most one, ever, by its own log. Its long form is `npm run chaos:fence`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { FenceLab } from '#test/support/fence-lab.ts';

let cluster: Cluster;
let lab: FenceLab;
const directory = mkdtempSync(join(tmpdir(), 'fence-'));
beforeAll(async () => {
  cluster = await startCluster();
  lab = new FenceLab(cluster, join(directory, 'shared'));
  await cluster.apply(lab.project);
});
afterAll(async () => {
  await cluster?.close();
  rmSync(directory, { recursive: true, force: true });
});

test('a host is cut off: the singleton ends there before it begins elsewhere, in less than five seconds', async () => {
  const home = await lab.where();
  await cluster.sandbox.act('cut', home);
  await eventually(async () => (await lab.where()) !== home);
  expect(lab.overlaps()).toEqual([]);
  const history = await cluster.tasks('only', '-a');
  expect(history.map(({ state, why }) => [state, why])).toContainEqual([
    'orphaned',
    `the lease of node ${home} is over: no singleton runs on it`,
  ]);
  await cluster.sandbox.act('join', home);
  await cluster.nodeIs(home, 'ready');
  expect(lab.overlaps()).toEqual([]);
});

test.each(['STOP', 'KILL'])(
  'guard and agent get SIG%s at once, and the host is cut off: it ends before its lease does all the same',
  async (signal) => {
    const home = await lab.where();
    for (const program of ['node-agent/main.ts', 'watchdog/guard.sh']) await lab.signal(home, program, signal);
    await cluster.sandbox.act('cut', home);
    await eventually(async () => (await lab.where()) !== home);
    const [lease] = (await cluster.sandbox.run(home, ['cat', '/run/gantry/fence/lease'])).split(' ');
    const last = lab.beats().findLast(({ writer }) => writer.startsWith(`${home}-`))!;
    expect(last.atMs).toBeLessThan(Number(lease));
    expect(lab.overlaps()).toEqual([]);
    await cluster.sandbox.act('join', home);
    for (const program of ['node-agent/main.ts', 'watchdog/guard.sh']) await lab.signal(home, program, 'CONT');
    await cluster.nodeIs(home, 'ready', 30_000);
    expect(lab.overlaps()).toEqual([]);
  },
);

test('it never runs twice, whoever is killed, cut off, drained or replaced', async () => {
  const first = [
    'agent, watchdog and guard killed',
    'nothing gets in',
    'guard killed',
    'drained',
    'leader killed',
    'rolled out',
  ];
  const { overlaps, silences } = await lab.run({ rounds: first.length, seed: 1, first, mostMs: 2_500, log: () => {} });
  expect(overlaps).toEqual([]);
  for (const { fault, ms } of silences) expect(ms, fault).toBeLessThan(8_000);
});
