/** Work that ends: run by hand, by a schedule, suspended, changed while it is under way. */
import { runJob, suspendJob } from '#control-plane/reconcilers/job-changes.ts';
import { createService, restartService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { Schedule } from '#proto/model/job.ts';
import { containerSpec, defaults, type ServiceSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { Invariant } from '../invariants.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

const everyMs = 30_000;

function job(name: string, version: number, fields: Partial<ServiceSpec>): ServiceSpec {
  return aSpec(name, {
    mode: 'replicated-job',
    template: aTemplate({ container: containerSpec(`${name}:${version}`, { command: ['work'] }) }),
    restart: { ...defaults.jobRestart, maxAttempts: 0 },
    ...fields,
  });
}

const specs: Readonly<Record<string, (version: number) => ServiceSpec>> = {
  batch: (version) => job('batch', version, { replicas: 6, maxConcurrent: 3 }),
  sweep: (version) => job('sweep', version, { mode: 'global-job', replicas: 0 }),
  tick: (version) => job('tick', version, { replicas: 1, schedule: scheduled('allow') }),
  tock: (version) => job('tock', version, { replicas: 2, schedule: scheduled('replace') }),
};
const names = Object.keys(specs);

function scheduled(overlap: Schedule['overlap']): Schedule {
  return { ...defaults.schedule, cron: '*/30 * * * * *', catchUp: 'all', overlap };
}

const wishes: readonly Wish[] = [
  {
    name: 'run a job',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => world.wish(`run ${spec.name}`, (context) => runJob(context, id))),
  },
  {
    name: 'suspend a job, or resume it',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const suspended = world.random.int(2) === 0;
        const word = suspended ? 'suspend' : 'resume';
        world.wish(`${word} ${spec.name}`, (context) => suspendJob(context, id, suspended));
      }),
  },
  {
    name: 'another version of a job',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const next = specs[spec.name]!(world.random.int(100));
        world.wish(`apply ${spec.name}`, (context) => updateService(context, id, next));
      }),
  },
  {
    name: 'restart a job',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) =>
        world.wish(`restart ${spec.name}`, (context) => restartService(context, id)),
      ),
  },
];

/** Where nothing is suspended, one instant follows the other. */
function noInstantIsLost(): Invariant {
  const lastAtMs = new Map<string, number>();
  return {
    name: 'every instant of a schedule has its iteration',
    step({ changes }) {
      for (const { table, before, after, key } of changes) {
        if (table !== 'service') continue;
        if (!after || after.job?.suspended || after.removing || before?.job?.suspended) lastAtMs.delete(key);
        if (!after?.spec.schedule) continue;
        const known = before?.job?.iteration ?? 0;
        for (const { number, dueAtMs } of after.job?.iterations ?? []) {
          if (number <= known || dueAtMs === 0) continue;
          const last = lastAtMs.get(key);
          const isNext = last === undefined || dueAtMs === last + everyMs;
          assert(isNext, `${after.spec.name} had ${last}, then ${dueAtMs}`);
          lastAtMs.set(key, dueAtMs);
        }
      }
    },
  };
}

function begin(world: World): void {
  for (const [name, spec] of Object.entries(specs))
    world.wish(`apply ${name}`, (context) => createService(context, spec(1)));
}

function tidyUp(world: World): void {
  for (const name of ['tick', 'tock'])
    withNamed(world, [name], ({ id }) => world.wish(`resume ${name}`, (context) => suspendJob(context, id, false)));
}

export const jobs: Chapter = { name: 'jobs', wishes, begin, tidyUp, invariants: () => [noInstantIsLost()] };
