/** The scheduler against an oracle that counts everything anew for every task: equal feasibility, equal choice, equal table. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyMount } from '#control-plane/compose/mounts.ts';
import { stayingOf } from '#control-plane/reconcilers/seats.ts';
import { explain } from '#control-plane/scheduler/explain.ts';
import { filters, type Request, requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { containerSpec, type Port } from '#proto/model/service.ts';
import { isActive, occupiesNode, type Task, taskStates, wantedStates } from '#proto/model/task.ts';
import { aNode, aSpec, aTask, aTemplate, idOf } from '#test/support/builders.ts';

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
  }),
  subnet: fc.constantFrom('10.192.1.0/24', '10.192.1.0/28', ''),
});
const resources = fc.record({ cpuMillis: fc.nat(3), memoryBytes: fc.nat(3), pids: fc.nat(2) });
const hostPort: Port = { target: 80, published: 8080, protocol: 'tcp', mode: 'host' };
const service = fc.record({
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
  volumes: fc.subarray(['x', 'y']),
  recreate: fc.boolean(),
});
const history = fc.record({
  service: fc.constantFrom('web', 'api'),
  node: fc.nat(7),
  revision: fc.constantFrom(1, 2),
  state: fc.constantFrom(...taskStates),
  wanted: fc.constantFrom(...wantedStates),
  reservations: resources,
  hostPorts: fc.constantFrom<Port[]>([], [], [hostPort]),
});
const cluster = fc.record({
  nodes: fc.array(node, { minLength: 1, maxLength: 8 }),
  service,
  tasks: fc.array(history, { maxLength: 12 }),
  /** Where x and y are: nowhere, on a node, or on one that is gone. */
  homes: fc.record({ x: fc.constantFrom(-1, -1, 0, 1, 9), y: fc.constantFrom(-1, -1, 0, 1, 9) }),
  rolling: fc.boolean(),
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
    return aTask(`old${index}`, { ...fields, serviceId: serviceId(idOf(service)), nodeId: on.id, nodeName: on.name });
  });
}

function requestFor({ service, rolling }: Cluster, tasks: readonly Task[]): Request {
  const { name, reservations, ports, runtime, volumes, recreate, ...placement } = service;
  const mounts = volumes.map((source) => emptyMount('volume', source, `/${source}`));
  const template = aTemplate({ reservations, runtime, container: containerSpec('web:1', { mounts }) });
  const spec = aSpec(name, { ports, placement, template, volumeLoss: recreate ? 'recreate' : 'wait' });
  const own = tasks.filter((task) => task.serviceId === idOf(name));
  return requestOf(serviceId(idOf(name)), spec, template, { staying: rolling ? stayingOf(own, 1) : undefined });
}

const sum = (tasks: readonly Task[], of: (task: Task) => number) => tasks.reduce((total, task) => total + of(task), 0);

/** The verdict of each rule in the order of the columns, by the words of the issue and without the ledger. */
function oracleVerdicts(
  { service, homes }: Cluster,
  node: Node,
  nodes: readonly Node[],
  tasks: readonly Task[],
): boolean[] {
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
    service.ports.length === 0 || !on.some((task) => task.hostPorts.length > 0),
    service.maxReplicasPerNode === 0 ||
      on.filter((task) => task.serviceId === idOf(service.name)).length < service.maxReplicasPerNode,
    on.length < addresses,
  ];
}

