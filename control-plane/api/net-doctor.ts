/** Which probes of which nodes tell whether a path works, and what the books alone say of it. Pure. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Probe } from '#proto/gen/gantry/v1/probe.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Finding } from '#proto/model/net-finding.ts';
import type { Node } from '#proto/model/node.ts';
import type { Port, Service } from '#proto/model/service.ts';
import { isServing, type Task } from '#proto/model/task.ts';
import { toWire } from '#proto/model/wire.ts';
import { nameOfService } from './names.ts';
import { healthFact, isolation, known, namespaceOf, nodeFact, taskFact } from './net-books.ts';
import { nameOfPlace, nameOfTask, type Place, tasksOf, templateOf } from './net-places.ts';

export type Ask = NonNullable<Probe['ask']>;
type Reach = Extract<Ask, { $case: 'reach' }>['value'];

/** One probe on one node. Two that are alike are made once. */
export interface Question {
  readonly node: Node;
  readonly ask: Ask;
}

/** A packet that is really sent, and who can watch it pass. */
export interface Send {
  readonly node: Node;
  readonly reach: Reach;
  readonly watchers: readonly Node[];
}

/** One way from somewhere to somewhere: what is known of it, and what has to be asked. */
export interface Path {
  readonly title: string;
  readonly known: readonly Finding[];
  readonly questions: readonly Question[];
  readonly sends: readonly Send[];
}

export interface Examination {
  readonly paths: readonly Path[];
  /** What is left out. */
  readonly notes: readonly string[];
}

/** Of a service, that many tasks are looked at as callers and as backends; of nodes, that many as ways in. */
const most = { callers: 2, backends: 3, ways: 3, nodes: 64, peers: 16, pairs: 96, ports: 32 } as const;

/** The examination of one path. Faults: `invalid` where it makes no sense. */
export function examinePath(snapshot: Snapshot, from: Place, to: Place): Examination {
  const notes: string[] = [];
  if (from.kind === 'node' && to.kind === 'node') return { paths: [nodePath(from.node, to.node)], notes };
  if (to.kind === 'node' || to.kind === 'outside') {
    throw new Fault('invalid', `a path to ${nameOfPlace(to)} cannot be examined`, {
      remedy: 'name a task, a service, a published port as :8080, or ADDRESS:PORT; nodes with nodes',
    });
  }
  if (from.kind === 'address' || from.kind === 'published') {
    throw new Fault('invalid', `a path cannot begin at ${nameOfPlace(from)}`, {
      remedy: 'name a task, service or node, or `outside`',
    });
  }
  if (from.kind === 'outside' || from.kind === 'node') {
    const paths = entries(snapshot, from.kind === 'node' ? from.node : undefined, to, notes);
    return { paths, notes };
  }
  const callers = from.kind === 'task' ? [from.task] : tasksOf(snapshot, from.service);
  if (callers.length === 0)
    throw new Fault('precondition', `${nameOfPlace(from)} has no task`, { remedy: 'see gantry ps' });
  if (callers.length > most.callers)
    notes.push(`${most.callers} of ${callers.length} tasks of ${nameOfPlace(from)} are looked at as callers`);
  return { paths: callers.slice(0, most.callers).map((task) => taskPath(snapshot, task, to, notes)), notes };
}

/** The examination of one place: a node and its ways to some others; who is published, from outside; else whether its own can call it. */
export function examineOne(snapshot: Snapshot, place: Place): Examination {
  if (place.kind === 'node') {
    const others = readyNodes(snapshot).filter(({ id }) => id !== place.node.id);
    const some = spread(others, most.peers);
    const ways = some.flatMap((other) => [wayQuestion(place.node, other, true), wayQuestion(other, place.node, true)]);
    const questions: Question[] = [{ node: place.node, ask: { $case: 'host', value: {} } }, ...ways];
    const notes =
      some.length < others.length ? [`the ways to ${some.length} of ${others.length} nodes are looked at`] : [];
    const isReady = place.node.state === 'ready';
    return {
      paths: [
        { title: place.node.name, known: [nodeFact(place.node)], questions: isReady ? questions : [], sends: [] },
      ],
      notes,
    };
  }
  const isPublished = place.kind === 'service' && place.service.spec.ports.some((port) => port.published > 0);
  if (isPublished || (place.kind !== 'task' && place.kind !== 'service'))
    return examinePath(snapshot, { kind: 'outside' }, place);
  const service = place.kind === 'task' ? snapshot.service(place.task.serviceId) : place.service;
  return examinePath(snapshot, place, service ? { kind: 'service', service, port: place.port } : place);
}

