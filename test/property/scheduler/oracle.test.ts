/** The scheduler against an oracle that counts everything anew for every task: equal feasibility, equal choice, equal table. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stayingOf } from '#control-plane/reconcilers/seats.ts';
import { explain } from '#control-plane/scheduler/explain.ts';
import { filters, type Request, requestOf } from '#control-plane/scheduler/filters.ts';
import { given } from '#control-plane/scheduler/generic.ts';
import { Ledger, type Usage } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import { type Affinity, containerSpec, defaults, emptyMount, type Port } from '#proto/model/service.ts';
import { isActive, occupiesNode, type Task, taskStates, wantedStates } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTask, aTemplate, idOf } from '#test/support/builders.ts';

const label = fc.constantFrom('a', 'b', 'c');
const node = fc.record({
  availability: fc.constantFrom(
    'active' as const,
    'active' as const,
    'active' as const,
    'drain' as const,
    'pause' as const,
  ),
  state: fc.constantFrom('ready' as const, 'ready' as const, 'ready' as const, 'down' as const),
  labels: fc.record({ zone: label, rack: label }, { requiredKeys: [] }),
  runtimes: fc.constantFrom(['runc'], ['runc', 'crun'], []),
  platform: fc.record({
    os: fc.constant('linux'),
    architecture: fc.constantFrom('amd64', 'arm64', 'x86_64'),
    variant: fc.constant(''),
  }),
  capacity: fc.record({
    cpuMillis: fc.integer({ min: 0, max: 12 }),
    memoryBytes: fc.integer({ min: 0, max: 12 }),
    pids: fc.constantFrom(0, 6),
    generic: fc.constantFrom<readonly GenericResource[]>(
      [],
      [{ kind: 'gpu', count: 3, names: [] }],
      [{ kind: 'gpu', count: 3, names: ['g0', 'g1', 'g2'] }],
    ),
  }),
  subnet: fc.constantFrom('10.192.1.0/24', '10.192.1.0/28', ''),
  flapping: fc.constantFrom(
    undefined,
    undefined,
    { verdicts: 1, sinceMs: 1, untilMs: 0 },
    { verdicts: 2, sinceMs: 1, untilMs: 9 },
  ),
});
const resources = fc.record({
  cpuMillis: fc.nat(3),
  memoryBytes: fc.nat(3),
  pids: fc.nat(2),
  generic: fc.constant<readonly GenericResource[]>([]),
});
const asked = fc.constantFrom<readonly GenericResource[]>(
  [],
  [],
  [{ kind: 'gpu', count: 1, names: [] }],
  [{ kind: 'gpu', count: 2, names: [] }],
  [{ kind: 'gpu', count: 0, names: [] }],
  [{ kind: 'gpu', count: 1, names: ['g1'] }],
);
/** What tasks of before hold; numbers where their node may have gone over to names since. */
const held = fc.constantFrom<readonly GenericResource[]>(
  [],
  [],
  [{ kind: 'gpu', count: 1, names: [] }],
  [{ kind: 'gpu', count: 1, names: ['g0'] }],
  [{ kind: 'gpu', count: 2, names: ['g1', 'g2'] }],
);
const affinity: fc.Arbitrary<Affinity> = fc.record({
  service: fc.constantFrom('demo/web', 'demo/api', 'demo/none'),
  scope: fc.constantFrom('node', 'node.labels.zone'),
  apart: fc.boolean(),
  preferred: fc.boolean(),
});
const hostPort: Port = { target: 80, published: 8080, protocol: 'tcp', mode: 'host' };
const anyService = fc.record({
  name: fc.constantFrom('web', 'api'),
  reservations: resources,
  ports: fc.constantFrom<Port[]>([], [], [hostPort]),
  runtime: fc.constantFrom('', 'crun'),
  constraints: fc.constantFrom<string[]>(
    [],
    ['node.labels.zone == a'],
    ['node.labels.zone!=b', 'node.platform.arch == x86_64'],
  ),
  spread: fc.constantFrom<string[]>([], ['node.labels.zone'], ['node.labels.zone', 'node.labels.rack']),
  platforms: fc.constantFrom<string[]>([], ['linux/amd64'], ['linux/arm64', 'linux/amd64']),
  maxReplicasPerNode: fc.constantFrom(0, 0, 1, 2),
  strategy: fc.constantFrom('' as const, '' as const, 'spread' as const, 'binpack' as const),
  affinities: fc.oneof(fc.constant<Affinity[]>([]), fc.array(affinity, { maxLength: 2 })),
  generic: asked,
  volumes: fc.subarray(['x', 'y']),
  recreate: fc.boolean(),
});
/** Without preferences about its own tasks, which no spec may have. */
const service = anyService.filter(
  ({ name, affinities }) => !affinities.some((one) => one.preferred && one.service === `demo/${name}`),
);
const history = fc.record({
  service: fc.constantFrom('web', 'api'),
  node: fc.nat(7),
  revision: fc.constantFrom(1, 2),
  state: fc.constantFrom(...taskStates),
  wanted: fc.constantFrom(...wantedStates),
  reservations: resources,
  generic: held,
  hostPorts: fc.constantFrom<Port[]>([], [], [hostPort]),
});
const cluster = fc.record({
  nodes: fc.array(node, { minLength: 1, maxLength: 8 }),
  service,
  tasks: fc.array(history, { maxLength: 12 }),
  /** Where x and y are: nowhere, on a node, or on one that is gone. */
  homes: fc.record({ x: fc.constantFrom(-1, -1, 0, 1, 9), y: fc.constantFrom(-1, -1, 0, 1, 9) }),
  rolling: fc.boolean(),
  /** What the other service says. */
  others: fc.array(affinity, { maxLength: 1 }),
  /** Of the cluster. */
  strategy: fc.constantFrom('spread' as const, 'binpack' as const),
  count: fc.integer({ min: 1, max: 12 }),
});
type Cluster = typeof cluster extends fc.Arbitrary<infer T> ? T : never;

