/** From what people type to what is meant: `hello`, `shop/hello`, `hello.3`, the start of an id. Ambiguity is refused with the candidates. */
import { suggestion } from '#control-plane/compose/diagnostic.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { isActive, isTerminal, type Task } from '#proto/model/task.ts';

/** Shorter starts of ids would match by accident. */
const leastIdLength = 4;

export function nameOfService(service: Service): string {
  return qualifiedName(service.spec.project, service.spec.name);
}

/** Faults: `not-found`, `invalid` (ambiguous). */
export function findService(snapshot: Snapshot, text: string): Service {
  const services = [...snapshot.all('service')];
  const named = services.filter((service) => nameOfService(service) === text || service.spec.name === text);
  const exact = named.find((service) => nameOfService(service) === text);
  if (exact) return exact;
  const found = named.length > 0 ? named : services.filter((service) => startsId(service.id, text));
  return only(found, text, 'service', nameOfService, () =>
    services.flatMap((service) => [service.spec.name, nameOfService(service)]),
  );
}

/** Faults: `not-found`, `invalid` (ambiguous). */
export function findNode(snapshot: Snapshot, text: string): Node {
  const nodes = [...snapshot.all('node')];
  const named = nodes.filter((node) => node.name === text);
  const found = named.length > 0 ? named : nodes.filter((node) => startsId(node.id, text));
  return only(
    found,
    text,
    'node',
    (node) => `${node.name} (${node.id})`,
    () => nodes.map((node) => node.name),
  );
}

/** A task by `[project/]service.slot`, `service.node` of a global service, or the start of its id; of a slot, the one that holds it. */
export function findTask(snapshot: Snapshot, text: string): Task {
  const dot = text.lastIndexOf('.');
  if (dot > 0) {
    const service = findService(snapshot, text.slice(0, dot));
    const seat = text.slice(dot + 1);
    const tasks = [...snapshot.tasksOfService(service.id)].filter(
      (task) => (task.slot > 0 ? String(task.slot) : task.nodeName) === seat,
    );
    const task = currentOf(tasks);
    if (task) return task;
    throw new Fault('not-found', `service ${nameOfService(service)} has no task ${seat}`, {
      remedy: `see gantry ps -a ${service.spec.name}`,
    });
  }
  const tasks = [...snapshot.all('task')].filter((task) => startsId(task.id, text));
  if (tasks.length > 0)
    return only(
      tasks,
      text,
      'task',
      (task) => `${taskName(task)} (${task.id})`,
      () => [],
    );
  const service = findService(snapshot, text);
  const own = [...snapshot.tasksOfService(service.id)].filter((task) => isActive(task));
  if (own.length === 1) return own[0]!;
  throw new Fault('invalid', `${nameOfService(service)} is a service of ${own.length} tasks`, {
    remedy: `name one of them, such as ${service.spec.name}.1`,
  });
}

/** Of tasks that shared a seat: the one that holds it, else the one that held it last. */
export function currentOf(tasks: readonly Task[]): Task | undefined {
  const rank = (task: Task) =>
    task.state === 'running' && isActive(task) ? 3 : isActive(task) ? 2 : isTerminal(task.state) ? 0 : 1;
  return tasks.reduce<Task | undefined>((best, task) => {
    if (!best) return task;
    const difference = rank(task) - rank(best) || task.createdAtMs - best.createdAtMs;
    return difference > 0 ? task : best;
  }, undefined);
}

/** Whatever bears the name. Faults: `not-found`, `invalid` (ambiguous). */
export function findAny(snapshot: Snapshot, text: string): { service: Service } | { task: Task } | { node: Node } {
  const tries = [
    () => ({ service: findService(snapshot, text) }),
    () => ({ node: findNode(snapshot, text) }),
    () => ({ task: findTask(snapshot, text) }),
  ];
  for (const attempt of tries) {
    try {
      return attempt();
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }
  throw new Fault('not-found', `there is no service, task or node "${text}"`, {
    remedy: 'see gantry services, gantry ps and gantry nodes',
  });
}

function startsId(id: string, text: string): boolean {
  return text.length >= leastIdLength && id.startsWith(text);
}

function only<T>(
  found: readonly T[],
  text: string,
  kind: string,
  describe: (one: T) => string,
  candidates: () => Iterable<string>,
): T {
  if (found.length === 1) return found[0]!;
  if (found.length > 1)
    throw new Fault('invalid', `"${text}" may mean ${found.map(describe).sort().join(' or ')}`, {
      remedy: `write the whole name of the ${kind}`,
    });
  const guess = suggestion(text, candidates());
  throw new Fault('not-found', `there is no ${kind} "${text}"`, {
    remedy: guess ? `did you mean ${guess}?` : `see gantry ${kind === 'task' ? 'ps' : `${kind}s`}`,
  });
}
