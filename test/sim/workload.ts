/** What operators do meanwhile: named wishes, drawn at random, decided by the production rules. */

import {
  createService,
  removeNode,
  restartService,
  rollbackService,
  scaleService,
  setAvailability,
  setNodeLabels,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import { discardServices, undo } from '#control-plane/reconcilers/trash.ts';
import type { Dependency } from '#proto/model/order.ts';
import { noResources } from '#proto/model/resources.ts';
import {
  containerSpec,
  defaults,
  emptyMount,
  type HealthCheck,
  type Service,
  type ServiceSpec,
} from '#proto/model/service.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import { randomSecrets, withSecrets } from './documents.ts';
import type { Host } from './host.ts';
import { randomGates, rolloutWishes } from './rollouts.ts';
import type { World } from './world.ts';

export interface Wish {
  readonly name: string;
  make(world: World): void;
}

export const wishes: readonly Wish[] = [
  {
    name: 'scale',
    make: (world) =>
      withService(world, ({ id, spec }) => {
        const replicas = world.random.int(8);
        world.wish(`scale ${spec.name} to ${replicas}`, (context) => scaleService(context, id, replicas));
      }),
  },
  {
    name: 'update',
    make: (world) =>
      withService(world, ({ id, spec }) => {
        const next = { ...spec, template: randomTemplate(world, spec.name) };
        world.wish(`update ${spec.name}`, (context) => withSecrets(context, next, updateService(context, id, next)));
      }),
  },
  {
    name: 'change limits',
    make: (world) =>
      withService(world, ({ id, spec }) => {
        const template = { ...spec.template, ...randomAmounts(world, spec.template.container.mounts.length > 0) };
        world.wish(`limits of ${spec.name}`, (context) => updateService(context, id, { ...spec, template }));
      }),
  },
  {
    name: 'rollback',
    make: (world) =>
      withService(world, ({ id, spec }) =>
        world.wish(`rollback ${spec.name}`, (context) => rollbackService(context, id)),
      ),
  },
  {
    name: 'restart',
    make: (world) =>
      withService(world, ({ id, spec }) =>
        world.wish(`restart ${spec.name}`, (context) => restartService(context, id)),
      ),
  },
  {
    name: 'remove, and apply again or undo',
    make: (world) =>
      withService(world, ({ id, spec }) => {
        world.wish(`rm ${spec.name}`, (context) => {
          const service = context.snapshot.service(id);
          return service ? discardServices(context, [service]) : [];
        });
        const again = randomSpec(world, spec.name);
        if (again.replicas % 2 === 0)
          world.clock.after(5_000, () =>
            world.wish(`apply ${spec.name}`, (context) => withSecrets(context, again, createService(context, again))),
          );
        else
          world.clock.after(again.replicas * 1_000, () =>
            world.wish(`undo ${spec.name}`, (context) => [...undo(context, spec.name).changes]),
          );
      }),
  },
  {
    name: 'availability',
    make(world) {
      const { id, name } = aHost(world);
      const availability = (['active', 'drain', 'pause'] as const)[world.random.int(3)]!;
      world.wish(`${availability} ${name}`, (context) => setAvailability(context, id, availability));
    },
  },
  {
    name: 'label',
    make(world) {
      const { id, name } = aHost(world);
      const zone = 'abc'[world.random.int(3)]!;
      world.wish(`label ${name} zone=${zone}`, (context) => setNodeLabels(context, id, { zone }));
    },
  },
  {
    name: 'remove a node, and join it again',
    make(world) {
      const host = aHost(world);
      const force = world.random.int(2) === 0;
      world.wish(`node rm ${host.name}${force ? ' --force' : ''}`, (context) => removeNode(context, host.id, force));
      world.during(2_000 + world.random.int(6_000), () => rejoin(world, host));
    },
  },
  ...rolloutWishes,
];

/** Services that are applied and changed with specs of chance; others have chapters of their own. */
const isOurs = ({ spec }: Service) => /^(s\d|only)$/.test(spec.name);

/** Joins the host again where it is no member any more. */
export function rejoin(world: World, host: Host): void {
  if (world.etcd.get('node', host.id)) return;
  world.trace.note(`${host.name} joins again`);
  host.joinAs(world.member(host.name));
}

/** The services a story begins with. */
export function begin(world: World): void {
  for (let index = 1; index <= 4; index++) {
    const spec = randomSpec(world, `s${index}`);
    world.wish(`apply ${spec.name}`, (context) => withSecrets(context, spec, createService(context, spec)));
  }
  const only = aSpec('only', { replicas: 1, failover: 'singleton' });
  world.wish('apply only, a singleton', (context) => createService(context, only));
}

/** Puts the nodes back into service, so that everything wanted has a place. */
export function tidyUp(world: World): void {
  for (const host of world.hosts) {
    rejoin(world, host);
    const { id, name } = host;
    world.wish(`activate ${name}`, (context) => setAvailability(context, id, 'active'));
    world.wish(`label ${name} zone=a`, (context) => setNodeLabels(context, id, { zone: 'a' }));
  }
  // A volume of a node that was removed never comes back.
  for (const { id, spec } of world.truth.all('service')) {
    world.wish(`give up lost volumes of ${spec.name}`, (context) => {
      const { snapshot } = context;
      const service = snapshot.service(id);
      const isLost = (name: string) => {
        const volume = snapshot.get('volume', name)?.value;
        return volume && !snapshot.node(volume.nodeId);
      };
      return service && !service.removing && pinnedVolumes(service.spec.mode, service.spec.template).some(isLost)
        ? updateService(context, id, { ...service.spec, volumeLoss: 'recreate' })
        : [];
    });
  }
}

function randomSpec(world: World, name: string): ServiceSpec {
  const { random } = world;
  const global = random.int(4) === 0;
  return aSpec(name, {
    mode: global ? 'global' : 'replicated',
    replicas: global ? 0 : 1 + random.int(6),
    template: randomTemplate(world, name),
    update: {
      gates: randomGates(random),
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
      strategy: '',
      affinities: [],
    },
    endpointMode: random.int(3) === 0 ? 'dnsrr' : 'vip',
    volumeLoss: name === 's1' ? 'wait' : 'recreate',
    dependsOn: random.int(2) === 0 ? randomDependencies(world, name) : [],
    priority: name === 's2' ? 100 : name === 's3' ? 10 : 0,
  });
}

/** On services before it in the alphabet, so that there is no circle. */
function randomDependencies({ random }: World, name: string): Dependency[] {
  return ['s1', 's2', 's3'].flatMap((service) => {
    const condition = random.int(3) === 0 ? 'service_healthy' : 'service_started';
    const required = random.int(2) === 0;
    return service < name ? [{ service, condition, restart: false, required }] : [];
  });
}

const healthCheck: HealthCheck = {
  ...defaults.healthCheck,
  test: ['CMD', 'check'],
  intervalMs: 2_000,
  timeoutMs: 1_000,
  startPeriodMs: 0,
  startIntervalMs: 500,
  retries: 2,
};

/** Some with a volume, which two services share; those reserve nothing, for all of them must fit one node in the end. */
function randomTemplate({ random }: World, name: string) {
  const checked = random.int(4) === 0;
  const number = random.int(1_000);
  const reservations = { cpuMillis: 100 * random.int(5), memoryBytes: 2 ** 26 * random.int(4), pids: 0, generic: [] };
  const volume = name < 's3' ? 'demo_shared' : `demo_${name}`;
  const mounts = number % 4 === 0 ? [emptyMount('volume', volume, '/data')] : [];
  return aTemplate({
    documents: randomSecrets(name, number),
    container: containerSpec(`web:${number}`, { mounts, ...(checked ? { healthCheck } : {}) }),
    reservations: mounts.length > 0 ? noResources : reservations,
  });
}

/** What changes under running processes. */
function randomAmounts({ random }: World, mounts: boolean) {
  const amounts = { cpuMillis: 100 * random.int(9), memoryBytes: 2 ** 26 * random.int(4), pids: 0, generic: [] };
  return { limits: amounts, reservations: mounts ? noResources : amounts };
}

function aHost({ hosts, random }: World): Host {
  return hosts[random.int(hosts.length)]!;
}

/** One of the standing services of these names, drawn at random. */
export function withNamed(world: World, names: readonly string[], act: (service: Service) => void): void {
  const services = names.flatMap((name) => world.truth.serviceNamed('demo', name) ?? []);
  const service = services[world.random.int(Math.max(1, services.length))];
  if (service && !service.removing) act(service);
}

function withService(world: World, act: (service: Service) => void): void {
  const services = [...world.truth.all('service')].filter(isOurs).sort((a, b) => (a.spec.name < b.spec.name ? -1 : 1));
  const service = services[world.random.int(Math.max(1, services.length))];
  if (service && !service.removing) act(service);
}