function nodesOf({ nodes }: Cluster): Node[] {
  return nodes.map(({ labels, ...fields }, index) =>
    aNode(`h${index}`, { ...fields, labels: Object.fromEntries(Object.entries(labels)) as Record<string, string> }),
  );
}

function tasksOf(made: Cluster, nodes: readonly Node[]): Task[] {
  return made.tasks.map(({ service, node, ...fields }, index) => {
    const on = nodes[node % nodes.length]!;
    return aTask(`old${index}x`, { ...fields, serviceId: serviceId(idOf(service)), nodeId: on.id, nodeName: on.name });
  });
}

function requestFor({ service, rolling }: Cluster, tasks: readonly Task[]): Request {
  const { name, ports, runtime, volumes, recreate, generic, ...placement } = service;
  const mounts = volumes.map((source) => emptyMount('volume', source, `/${source}`));
  const reservations = { ...service.reservations, generic };
  const template = aTemplate({ reservations, runtime, container: containerSpec('web:1', { mounts }) });
  const spec = aSpec(name, { ports, placement, template, volumeLoss: recreate ? 'recreate' : 'wait' });
  const own = tasks.filter((task) => task.serviceId === idOf(name));
  return requestOf(serviceId(idOf(name)), spec, template, { staying: rolling ? stayingOf(own, 1) : undefined });
}

const sum = (tasks: readonly Task[], of: (task: Task) => number) => tasks.reduce((total, task) => total + of(task), 0);

/** Tasks of a service on nodes that share the scope with this one, itself among them. */
function near(
  service: string,
  scope: string,
  node: Node,
  nodes: readonly Node[],
  tasks: readonly Task[],
): readonly Task[] {
  const shared = nodes.filter((other) =>
    scope === 'node' ? other === node : node.labels.zone !== undefined && other.labels.zone === node.labels.zone,
  );
  const id = idOf(service.replace('demo/', ''));
  return tasks.filter((task) => task.serviceId === id && shared.some((one) => one.id === task.nodeId));
}

function isMet(
  { service }: Cluster,
  { service: other, scope, apart }: Affinity,
  node: Node,
  nodes: readonly Node[],
  tasks: readonly Task[],
): boolean {
  if (apart) return !near(other, scope, node, nodes, tasks).some(occupiesNode);
  const holds = (task: Task) => isActive(task) && task.nodeId !== '';
  const own = other === `demo/${service.name}`;
  const first = !tasks.some((task) => task.serviceId === idOf(service.name) && holds(task));
  return near(other, scope, node, nodes, tasks).some(holds) || (own && first);
}