/** The node that comes first: at each level the value with the fewest seats that stay, then fewest seats, then the node by the same, least reserved, fewest tasks, name. */
function oracleChoice(made: Cluster, nodes: readonly Node[], tasks: readonly Task[]): string | undefined {
  const active = tasks.filter((task) => isActive(task) && task.serviceId === idOf(made.service.name));
  const seats = (on: readonly Node[]) => active.filter((task) => on.some(({ id }) => id === task.nodeId)).length;
  const staying = (on: readonly Node[]) =>
    active.filter((task) => (!made.rolling || task.revision === 1) && on.some(({ id }) => id === task.nodeId)).length;
  const key = (node: Node): number[] => {
    const on = tasks.filter((task) => task.nodeId === node.id && occupiesNode(task));
    const { cpuMillis, memoryBytes } = node.capacity;
    const cpu = cpuMillis > 0 ? sum(on, (task) => task.reservations.cpuMillis) / cpuMillis : 0;
    const memory = memoryBytes > 0 ? sum(on, (task) => task.reservations.memoryBytes) / memoryBytes : 0;
    return [staying([node]), seats([node]), Math.max(cpu, memory), on.length, nodes.indexOf(node)];
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
    return groups.sort((a, b) => a.staying - b.staying || a.seats - b.seats || compare(key(a.first), key(b.first)))[0]!
      .first;
  };
  const fitting = nodes.filter((node) => oracleVerdicts(made, node, nodes, tasks).every(Boolean));
  return fitting.length === 0 ? undefined : best(fitting, nodes, made.service.spread).id;
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) if (value !== b[index]) return value - b[index]!;
  return 0;
}

function ledgerOf(nodes: readonly Node[], tasks: readonly Task[], homes: Partial<Cluster['homes']> = {}): Ledger {
  const ledger = new Ledger();
  for (const [name, at] of Object.entries(homes)) {
    const { id = nodeId('gone'), name: nodeName = 'gone' } = nodes[at] ?? {};
    if (at >= 0) ledger.setVolume(name, { name, nodeId: id, nodeName, createdAtMs: 0 });
  }
  for (const task of tasks) ledger.setTask(task.id, task);
  for (const node of nodes) ledger.setNode(node.id, node);
  return ledger;
}

function placed(made: Cluster, index: number, on: Node): Task {
  const { name, reservations, ports } = made.service;
  const fields = {
    serviceId: serviceId(idOf(name)),
    nodeId: on.id,
    reservations,
    hostPorts: ports,
    state: 'assigned',
  } as const;
  return aTask(`new${index}`, fields);
}

describe('the scheduler', () => {
  it('chooses the node that the oracle chooses, task after task, and none where the oracle finds none', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const nodes = nodesOf(made);
        const tasks = tasksOf(made, nodes);
        const ledger = ledgerOf(nodes, tasks, made.homes);
        const places = new Scheduler(ledger).open(requestFor(made, tasks));
        for (let index = 0; index < made.count; index++) {
          const usage = places.pick();
          expect(usage?.node.id).toBe(oracleChoice(made, nodes, tasks));
          if (!usage) return;
          const task = placed(made, index, usage.node);
          tasks.push(task);
          ledger.setTask(task.id, task);
        }
      }),
      { numRuns: 600 },
    );
  });

  it('explains every node by every rule as the oracle does, in words exactly where it refuses', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const nodes = nodesOf(made);
        const tasks = tasksOf(made, nodes);
        const table = explain(ledgerOf(nodes, tasks, made.homes), requestFor(made, tasks));
        expect(table.rules).toEqual(filters.map(({ rule }) => rule));
        expect(table.rows.map(({ nodeId }) => nodeId)).toEqual(nodes.map(({ id }) => id));
        for (const [at, row] of table.rows.entries()) {
          expect(row.verdicts.map((verdict) => verdict === '')).toEqual(oracleVerdicts(made, nodes[at]!, nodes, tasks));
        }
      }),
      { numRuns: 400 },
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
            placement: { constraints: [], spread: ['node.labels.zone'], maxReplicasPerNode: 0, platforms: [] },
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
      gone: fc.boolean(),
      reservations: resources,
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const nodes = ['h0', 'h1', 'h2'].map((name) => aNode(name));
        const live = ledgerOf(nodes, []);
        const now = new Map<string, Task>();
        for (const { task, node, gone, ...fields } of steps) {
          const next = aTask(`t${task}`, { ...fields, nodeId: nodeId(nodes[node]!.id) });
          if (gone) now.delete(next.id);
          else now.set(next.id, next);
          live.setTask(next.id, gone ? undefined : next);
        }
        const anew = ledgerOf(nodes, [...now.values()]);
        expect(live.nodes()).toEqual(anew.nodes());
        expect(live.nodesOf(serviceId(idOf('web')))).toEqual(anew.nodesOf(serviceId(idOf('web'))));
      }),
    );
  });
});
