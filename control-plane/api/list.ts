/** Lists and single objects, as the snapshot of this moment has them. */
import { besideForerunner } from '#control-plane/scheduler/beside.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  InspectRequest,
  InspectResponse,
  ListRequest,
  ListResponse,
  NodeSummary,
  ServiceSummary,
  TokenInfo,
} from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import type { Token } from '#proto/model/cluster.ts';
import { isJob, latestIteration } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import { add, noResources } from '#proto/model/resources.ts';
import type { Service } from '#proto/model/service.ts';
import { isAbsent, isActive, isTerminal, isWanted, occupiesNode, type Task } from '#proto/model/task.ts';
import { toWire } from '#proto/model/wire.ts';
import { isReady, wantedTasks } from './assess.ts';
import { iterationProgress } from './assess-job.ts';
import { documentSummaries, findDocument } from './documents.ts';
import { jobsOf } from './jobs.ts';
import { findAny, findNode, findService } from './names.ts';
import { findNetwork, networkSummaries, networkSummary } from './networks.ts';
import type { OperatorParts } from './parts.ts';
import { trashSummaries } from './trash.ts';
import { findVolume, volumeSummaries } from './volumes.ts';

export function list({ store, clock }: OperatorParts, request: ListRequest): ListResponse {
  const { snapshot } = store;
  const response: ListResponse = {
    services: [],
    tasks: [],
    nodes: [],
    tokens: [],
    networks: [],
    documents: [],
    trash: [],
    jobs: [],
    volumes: [],
    revision: snapshot.revision,
  };
  switch (request.kind) {
    case 'service':
      return { ...response, services: servicesOf(snapshot, request) };
    case 'task':
      return { ...response, tasks: tasksOf(snapshot, request).map((task) => toWire<Task>(task)) };
    case 'node':
      return { ...response, nodes: [...snapshot.all('node')].sort(byName).map((node) => nodeSummary(snapshot, node)) };
    case 'network':
      return { ...response, networks: networkSummaries(snapshot, request.project) };
    case 'config':
    case 'secret':
      return { ...response, documents: documentSummaries(snapshot, request.kind, request.project) };
    case 'volume':
      return { ...response, volumes: volumeSummaries(snapshot, request.project) };
    case 'trash':
      return { ...response, trash: trashSummaries(snapshot) };
    case 'job':
      return { ...response, jobs: jobsOf(snapshot, request, clock.now()) };
    case 'token':
      return {
        ...response,
        tokens: [...snapshot.all('token')]
          .filter((token) => request.all || token.expiresAtMs > clock.now())
          .map(tokenInfo),
      };
    default:
      throw new Fault('invalid', `there is no list of "${request.kind}"`, {
        remedy: 'ask for service, task, node, token, network, config, secret, volume, trash or job',
      });
  }
}

/** Faults: `not-found`, `invalid` (ambiguous). */
export function inspect({ store }: OperatorParts, request: InspectRequest): InspectResponse {
  const { snapshot } = store;
  if (request.kind === 'network' || (request.kind === '' && snapshot.get('network', request.name)))
    return {
      object: { $case: 'network', value: networkSummary(snapshot, findNetwork(snapshot, request.name)) },
      ...nothingMore,
    };
  if (request.kind === 'config' || request.kind === 'secret')
    return {
      object: { $case: 'document', value: findDocument(snapshot, request.kind, request.name) },
      ...nothingMore,
    };
  if (request.kind === 'volume')
    return { object: { $case: 'volume', value: findVolume(snapshot, request.name) }, ...nothingMore };
  const found = findAny(snapshot, request.name);
  if ('service' in found)
    return { object: { $case: 'service', value: toWire<Service>(found.service) }, ...nothingMore };
  if ('node' in found) return { object: { $case: 'node', value: toWire<Node>(found.node) }, ...nothingMore };
  const { task } = found;
  const template = snapshot.revisionOf(task.serviceId, task.revision)?.template;
  return { object: { $case: 'task', value: toWire<Task>(task) }, template: template && toWire(template), checks: [] };
}

