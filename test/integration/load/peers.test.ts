/** The short form of `npm run bench:peers`: Docker Swarm and Gantry are asked the same, and the figures of both can be compared. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Contender, gantry } from '#test/bench/contender.ts';
import { sections, units, warm } from '#test/bench/peers.ts';
import { Swarm, tuned } from '#test/bench/swarm.ts';

const contenders: Contender[] = [];

beforeAll(async () => {
  contenders.push(await gantry(), (await Swarm.start()).as(tuned));
}, 240_000);

afterAll(async () => {
  for (const contender of contenders) await contender.close();
}, 60_000);

it('F14: a host is cut off and comes back: of both it is said how long that took, and Gantry keeps the tasks that ran before', async () => {
  const [ours, theirs] = await inTurns('cut');
  expect(Object.keys(theirs!)).toEqual(Object.keys(ours!));
  for (const name of Object.keys(ours!)) expect([...units.keys()]).toContain(name);
  expect(ours).toMatchObject({ '  of 30 still the ones from before': 30 });
  expect(ours!['  most less fewest on a host, healed']).toBeLessThanOrEqual(1);
}, 400_000);

async function inTurns(section: string): Promise<Record<string, number>[]> {
  const samples: Record<string, number>[] = [];
  for (const contender of contenders) {
    await contender.ready();
    await warm(contender);
    samples.push(await sections[section]!(contender, 0));
  }
  return samples;
}