function taskPath(
  snapshot: Snapshot,
  caller: Task,
  to: Exclude<Place, { kind: 'node' | 'outside' }>,
  notes: string[],
): Path {
  const title = `${nameOfTask(caller)} → ${nameOfPlace(to)}`;
  const facts: Finding[] = [taskFact(snapshot, caller)];
  const questions: Question[] = [];
  const sends: Send[] = [];
  const here = runningNode(snapshot, caller);
  if (here) questions.push({ node: here, ask: { $case: 'host', value: {} } }, taskQuestion(snapshot, here, caller, []));
  if (to.kind === 'address') {
    if (here)
      sends.push(
        send(snapshot, {
          node: here,
          task: caller,
          to: nameOfPlace(to),
          address: to.address,
          port: to.port,
          watchers: [here],
        }),
      );
    return { title, known: facts, questions, sends };
  }
  const service = to.kind === 'task' ? snapshot.service(to.task.serviceId) : to.service;
  const all = to.kind === 'task' ? [to.task] : service ? tasksOf(snapshot, service) : [];
  const backends = all.slice(0, most.backends);
  if (all.length > backends.length)
    notes.push(`${backends.length} of ${all.length} tasks of ${nameOfPlace(to)} are looked at`);
  if (backends.length === 0)
    facts.push(known('task', 'broken', `${nameOfPlace(to)} has no task`, 'see gantry ps and gantry why'));
  if (service) facts.push(isolation(snapshot, caller, service));
  const ports = targetPorts(service, to.kind === 'published' ? to.port.target : to.port);
  const tcp = ports.find(({ protocol }) => protocol === 'tcp')?.target ?? 0;
  for (const backend of backends) {
    facts.push(taskFact(snapshot, backend), ...healthFact(backend));
    const there = runningNode(snapshot, backend);
    if (!there) continue;
    questions.push({ node: there, ask: { $case: 'host', value: {} } }, taskQuestion(snapshot, there, backend, ports));
    if (here && here.id !== there.id) questions.push(wayQuestion(here, there), wayQuestion(there, here));
    if (here)
      sends.push(
        send(snapshot, {
          node: here,
          task: caller,
          to: nameOfTask(backend),
          address: backend.address,
          port: tcp,
          watchers: watching(here, there),
        }),
      );
  }
  if (here && service && to.kind !== 'task') {
    const nodes = backends.flatMap((task) => runningNode(snapshot, task) ?? []);
    questions.push(
      { node: here, ask: { $case: 'service', value: serviceValue(snapshot, service) } },
      nameQuestion(snapshot, here, caller, service),
    );
    // An echo to a VIP is answered by nobody: only ports are balanced that somebody names.
    if (service.vip !== '' && service.spec.endpointMode === 'vip' && tcp !== 0) {
      const vip = `${nameOfService(service)} (${service.vip}:${tcp})`;
      const watchers = watching(here, ...nodes);
      sends.push(send(snapshot, { node: here, task: caller, to: vip, address: service.vip, port: tcp, watchers }));
    }
  }
  return { title, known: facts, questions, sends };
}

/** Paths of clients outside, who come in by each of a few nodes; of `from`, where a node is to be the client. */
function entries(
  snapshot: Snapshot,
  from: Node | undefined,
  to: Exclude<Place, { kind: 'node' | 'outside' }>,
  notes: string[],
): Path[] {
  if (to.kind === 'address') {
    throw new Fault('invalid', `what is not the cluster's is not examined from ${from?.name ?? 'outside'}`, {
      remedy: 'name a task or service as FROM',
    });
  }
  const service = to.kind === 'task' ? snapshot.service(to.task.serviceId) : to.service;
  if (!service) throw new Fault('not-found', `${nameOfPlace(to)} belongs to no service any more`);
  const published = service.spec.ports.filter((port) => port.published > 0);
  const port =
    to.kind === 'published'
      ? to.port
      : published.find(({ target, published: number }) => to.port === 0 || [target, number].includes(to.port));
  if (!port) {
    throw new Fault(
      'precondition',
      `${nameOfService(service)} publishes ${to.port === 0 ? 'no port' : `no port for ${to.port}`}: nobody outside reaches it`,
      {
        remedy: 'publish one with ports: in the Compose file',
      },
    );
  }
  const tasks = tasksOf(snapshot, service);
  const ready = readyNodes(snapshot);
  const named = to.kind === 'published' && to.node ? [to.node] : undefined;
  const holders = ready.filter((node) => tasks.some((task) => task.nodeId === node.id));
  const ways = named ?? (port.mode === 'host' ? holders : ready);
  if (ways.length > most.ways) notes.push(`${most.ways} of ${ways.length} nodes are looked at as ways in`);
  return ways.slice(0, most.ways).map((node, index) => {
    const others = ready.filter((one) => one.id !== node.id);
    return entryPath(snapshot, service, port, node, from ?? others[index % Math.max(1, others.length)] ?? node);
  });
}

