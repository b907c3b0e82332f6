/** Jobs while leaders die and everything goes wrong: each instant of a schedule has its one iteration, and runs. */
import { afterEach, describe, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import type { Iteration } from '#proto/model/job.ts';
import { containerSpec, defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import { faults } from './faults.ts';
import { World } from './world.ts';

let world: World;
afterEach(() => world.close());

const work = aTemplate({ container: containerSpec('work:1', { command: ['work'] }) });
const everyMs = 2_000;
const tick = (fields: Partial<ServiceSpec> = {}) =>
  aSpec('tick', {
    mode: 'replicated-job',
    replicas: 1,
    template: work,
    restart: { ...defaults.jobRestart, maxAttempts: 0 },
    schedule: { ...defaults.schedule, cron: '*/2 * * * * *', catchUp: 'all', keepSucceeded: 100 },
    ...fields,
  });

async function begin(seed: number): Promise<void> {
  world = new World(seed, { hosts: 3, replicas: 2 + (seed % 2) });
  world.start();
  await world.pass(2_000 + (seed % 100) * 37);
  world.wish('apply tick', (context) => createService(context, tick()));
}

function service(name: string): Service {
  const found = world.truth.serviceNamed('demo', name);
  assert(found, `there is no ${name}`);
  return found;
}

/** Of the schedule, oldest first; the last second's may still be under way. */
function iterations(): readonly Iteration[] {
  return service('tick').job!.iterations;
}

function expectEveryInstant(list: readonly Iteration[]): void {
  const [first] = list;
  expect(list.map(({ dueAtMs }) => dueAtMs)).toEqual(list.map((_, index) => first!.dueAtMs + index * everyMs));
}

async function killLeader(): Promise<void> {
  const { leader } = world;
  leader?.crash();
  await world.pass(500 + world.random.int(6_000));
  leader?.start();
}

const seeds = [
  ...Array.from({ length: 6 }, (_, index) => index + 1),
  ...Array.from({ length: 3 }, () => 1_000 + systemRandom.int(100_000)),
];

describe('a schedule of every two seconds', () => {
  it.each(seeds)('runs each of three minutes once, while two leaders are killed, with seed %i', async (seed) => {
    await begin(seed);
    await world.pass(10_000 + world.random.int(60_000));
    await killLeader();
    await world.pass(10_000 + world.random.int(60_000));
    await killLeader();
    const until = world.clock.monotonic();
    await world.pass(Math.max(20_000, 180_000 - until));
    const seen = iterations().filter(({ state }) => state !== 'running');
    expectEveryInstant(seen);
    expect(seen.length).toBeGreaterThan(80);
    expect(new Set(seen.map(({ state }) => state))).toEqual(new Set(['complete']));
    const lateMs = seen.map(({ startedAtMs, dueAtMs }) => startedAtMs - dueAtMs);
    expect(Math.max(...lateMs)).toBeLessThan(10_000);
    // No task of it was begun a second time: nobody of those that are still known has a forerunner.
    const known = [...world.truth.tasksOfService(service('tick').id)].map(({ iteration }) => iteration);
    expect(new Set(known).size).toBe(known.length);
  });

  it.each(seeds)('F10: has no instant twice whatever goes wrong, and none is lost, with seed %i', async (seed) => {
    await begin(seed);
    world.wish('apply batch', (context) =>
      createService(
        context,
        aSpec('batch', {
          mode: 'replicated-job',
          replicas: 12,
          maxConcurrent: 3,
          template: work,
          restart: { ...defaults.jobRestart, maxAttempts: 0 },
        }),
      ),
    );
    await world.pass(1_000);
    Object.assign(world.mischief, { refused: 3, failsAtStart: 5, diesLater: 10, stubborn: 5 });
    for (let index = 0; index < 30; index++) {
      await world.pass(50 + world.random.int(1_500));
      if (world.random.int(6) === 0) await killLeader();
      else {
        const fault = faults[world.random.int(faults.length)]!;
        const what = fault.strike(world);
        if (what !== undefined) world.trace.note(`FAULT ${index} ${fault.name}: ${what}`);
      }
    }
    world.mend();
    Object.assign(world.mischief, { refused: 0, failsAtStart: 0, diesLater: 0, stubborn: 0 });
    for (let waited = 0; service('batch').job!.iterations[0]!.state === 'running'; waited++) {
      assert(waited < 90, 'the batch does not end');
      await world.pass(1_000);
    }
    expect(service('batch').job!.iterations).toMatchObject([{ state: 'complete', completed: 12, failed: 0 }]);
    await world.pass(30_000);
    const all = iterations();
    expectEveryInstant(all);
    const open = all.filter(({ state }) => state === 'running');
    expect(open.length).toBeLessThan(3);
    expect(all.filter(({ state }) => state !== 'running' && state !== 'complete')).toEqual([]);
  });
});