/** What the other service keeps away from, this one is kept away from. */
function isKeptAway(made: Cluster, node: Node, nodes: readonly Node[], tasks: readonly Task[]): boolean {
  const [self, other] = made.service.name === 'web' ? ['demo/web', 'demo/api'] : ['demo/api', 'demo/web'];
  return made.others.some(
    ({ service, scope, apart, preferred }) =>
      apart && !preferred && service === self && near(other, scope, node, nodes, tasks).some(occupiesNode),
  );
}

function hasGeneric([ask]: readonly GenericResource[], node: Node, on: readonly Task[]): boolean {
  if (!ask) return true;
  const offer = node.capacity.generic[0];
  if (!offer) return false;
  const taken = on.flatMap(({ generic }) => generic);
  const names = offer.names.filter((name) => !taken.some((one) => one.names.includes(name)));
  if (ask.names.length > 0) return ask.names.every((name) => names.includes(name));
  const left = offer.count - taken.reduce((total, { count }) => total + count, 0);
  return (ask.count || offer.count) <= (offer.names.length > 0 ? Math.min(left, names.length) : left);
}

/** The verdict of each rule in the order of the columns, by the words of the issue and without the ledger. */
function oracleVerdicts(made: Cluster, node: Node, nodes: readonly Node[], tasks: readonly Task[]): boolean[] {
  const { service, homes } = made;
  const on = tasks.filter((task) => task.nodeId === node.id && occupiesNode(task));
  const { cpuMillis, memoryBytes, pids } = service.reservations;
  const arch = node.platform.architecture === 'x86_64' ? 'amd64' : node.platform.architecture;
  const { zone } = node.labels;
  const addresses = node.subnet === '' ? 0 : node.subnet.endsWith('/24') ? 253 : 13;
  return [
    node.state === 'ready' && node.availability === 'active',
    service.platforms.length === 0 || service.platforms.includes(`linux/${arch}`),
    service.runtime === 'crun' ? node.runtimes.includes('crun') : true,
    service.constraints.length === 0 ||
      (service.constraints.length === 1 ? zone === 'a' : zone !== 'b' && arch === 'amd64'),
    (['x', 'y'] as const).every((name) => {
      const at = homes[name];
      const isLost = at >= nodes.length || nodes[at]?.state === 'down';
      return !service.volumes.includes(name) || at < 0 || (isLost && service.recreate) || nodes[at] === node;
    }),
    (cpuMillis === 0 || sum(on, (task) => task.reservations.cpuMillis) + cpuMillis <= node.capacity.cpuMillis) &&
      (memoryBytes === 0 ||
        sum(on, (task) => task.reservations.memoryBytes) + memoryBytes <= node.capacity.memoryBytes) &&
      (pids === 0 ||
        node.capacity.pids === 0 ||
        sum(on, (task) => task.reservations.pids) + pids <= node.capacity.pids),
    hasGeneric(service.generic, node, on),
    service.affinities.every((one) => one.preferred || isMet(made, one, node, nodes, tasks)) &&
      !isKeptAway(made, node, nodes, tasks),
    service.ports.length === 0 || !on.some((task) => task.hostPorts.length > 0),
    service.maxReplicasPerNode === 0 ||
      on.filter((task) => task.serviceId === idOf(service.name)).length < service.maxReplicasPerNode,
    on.length < addresses,
  ];
}

/**
 * The node that comes first: one that does not flap, fewest preferences unmet, then at each level the value with the fewest seats that stay, then
 * fewest seats, then the node by the same, least reserved, fewest tasks, name; or the most reserved, most tasks, name.
 */
