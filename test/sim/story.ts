/** What happens to a world, drawn from its seed: wishes and faults for a minute, then quiet until all is as it should be. */
import {
  createService,
  removeService,
  restartService,
  rollbackService,
  scaleService,
  setAvailability,
  setNodeLabels,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import { assert, Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { containerSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { WorldAgent } from './agent.ts';
import { World } from './world.ts';

export interface Outcome {
  readonly trace: string;
  /** Simulated ms until everything was settled after the last fault. */
  readonly settledAfterMs: number;
  readonly revision: number;
}

const chaosMs = 60_000;
const quietMs = 300_000;

/** Runs the story of one seed; throws where an invariant breaks or the cluster does not come to rest. */
export async function tell(seed: number, log?: Log): Promise<Outcome> {
  const world = new World(seed, 3 + (seed % 4), log);
  try {
    await world.lead();
    await world.pass(2_000);
    for (let index = 1; index <= 4; index++)
      world.wish((context) => createService(context, randomSpec(world, `s${index}`)));
    Object.assign(world.mischief, { rejected: 3, failsAtStart: 5, diesLater: 10 });
    for (let passed = 0; passed < chaosMs; ) {
      const ms = 100 + world.random.int(4_000);
      await world.pass(ms);
      passed += ms;
      await disturb(world);
    }
    // Wishes under way come first: a wish is decided on what is committed.
    await world.pass(1_000);
    heal(world);
    for (let passed = 0; passed < quietMs; passed += 1_000) {
      if (world.unsettled() === '') {
        return { trace: world.trace, settledAfterMs: passed, revision: world.etcd.revision };
      }
      await world.pass(1_000);
    }
    assert(false, `not settled after ${quietMs} ms of quiet: ${world.unsettled()}`);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error} (npm run sim -- --seed ${seed})`, {
      cause: error,
    });
  } finally {
    await world.close();
  }
}

function randomSpec(world: World, name: string): ServiceSpec {
  const { random } = world;
  const global = random.int(4) === 0;
  return aSpec(name, {
    mode: global ? 'global' : 'replicated',
    replicas: global ? 0 : 1 + random.int(6),
    template: randomTemplate(world),
    update: {
      parallelism: random.int(3),
      delayMs: random.int(2) * 300,
      order: random.int(2) === 0 ? 'stop-first' : 'start-first',
      monitorMs: random.int(2_000),
      failureAction: (['pause', 'continue', 'rollback'] as const)[random.int(3)]!,
      maxFailureRatio: random.int(2) * 0.3,
    },
    placement: {
      constraints: random.int(4) === 0 ? ['node.labels.zone != c'] : [],
      spread: random.int(2) === 0 ? ['node.labels.zone'] : [],
      maxReplicasPerNode: 0,
      platforms: [],
    },
    endpointMode: random.int(3) === 0 ? 'dnsrr' : 'vip',
  });
}

function randomTemplate({ random }: World) {
  return aTemplate({
    container: containerSpec(`web:${random.int(1_000)}`),
    reservations: { cpuMillis: 100 * random.int(5), memoryBytes: 2 ** 26 * random.int(4), pids: 0 },
  });
}

type Disturbance = (world: World) => void | Promise<void>;

const disturbances: readonly Disturbance[] = [
  (world) => withService(world, ({ id }) => world.wish((context) => scaleService(context, id, world.random.int(8)))),
  (world) =>
    withService(world, ({ id, spec }) => {
      const next = { ...spec, template: randomTemplate(world) };
      world.wish((context) => updateService(context, id, next));
    }),
  (world) => withService(world, ({ id }) => world.wish((context) => rollbackService(context, id))),
  (world) => withService(world, ({ id }) => world.wish((context) => restartService(context, id))),
  (world) =>
    withService(world, ({ id, spec }) => {
      if (world.random.int(3) > 0) return;
      world.wish((context) => removeService(context, id));
      const again = randomSpec(world, spec.name);
      world.clock.after(5_000, () => world.wish((context) => createService(context, again)));
    }),
  (world) => {
    const { id } = anAgent(world);
    const availability = (['active', 'drain', 'pause'] as const)[world.random.int(3)]!;
    world.wish((context) => setAvailability(context, id, availability));
  },
  (world) => {
    const { id } = anAgent(world);
    const zone = 'abc'[world.random.int(3)]!;
    world.wish((context) => setNodeLabels(context, id, { zone }));
  },
  (world) => {
    const agent = anAgent(world);
    agent.crash();
    world.clock.after(200 + world.random.int(10_000), () => agent.boot());
  },
  (world) => {
    const agent = anAgent(world);
    agent.cut = true;
    world.clock.after(100 + world.random.int(8_000), () => agent.heal());
  },
  (world) => {
    const agent = anAgent(world);
    agent.delayMs = world.random.int(600);
    world.clock.after(3_000, () => {
      agent.delayMs = 0;
    });
  },
  (world) => anAgent(world).killOne(),
  (world) => world.lead(),
  (world) => {
    const code = (['conflict', 'unavailable', 'timeout'] as const)[world.random.int(3)]!;
    const applied = code === 'timeout' && world.random.int(2) === 0;
    world.leader.store.failNext({ fault: new Fault(code, 'injected'), applied });
  },
];

function disturb(world: World): void | Promise<void> {
  return disturbances[world.random.int(disturbances.length)]!(world);
}

function anAgent({ agents, random }: World): WorldAgent {
  return [...agents.values()][random.int(agents.size)]!;
}

function withService(world: World, act: (service: Service) => void): void {
  const services = [...world.observer.snapshot.all('service')].sort((a, b) => (a.spec.name < b.spec.name ? -1 : 1));
  const service = services[world.random.int(Math.max(1, services.length))];
  if (service && !service.removing) act(service);
}

function heal(world: World): void {
  Object.assign(world.mischief, { rejected: 0, failsAtStart: 0, diesLater: 0 });
  for (const agent of world.agents.values()) {
    agent.delayMs = 0;
    agent.boot();
    agent.heal();
    world.wish((context) => setAvailability(context, agent.id, 'active'));
    world.wish((context) => setNodeLabels(context, agent.id, { zone: 'a' }));
  }
}