const nothingMore = { template: undefined, checks: [] };

export function tokenInfo(token: Token): TokenInfo {
  return { id: token.id, createdAtMs: token.createdAtMs, expiresAtMs: token.expiresAtMs, usesLeft: token.usesLeft };
}

function servicesOf(snapshot: Snapshot, request: ListRequest): ServiceSummary[] {
  return [...snapshot.all('service')]
    .filter(({ spec }) => request.project === '' || spec.project === request.project)
    .sort((a, b) => compare(a.spec.project, b.spec.project) || compare(a.spec.name, b.spec.name))
    .map((service) => {
      const tasks = [...snapshot.tasksOfService(service.id)];
      const wanted = () => wantedTasks(snapshot, service);
      if (isJob(service.spec)) {
        const progress = iterationProgress(service, tasks, wanted);
        const { completed = 0, wanted: all = 0 } = progress ?? {};
        return { service: toWire<Service>(service), running: completed, wanted: service.removing ? 0 : all };
      }
      return {
        service: toWire<Service>(service),
        running: tasks.filter(isReady).length,
        wanted: service.removing ? 0 : wanted(),
      };
    });
}

/** Without `all`: the wanted tasks, and of a seat that has none its last one where that ended by itself. */
function tasksOf(snapshot: Snapshot, request: ListRequest): Task[] {
  const node = request.node === '' ? undefined : findNode(snapshot, request.node).id;
  const tasks =
    request.service === ''
      ? [...snapshot.all('task')]
      : [...snapshot.tasksOfService(findService(snapshot, request.service).id)];
  return (request.all ? tasks : wantedOf(snapshot, tasks))
    .filter(
      (task) =>
        (node === undefined || task.nodeId === node) && (request.project === '' || task.project === request.project),
    )
    .sort(
      (a, b) =>
        compare(a.project, b.project) ||
        compare(a.serviceName, b.serviceName) ||
        a.slot - b.slot ||
        compare(a.nodeName, b.nodeName) ||
        b.createdAtMs - a.createdAtMs,
    );
}

/** `tasks`: all of the services they belong to. */
function wantedOf(snapshot: Snapshot, tasks: readonly Task[]): Task[] {
  const held = new Set(tasks.filter(isActive).map(seatOf));
  const last = new Map<string, Task>();
  for (const task of tasks) {
    const seat = seatOf(task);
    const newest = last.get(seat);
    if (!held.has(seat) && (!newest || newest.createdAtMs < task.createdAtMs)) last.set(seat, task);
  }
  const isLastWord = (task: Task) => {
    const service = snapshot.service(task.serviceId);
    if (service === undefined || service.removing) return false;
    const isSeat = isJob(service.spec)
      ? task.iteration === latestIteration(service)?.number
      : task.slot <= replicasOf(service);
    // Steps before a service are of interest as long as they keep it back.
    if (service.spec.preStartOf !== '' && task.state === 'complete') return false;
    return isSeat && isTerminal(task.state) && task.wanted === 'running' && last.get(seatOf(task)) === task;
  };
  const isShown = (task: Task) => isWanted(task) && !(isAbsent(task) && held.has(seatOf(task)));
  return tasks.filter((task) => isShown(task) || isLastWord(task));
}

function seatOf({ serviceId, slot, nodeName, iteration }: Task): string {
  return `${serviceId}/${iteration}/${slot > 0 ? slot : nodeName}`;
}

function nodeSummary(snapshot: Snapshot, node: Node): NodeSummary {
  let reserved = noResources;
  let tasks = 0;
  for (const task of snapshot.tasksOnNode(node.id)) {
    if (!occupiesNode(task)) continue;
    tasks++;
    const held = besideForerunner(task, (id) => snapshot.task(id));
    reserved = add(reserved, { ...held.reservations, generic: held.generic });
  }
  return { node: toWire<Node>(node), tasks, reserved: toWire(reserved), leader: false };
}

function byName(a: Node, b: Node): number {
  return compare(a.name, b.name);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