/** A client's way in by `node` to `port`; `client` is another node that stands for somebody outside. */
function entryPath(snapshot: Snapshot, service: Service, port: Port, node: Node, client: Node): Path {
  const title = `outside → ${node.name}:${port.published} (${nameOfService(service)})`;
  const tasks = tasksOf(snapshot, service).filter((task) => port.mode !== 'host' || task.nodeId === node.id);
  const backends = tasks.slice(0, most.backends);
  const facts: Finding[] = backends.flatMap((task) => [taskFact(snapshot, task), ...healthFact(task)]);
  if (tasks.length === 0)
    facts.push(known('task', 'broken', `${nameOfService(service)} has no task`, 'see gantry ps and gantry why'));
  const questions: Question[] = [{ node, ask: { $case: 'host', value: {} } }];
  if (port.mode !== 'host') questions.push({ node, ask: { $case: 'service', value: serviceValue(snapshot, service) } });
  const sends: Send[] = [];
  const holders: Node[] = [];
  const isTcp = port.protocol === 'tcp';
  for (const task of backends) {
    const there = runningNode(snapshot, task);
    if (!there) continue;
    holders.push(there);
    questions.push({ node: there, ask: { $case: 'host', value: {} } }, taskQuestion(snapshot, there, task, [port]));
    if (there.id !== node.id) questions.push(wayQuestion(node, there), wayQuestion(there, node));
    sends.push(
      send(snapshot, {
        node,
        to: nameOfTask(task),
        address: task.address,
        port: isTcp ? port.target : 0,
        watchers: watching(node, there),
      }),
    );
  }
  if (isTcp) {
    const to = `${node.name}:${port.published}`;
    const watchers = watching(client, node, ...holders);
    sends.push(send(snapshot, { node: client, to, address: node.address, port: port.published, watchers }));
  }
  return { title, known: facts, questions, sends };
}

function nodePath(from: Node, to: Node): Path {
  const questions: Question[] = [from, to].map((node) => ({ node, ask: { $case: 'host', value: {} } }));
  if (from.id !== to.id) questions.push(wayQuestion(from, to), wayQuestion(to, from));
  return { title: `${from.name} → ${to.name}`, known: [from, to].map(nodeFact), questions, sends: [] };
}

/** Everything: each node, pairs of nodes, published ports; of many, a spread of them, and the notes say so. */
export function examineAll(snapshot: Snapshot): Examination {
  const notes: string[] = [];
  const all = [...snapshot.all('node')].sort((a, b) => (a.name < b.name ? -1 : 1));
  const ready = all.filter((node) => node.state === 'ready');
  const some = spread(ready, most.nodes);
  if (some.length < ready.length) notes.push(`${some.length} of ${ready.length} nodes are looked at, spread over all`);
  const paths: Path[] = all
    .filter((node) => node.state !== 'ready')
    .map((node) => ({ title: node.name, known: [nodeFact(node)], questions: [], sends: [] }));
  for (const node of some)
    paths.push({
      title: node.name,
      known: [nodeFact(node)],
      questions: [{ node, ask: { $case: 'host', value: {} } }],
      sends: [],
    });
  const pairs = pairsOf(some, most.pairs);
  const possible = (ready.length * (ready.length - 1)) / 2;
  if (pairs.length < possible) notes.push(`${pairs.length} of ${possible} pairs of nodes are looked at`);
  for (const [a, b] of pairs) paths.push(pairPath(snapshot, a, b, pairs.length > 16));
  const published = [...snapshot.all('service')]
    .flatMap((service) => service.spec.ports.filter((port) => port.published > 0).map((port) => ({ service, port })))
    .sort((a, b) => a.port.published - b.port.published);
  const ports = spread(published, most.ports);
  if (ports.length < published.length)
    notes.push(`${ports.length} of ${published.length} published ports are looked at`);
  for (const [index, { service, port }] of ports.entries()) {
    const holders = some.filter((node) => tasksOf(snapshot, service).some((task) => task.nodeId === node.id));
    const ways = port.mode === 'host' ? holders : some;
    const node = ways[index % Math.max(1, ways.length)];
    if (node)
      paths.push(entryPath(snapshot, service, port, node, some[(some.indexOf(node) + 1) % some.length] ?? node));
  }
  return { paths, notes };
}

