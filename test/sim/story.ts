/** What happens to a world, drawn from its seed: rounds of wishes and faults, a calm after each, then quiet until all is as it should be. */
import { assert } from '#proto/kernel/errors.ts';
import { faults } from './faults.ts';
import { unsettled } from './invariants.ts';
import { begin, tidyUp, wishes } from './workload.ts';
import { World } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly trace: string;
  /** Simulated ms until everything was settled after the last fault. */
  readonly settledAfterMs: number;
  /** Simulated ms in all. */
  readonly lastedMs: number;
  readonly revision: number;
}

const rounds = 2;
const chaosMs = 22_000;
const calmMs = 6_000;
/** After the last fault all must be as it is wanted within so long. */
const settleMs = 120_000;

/** Runs the story of one seed; throws where an invariant breaks or the cluster does not come to rest, with the end of the trace. */
export async function tell(seed: number, print?: (line: string) => void): Promise<Outcome> {
  const world = new World(seed, { hosts: 3 + (seed % 3), replicas: 1 + (seed % 3) }, print);
  try {
    world.start();
    await world.pass(2_000);
    begin(world);
    for (let round = 0; round < rounds; round++) {
      await chaos(world);
      await calm(world);
    }
    tidyUp(world);
    const settledAfterMs = await settle(world);
    const lastedMs = world.clock.monotonic();
    return { seed, trace: world.trace.hash, settledAfterMs, lastedMs, revision: world.etcd.revision };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${world.trace.last}\nseed ${seed}: ${why}\nagain: npm run sim -- --seed ${seed} --verbose`, {
      cause: error,
    });
  } finally {
    await world.close();
  }
}

async function chaos(world: World): Promise<void> {
  const { random, mischief } = world;
  Object.assign(mischief, { refused: 3, failsAtStart: 5, diesLater: 10, stubborn: 5, unhealthy: 3 });
  const endsAtMs = world.clock.monotonic() + chaosMs;
  while (world.clock.monotonic() < endsAtMs) {
    await world.pass(50 + random.int(1_500));
    if (random.int(5) < 2) wishes[random.int(wishes.length)]!.make(world);
    else {
      const fault = faults[random.int(faults.length)]!;
      const what = fault.strike(world);
      if (what !== undefined) world.trace.note(`FAULT ${fault.name}: ${what}`);
    }
  }
}

/** Everything broken is mended; what is old news a moment later must be gone from every view. */
async function calm(world: World): Promise<void> {
  world.mend();
  Object.assign(world.mischief, { refused: 0, failsAtStart: 0, diesLater: 0, stubborn: 0, unhealthy: 0 });
  world.trace.note('all faults end');
  await world.pass(calmMs);
  world.calm();
  await world.pass(0);
}

async function settle(world: World): Promise<number> {
  const sinceMs = world.clock.monotonic();
  for (;;) {
    await world.pass(500);
    const passedMs = world.clock.monotonic() - sinceMs;
    const why = await unsettled(world);
    if (why === '') return passedMs;
    assert(passedMs < settleMs, `not settled after ${settleMs} ms without a fault: ${why}`);
  }
}
