/** The leader dies in the middle of a deployment of a hundred tasks: the next one finishes it, a little later, and does nothing of it twice. */
import { afterEach, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { aSpec } from '#test/support/builders.ts';
import { World } from './world.ts';

let world: World | undefined;
afterEach(() => world?.close());

const tasks = 100;

interface Deployment {
  /** From the wish until all of them run, as the store has it; simulated. */
  readonly tookMs: number;
  /** Ids of all tasks that there ever were. */
  readonly ids: ReadonlySet<TaskId>;
  /** Starts of processes, by task. */
  readonly starts: ReadonlyMap<TaskId, number>;
  readonly epochs: number;
}

/** `killAfterMs`: when the leader dies, counted from the wish; undefined: never. */
async function deploy(seed: number, killAfterMs: number | undefined): Promise<Deployment> {
  await world?.close();
  const starts = new Map<TaskId, number>();
  const ids = new Set<TaskId>();
  world = new World(seed, { hosts: 10, replicas: 3 });
  world.start();
  await world.pass(3_000);
  const { started } = world;
  const seen = world;
  world.started = (host, task) => {
    starts.set(task, (starts.get(task) ?? 0) + 1);
    started.call(seen, host, task);
  };
  const { epoch } = world;
  const beganAtMs = world.clock.monotonic();
  world.wish('apply web', (context) => createService(context, aSpec('web', { replicas: tasks })));
  const running = () => {
    const all = [...seen.truth.all('task')];
    for (const { id } of all) ids.add(id);
    return all.filter(({ state, wanted }) => state === 'running' && wanted === 'running').length;
  };
  let killed = killAfterMs === undefined;
  while (running() < tasks) {
    await world.pass(5);
    const forMs = world.clock.monotonic() - beganAtMs;
    if (!killed && forMs >= killAfterMs!) {
      killed = true;
      world.leader!.crash();
    }
    if (forMs > 60_000) throw new Error(`${running()} of ${tasks} run after a minute`);
  }
  const tookMs = world.clock.monotonic() - beganAtMs;
  // Nor does anything come of it later.
  await world.pass(3_000);
  expect(running()).toBe(tasks);
  return { tookMs, ids, starts, epochs: world.epoch - epoch };
}

it.each([1, 2])('finishes at most 3 s later than without, and nothing is done twice, with seed %i', async (seed) => {
  const { tookMs } = await deploy(seed, undefined);
  const later: number[] = [];
  for (const share of [0.02, 0.1, 0.3, 0.5, 0.8]) {
    const killed = await deploy(seed, Math.round(tookMs * share));
    expect(killed.epochs).toBe(1);
    expect(killed.ids.size).toBe(tasks);
    expect([...killed.starts.values()].filter((count) => count !== 1)).toEqual([]);
    expect(killed.starts.size).toBe(tasks);
    later.push(Math.round(killed.tookMs - tookMs));
  }
  console.log(
    `seed ${seed}: ${Math.round(tookMs)} ms, with the leader killed ${later.map((ms) => `+${ms}`).join(' ')} ms`,
  );
  expect(Math.max(...later)).toBeLessThanOrEqual(3_000);
});