function pairPath(snapshot: Snapshot, a: Node, b: Node, brief: boolean): Path {
  const questions = [wayQuestion(a, b, brief), wayQuestion(b, a, brief)];
  const sends: Send[] = [];
  const from = [...snapshot.tasksOnNode(a.id)].find(hasOwnAddress);
  const to =
    from && [...snapshot.tasksOnNode(b.id)].find((task) => hasOwnAddress(task) && mayCall(snapshot, from, task));
  if (from && to)
    sends.push(
      send(snapshot, {
        node: a,
        task: from,
        to: nameOfTask(to),
        address: to.address,
        port: 0,
        watchers: watching(a, b),
      }),
    );
  return { title: `${a.name} ↔ ${b.name}`, known: [], questions, sends };

  function hasOwnAddress(task: Task): boolean {
    return task.state === 'running' && task.address !== '' && templateOf(snapshot, task)?.networkMode === '';
  }
}

function mayCall(snapshot: Snapshot, from: Task, to: Task): boolean {
  const service = snapshot.service(to.serviceId);
  return service !== undefined && isolation(snapshot, from, service).verdict === 'good';
}

/** Evenly spaced ones of a list. */
function spread<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, index) => items[Math.floor((index * items.length) / count)] as T);
}

/** Each node with its next, then with the one twice as far on, and so on: every node is in the same number of pairs. */
function pairsOf(nodes: readonly Node[], count: number): (readonly [Node, Node])[] {
  const pairs = new Map<string, readonly [Node, Node]>();
  for (let step = 1; step < nodes.length && pairs.size < count; step++) {
    for (const [index, a] of nodes.entries()) {
      const b = nodes[(index + step) % nodes.length] as Node;
      const key = a.id < b.id ? `${a.id} ${b.id}` : `${b.id} ${a.id}`;
      if (a.id !== b.id && pairs.size < count && !pairs.has(key)) pairs.set(key, [a, b]);
    }
  }
  return [...pairs.values()];
}

function readyNodes(snapshot: Snapshot): Node[] {
  return [...snapshot.all('node')].filter((node) => node.state === 'ready').sort((a, b) => (a.name < b.name ? -1 : 1));
}

function runningNode(snapshot: Snapshot, task: Task): Node | undefined {
  const node = task.state === 'running' && task.nodeId !== '' ? snapshot.node(task.nodeId) : undefined;
  return node?.state === 'ready' ? node : undefined;
}

function taskQuestion(snapshot: Snapshot, node: Node, task: Task, ports: readonly Port[]): Question {
  const value = {
    taskId: namespaceOf(snapshot, task),
    name: nameOfTask(task),
    address: task.address,
    ports: toWire(ports),
  };
  return { node, ask: { $case: 'task', value } };
}

export function wayQuestion(node: Node, to: Node, brief = false): Question {
  return { node, ask: { $case: 'way', value: { node: to.name, address: to.address, subnet: to.subnet, brief } } };
}

function serviceValue(snapshot: Snapshot, service: Service) {
  return {
    serviceId: service.id,
    name: nameOfService(service),
    vip: service.vip,
    addresses: serving(snapshot, service),
  };
}

function serving(snapshot: Snapshot, service: Service): string[] {
  const addresses = [...snapshot.tasksOfService(service.id)].filter(isServing).map(({ address }) => address);
  return [...new Set(addresses)].sort();
}

function nameQuestion(snapshot: Snapshot, node: Node, caller: Task, service: Service): Question {
  const { project, name, endpointMode } = service.spec;
  const addresses = endpointMode === 'vip' && service.vip !== '' ? [service.vip] : serving(snapshot, service);
  const full = `${name}.${project}.${snapshot.cluster?.domain ?? 'gantry.internal'}`;
  return {
    node,
    ask: {
      $case: 'name',
      value: { taskId: namespaceOf(snapshot, caller), task: nameOfTask(caller), name: full, addresses },
    },
  };
}

/** The ports something should listen on: the one that was named, else those the service publishes or exposes. */
function targetPorts(service: Service | undefined, named: number): readonly Port[] {
  const port = (target: number): Port => ({ target, published: 0, protocol: 'tcp', mode: 'ingress' });
  if (named !== 0) return [service?.spec.ports.find(({ target }) => target === named) ?? port(named)];
  if (!service) return [];
  return service.spec.ports.length > 0 ? service.spec.ports : service.spec.template.container.expose.map(port);
}

/** From the task, or the node where none is told. */
function send(
  snapshot: Snapshot,
  way: {
    readonly node: Node;
    readonly task?: Task;
    readonly to: string;
    readonly address: string;
    readonly port: number;
    readonly watchers: readonly Node[];
  },
): Send {
  const { node, task, to, address, port, watchers } = way;
  const from = task ? nameOfTask(task) : node.name;
  const taskId = task ? namespaceOf(snapshot, task) : '';
  return { node, reach: { taskId, from, to, address, port, sourcePort: 0 }, watchers };
}

function watching(...nodes: readonly Node[]): Node[] {
  return [...new Map<NodeId, Node>(nodes.map((node) => [node.id, node])).values()];
}