function oracleChoice(made: Cluster, nodes: readonly Node[], tasks: readonly Task[]): string | undefined {
  const active = tasks.filter((task) => isActive(task) && task.serviceId === idOf(made.service.name));
  const seats = (on: readonly Node[]) => active.filter((task) => on.some(({ id }) => id === task.nodeId)).length;
  const staying = (on: readonly Node[]) =>
    active.filter((task) => (!made.rolling || task.revision === 1) && on.some(({ id }) => id === task.nodeId)).length;
  const unmetBy = (node: Node) =>
    made.service.affinities.filter((one) => one.preferred && !isMet(made, one, node, nodes, tasks)).length;
  const key = (node: Node): number[] => {
    const on = tasks.filter((task) => task.nodeId === node.id && occupiesNode(task));
    const { cpuMillis, memoryBytes } = node.capacity;
    const cpu = cpuMillis > 0 ? sum(on, (task) => task.reservations.cpuMillis) / cpuMillis : 0;
    const memory = memoryBytes > 0 ? sum(on, (task) => task.reservations.memoryBytes) / memoryBytes : 0;
    const share = Math.max(cpu, memory);
    const unmet = unmetBy(node);
    if ((made.service.strategy || made.strategy) === 'binpack') return [unmet, -share, -on.length, nodes.indexOf(node)];
    return [unmet, staying([node]), seats([node]), share, on.length, nodes.indexOf(node)];
  };
  const best = (among: readonly Node[], all: readonly Node[], levels: readonly string[]): Node => {
    const [level, ...deeper] = levels;
    if (level === undefined) return among.toSorted((a, b) => compare(key(a), key(b)))[0]!;
    const value = (node: Node) => node.labels[level.slice('node.labels.'.length)] ?? '';
    const groups = [...new Set(among.map(value))].map((one) => {
      const inGroup = all.filter((node) => value(node) === one);
      return {
        staying: staying(inGroup),
        seats: seats(inGroup),
        first: best(
          among.filter((node) => value(node) === one),
          inGroup,
          deeper,
        ),
      };
    });
    const order = (a: (typeof groups)[0], b: typeof a) =>
      unmetBy(a.first) - unmetBy(b.first) ||
      a.staying - b.staying ||
      a.seats - b.seats ||
      compare(key(a.first), key(b.first));
    return groups.sort(order)[0]!.first;
  };
  const fitting = nodes.filter((node) => oracleVerdicts(made, node, nodes, tasks).every(Boolean));
  const steady = fitting.filter(({ flapping }) => !flapping?.untilMs);
  const among = steady.length > 0 ? steady : fitting;
  return among.length === 0 ? undefined : best(among, nodes, made.service.spread).id;
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) if (value !== b[index]) return value - b[index]!;
  return 0;
}

function ledgerOf(nodes: readonly Node[], tasks: readonly Task[], made?: Cluster): Ledger {
  const { homes = { x: -1, y: -1 }, others = [], strategy = 'spread', service } = made ?? {};
  const ledger = new Ledger();
  ledger.strategy = strategy;
  for (const name of ['web', 'api']) {
    const affinities = name === service?.name ? service.affinities : others;
    ledger.setService(undefined, aService(name, { placement: { ...defaults.placement, affinities } }));
  }
  for (const [name, at] of Object.entries(homes)) {
    const { id = nodeId('gone'), name: nodeName = 'gone' } = nodes[at] ?? {};
    if (at >= 0) ledger.setVolume(name, { name, nodeId: id, nodeName, createdAtMs: 0 });
  }
  for (const task of tasks) ledger.setTask(task.id, task);
  for (const node of nodes) ledger.setNode(node.id, node);
  return ledger;
}

function placed(made: Cluster, index: number, on: Usage): Task {
  const { name, reservations, ports } = made.service;
  const fields = {
    serviceId: serviceId(idOf(name)),
    nodeId: on.node.id,
    reservations,
    generic: given(made.service.generic, on),
    hostPorts: ports,
    state: 'assigned',
  } as const;
  return aTask(`new${index}x`, fields);
}

/** By name, where its node has names, and no name twice. */
function expectToBeFree({ generic }: Task, { id, capacity }: Node, tasks: readonly Task[]): void {
  const taken = tasks.flatMap((task) => (task.nodeId === id && occupiesNode(task) ? task.generic : []));
  for (const { names, count } of generic) {
    expect(names.length).toBe(capacity.generic[0]!.names.length > 0 ? count : 0);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(taken.some((one) => one.names.includes(name))).toBe(false);
  }
}

