/** What happens to a world, drawn from its seed: rounds of wishes and faults, a calm after each, then quiet until all is as it should be. */
import { assert } from '#proto/kernel/errors.ts';
import { type Random, seededRandom } from '#proto/kernel/random.ts';
import { faultsOf, type Plot, wishesOf } from './plot.ts';
import { first } from './plots.ts';
import { unsettled } from './settled.ts';
import { World, type WorldSize } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly trace: string;
  /** Simulated ms until everything was settled after the last fault. */
  readonly settledAfterMs: number;
  /** Simulated ms in all. */
  readonly lastedMs: number;
  /** Of that, ms in which something was or might be wrong. */
  readonly troubledMs: number;
  readonly revision: number;
}

const rounds = 2;
const disturbances = 30;
const calmMs = 6_000;
/** After the last fault all must be as it is wanted within so long. */
const settleMs = 90_000;

export interface TellOptions {
  /** `first` unless told. */
  readonly plot?: Plot;
  /** Gets every line of the trace. */
  readonly print?: ((line: string) => void) | undefined;
  /** Disturbances that do not happen, by number: the others are the same as with them. */
  readonly without?: ReadonlySet<number>;
  /** Without the quiet after each round. */
  readonly brief?: boolean;
  /** Else drawn from the seed. */
  readonly size?: WorldSize;
  /** Told when each round begins, and when what it did is over. */
  readonly entered?: (part: 'trouble' | 'quiet') => void;
}

/** Runs the story of one seed; throws where an invariant breaks or the cluster does not come to rest, with the end of the trace. */
export async function tell(
  seed: number,
  {
    plot = first,
    print,
    without = new Set(),
    brief = false,
    size = sizeOf(seed),
    entered = () => {},
  }: TellOptions = {},
): Promise<Outcome> {
  const { watched, chapters } = plot;
  const invariants = chapters.flatMap((chapter) => chapter.invariants?.() ?? []);
  const world = new World(seed, { watched, invariants, ...size }, print);
  try {
    world.start();
    await world.pass(2_000);
    for (const chapter of chapters) chapter.begin?.(world);
    let troubledMs = 0;
    for (let round = 0; round < rounds; round++) {
      const beganMs = world.clock.monotonic();
      entered('trouble');
      await chaos(world, plot, seed, round, without);
      await calm(world);
      troubledMs += world.clock.monotonic() - beganMs;
      entered('quiet');
      if (!brief) await quiet(world, seededRandom(seed * 31 + round));
    }
    for (const chapter of chapters) chapter.tidyUp?.(world);
    const settledAfterMs = await settle(world, plot);
    const lastedMs = world.clock.monotonic();
    return { seed, trace: world.trace.hash, settledAfterMs, lastedMs, troubledMs, revision: world.etcd.revision };
  } catch (error) {
    throw new BrokenStory(seed, plot, world.trace.last, error);
  } finally {
    await world.close();
  }
}

/** What broke, after the end of its trace. */
export class BrokenStory extends Error {
  readonly why: string;

  constructor(seed: number, plot: Plot, last: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(
      `${last}\nseed ${seed}: ${why}\nagain: npm run sim -- --story ${plot.name} --seed ${seed} --verbose, or --shrink`,
      { cause },
    );
    this.why = why;
  }
}

/** The fewest disturbances, of those of the seed, that still break it in any way; empty where it does not break. */
export async function shrink(seed: number, plot: Plot): Promise<readonly number[]> {
  const breaks = async (without: ReadonlySet<number>) => {
    try {
      await tell(seed, { plot, without });
      return false;
    } catch (error) {
      if (error instanceof BrokenStory) return true;
      throw error;
    }
  };
  if (!(await breaks(new Set()))) return [];
  const without = new Set<number>();
  // Halves, quarters, …, and at last one by one.
  for (let size = rounds * disturbances; size >= 1; size >>= 1) {
    for (let from = 0; from < rounds * disturbances; from += size) {
      const some = Array.from({ length: size }, (_, index) => from + index).filter((index) => !without.has(index));
      if (some.length > 0 && (await breaks(new Set([...without, ...some]))))
        for (const index of some) without.add(index);
    }
  }
  return Array.from({ length: rounds * disturbances }, (_, index) => index).filter((index) => !without.has(index));
}

/** Most worlds are small; each tenth has more of everything. */
function sizeOf(seed: number): WorldSize {
  if (seed % 30 === 0) return { hosts: 20, replicas: 3 };
  return seed % 10 === 0 ? { hosts: 9, replicas: 3 } : { hosts: 3 + (seed % 3), replicas: 1 + (seed % 3) };
}

/** What forgets, rests, or comes due after minutes or an hour must do so too: ms without a fault after each round. */
const quietsMs = [0, 0, 60_000, 600_000, 3_600_000] as const;

async function chaos(
  world: World,
  plot: Plot,
  seed: number,
  round: number,
  without: ReadonlySet<number>,
): Promise<void> {
  const [wishes, faults] = [wishesOf(plot), faultsOf(plot)];
  Object.assign(world.mischief, { refused: 3, failsAtStart: 5, diesLater: 10, stubborn: 5, unhealthy: 3 });
  for (let index = round * disturbances; index < (round + 1) * disturbances; index++) {
    // Dice of its own for each: one left out does not change the others.
    world.random = seededRandom(seed * 1_009 + index);
    await world.pass(50 + world.random.int(1_500));
    if (without.has(index)) continue;
    if (world.random.int(plot.odds.of) < plot.odds.wishes) wishes[world.random.int(wishes.length)]!.make(world);
    else {
      const fault = faults[world.random.int(faults.length)]!;
      const what = fault.strike(world);
      if (what !== undefined) world.trace.note(`FAULT ${index} ${fault.name}: ${what}`);
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

/** Nothing happens but what the cluster does by itself. */
async function quiet(world: World, random: Random): Promise<void> {
  await world.pass(quietsMs[random.int(quietsMs.length)]!);
  world.calm();
}

async function settle(world: World, { chapters }: Plot): Promise<number> {
  const sinceMs = world.clock.monotonic();
  for (;;) {
    await world.pass(500);
    const passedMs = world.clock.monotonic() - sinceMs;
    const late = () => chapters.map((chapter) => chapter.unsettled?.(world) ?? '').find((one) => one !== '') ?? '';
    const why = (await unsettled(world)) || late();
    if (why === '') return passedMs;
    assert(passedMs < settleMs, `not settled after ${settleMs} ms without a fault: ${why}`);
  }
}
