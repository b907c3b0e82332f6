/** A node whose wall clock is off waits as long as it is told to, and nobody is misled by what it says. */
import { afterEach, expect, it } from 'vitest';
import type { TaskId } from '#proto/model/ids.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

const hourMs = 3_600_000;
let lab: AgentLab;
afterEach(() => lab.close());

async function hostAhead(skewMs: number): Promise<LabHost> {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  host.skewMs = skewMs;
  await host.start();
  return host;
}
const runs = (id: TaskId) => eventually(() => lab.task(id).state === 'running');

it.for([
  ['ahead', hourMs],
  ['behind', -hourMs],
] as const)('a node whose clock is an hour %s keeps a restart delay, and no more', async ([, skewMs]) => {
  const host = await hostAhead(skewMs);
  const startAfterMs = lab.clock.now() + 400;
  const id = await lab.assign(host, 't1', { startAfterMs });
  await runs(id);
  const { stateAtMs, startedAtMs } = lab.task(id);
  expect(stateAtMs).toBeGreaterThanOrEqual(startAfterMs);
  expect(stateAtMs).toBeLessThanOrEqual(lab.clock.now());
  // What the node says of its container is by the node's clock.
  expect(Math.abs(startedAtMs - stateAtMs - skewMs)).toBeLessThan(5_000);
  expect(lab.task(id).startAfterMs).toBe(startAfterMs);
});

it('F12: a delay that is over when the node hears of the task holds nothing up', async () => {
  const host = await hostAhead(-hourMs);
  const begin = lab.clock.monotonic();
  await runs(await lab.assign(host, 't1', { startAfterMs: lab.clock.now() - 10 }));
  expect(lab.clock.monotonic() - begin).toBeLessThan(5_000);
});

it('F12: a clock that is set back while a task waits makes it wait no longer', async () => {
  const host = await hostAhead(0);
  const id = await lab.assign(host, 't1', { startAfterMs: lab.clock.now() + 3_000, createdAtMs: lab.clock.now() });
  await eventually(() => lab.task(id).state === 'ready');
  const begin = lab.clock.monotonic();
  host.skewMs = -hourMs;
  await runs(id);
  expect(lab.clock.monotonic() - begin).toBeLessThan(10_000);
});

it('F12: what the clock of an earlier leader has delayed waits no longer than it was to, though the next one is behind', async () => {
  const host = await hostAhead(0);
  const theirs = lab.clock.now() + hourMs;
  const begin = lab.clock.monotonic();
  await runs(await lab.assign(host, 't1', { createdAtMs: theirs, startAfterMs: theirs + 500 }));
  expect(lab.clock.monotonic() - begin).toBeLessThan(10_000);
});