describe('the scheduler', () => {
  it('chooses the node that the oracle chooses, task after task, and none where the oracle finds none', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const nodes = nodesOf(made);
        const tasks = tasksOf(made, nodes);
        const ledger = ledgerOf(nodes, tasks, made);
        const places = new Scheduler(ledger).open(requestFor(made, tasks));
        for (let index = 0; index < made.count; index++) {
          const usage = places.pick();
          expect(usage?.node.id).toBe(oracleChoice(made, nodes, tasks));
          if (!usage) return;
          const task = placed(made, index, usage);
          expectToBeFree(task, usage.node, tasks);
          tasks.push(task);
          ledger.setTask(task.id, task);
        }
      }),
      { numRuns: 1_500 },
    );
  });

  it('explains every node by every rule as the oracle does, in words exactly where it refuses', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const nodes = nodesOf(made);
        const tasks = tasksOf(made, nodes);
        const table = explain(ledgerOf(nodes, tasks, made), requestFor(made, tasks));
        expect(table.rules).toEqual(filters.map(({ rule }) => rule));
        expect(table.rows.map(({ nodeId }) => nodeId)).toEqual(nodes.map(({ id }) => id));
        for (const [at, row] of table.rows.entries()) {
          expect(row.verdicts.map((verdict) => verdict === '')).toEqual(oracleVerdicts(made, nodes[at]!, nodes, tasks));
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('spreads a service with a skew of at most one where there is room everywhere', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 60 }),
        (count, zones, replicas) => {
          const nodes = Array.from({ length: count }, (_, at) =>
            aNode(`h${at}`, { labels: { zone: `z${at % zones}` } }),
          );
          const ledger = ledgerOf(nodes, []);
          const spec = aSpec('web', {
            placement: { ...defaults.placement, spread: ['node.labels.zone'] },
          });
          const places = new Scheduler(ledger).open(requestOf(serviceId(idOf('web')), spec, spec.template));
          const perZone = new Map<string, number>();
          const perNode = new Map(nodes.map((node) => [node.id, 0]));
          for (const { labels } of nodes) perZone.set(labels.zone!, 0);
          for (let index = 0; index < replicas; index++) {
            const { node } = places.pick()!;
            ledger.setTask(
              taskId(`t${index}`),
              aTask('t', { id: taskId(`t${index}`), nodeId: node.id, state: 'assigned' }),
            );
            perZone.set(node.labels.zone!, perZone.get(node.labels.zone!)! + 1);
            perNode.set(node.id, perNode.get(node.id)! + 1);
          }
          expect(Math.max(...perZone.values()) - Math.min(...perZone.values())).toBeLessThanOrEqual(1);
          for (const zone of perZone.keys()) {
            const counts = nodes.filter(({ labels }) => labels.zone === zone).map(({ id }) => perNode.get(id)!);
            expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
          }
        },
      ),
    );
  });

  it('keeps a ledger that equals one counted anew, whatever order words come in', () => {
    const step = fc.record({
      task: fc.nat(5),
      node: fc.nat(2),
      state: fc.constantFrom(...taskStates),
      wanted: fc.constantFrom('running' as const, 'ready' as const),
      /** Whose room it gets while it is prepared. */
      after: fc.nat(5),
      gone: fc.boolean(),
      reservations: resources,
      generic: held,
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const nodes = ['h0', 'h1', 'h2'].map((name) => aNode(name));
        const live = ledgerOf(nodes, []);
        const now = new Map<string, Task>();
        for (const { task, node, gone, after, ...fields } of steps) {
          const successorOf = after === task ? '' : aTask(`t${after}x`).id;
          const next = aTask(`t${task}x`, { ...fields, successorOf, nodeId: nodeId(nodes[node]!.id) });
          if (gone) now.delete(next.id);
          else now.set(next.id, next);
          live.setTask(next.id, gone ? undefined : next);
        }
        const anew = ledgerOf(nodes, [...now.values()]);
        expect(live.nodes()).toEqual(anew.nodes());
        expect(live.nodesOf(serviceId(idOf('web')))).toEqual(anew.nodesOf(serviceId(idOf('web'))));
        const [first] = live.nodes();
        const leave = [...now.values()].filter((task, index) => index % 2 === 0 && task.nodeId === first!.node.id);
        for (const task of leave) anew.setTask(task.id, undefined);
        const { cpuMillis, memoryBytes, pids, tasks, active, generic } = anew.nodes()[0]!;
        expect(live.without(first!, leave)).toMatchObject({ cpuMillis, memoryBytes, pids, tasks, active, generic });
      }),
    );
  });
});
