/** `gantry drain`: until the node is empty, and then who has no place elsewhere because its data is here. */
import { ListRequest, UpdateNodeRequest } from '#proto/gen/gantry/v1/operator.ts';
import type { Node, Task } from '#proto/gen/gantry/v1/types.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { taskName } from '#proto/model/ids.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

const lookEveryMs = 250;
/** A seat whose task has just ended has its next one, which waits, some looks later at most. */
const mostLooks = 20;

export function drain(options: CommonOptions & { readonly detach?: true }, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const before = await boundTo(session, name);
    const node = await session.call(methods.updateNode, UpdateNodeRequest.create({ name, availability: 'drain' }));
    if (!session.json) session.print(`draining ${node.name}`);
    const staying = options.detach ? [] : await untilEmpty(session, node);
    const bound = options.detach ? before : await pendingOf(session, node, before);
    if (session.json)
      session.printJson({ ...node, pending: bound.map(inWords), staying: staying.map(({ task }) => task) });
    else tell(session, node, bound, staying);
    return staying.length > 0 ? exitCodes.failed : exitCodes.ok;
  });
}

/** A task, here or nowhere, whose service mounts volumes that the node has. */
interface Bound {
  readonly task: string;
  readonly volumes: readonly string[];
  /** It has no node. */
  readonly waits: boolean;
}

/** Waits as long as something may still leave; returns tasks that do not stop before their successors run, which can run nowhere else. */
async function untilEmpty(session: Session, node: Node): Promise<readonly Bound[]> {
  for (let last = -1; ; ) {
    const { nodes } = await session.call(methods.list, ListRequest.create({ kind: 'node' }));
    const left = nodes.find((summary) => summary.node?.id === node.id)?.tasks ?? 0;
    if (left !== last && !session.json)
      session.print(left === 0 ? `${node.name} is empty` : `${left} ${left === 1 ? 'task' : 'tasks'} left`);
    last = left;
    if (left === 0) return [];
    const bound = await boundTo(session, node.id);
    const waiting = new Set(bound.flatMap(({ task, waits }) => (waits ? [task] : [])));
    const staying = bound.filter(({ task, waits }) => !waits && waiting.has(task));
    if (staying.length === left) return staying;
    await systemClock.sleep(lookEveryMs);
  }
}

/** `node`: its name or id. Global services have a volume on each node, and are bound to none. */
async function boundTo(session: Session, node: string): Promise<Bound[]> {
  const { volumes } = await session.call(methods.list, ListRequest.create({ kind: 'volume' }));
  const here = volumes.filter(({ volume }) => volume?.nodeId === node || volume?.nodeName === node);
  if (here.length === 0) return [];
  const { tasks } = await session.call(methods.list, ListRequest.create({ kind: 'task' }));
  const mountedBy = ({ project, serviceName }: Task) =>
    here.flatMap(({ services, volume }) => (services.includes(`${project}/${serviceName}`) ? [volume!.name] : []));
  return tasks
    .filter(({ slot, nodeId }) => slot > 0 && (nodeId === '' || nodeId === here[0]!.volume!.nodeId))
    .map((task) => ({
      task: `${task.project}/${taskName(task)}`,
      volumes: mountedBy(task),
      waits: task.nodeId === '',
    }))
    .filter(({ volumes }) => volumes.length > 0);
}

/** Once the tasks of before have their successors, which wait. */
async function pendingOf(session: Session, node: Node, before: readonly Bound[]): Promise<readonly Bound[]> {
  for (let look = 0; ; look++) {
    const pending = (await boundTo(session, node.id)).filter(({ waits }) => waits);
    const known = new Set(pending.map(({ task }) => task));
    if (before.every(({ task }) => known.has(task)) || look === mostLooks) return pending;
    await systemClock.sleep(lookEveryMs);
  }
}

function inWords({ task, volumes }: Bound): { readonly task: string; readonly volumes: readonly string[] } {
  return { task, volumes };
}

function tell({ print, colours }: Session, { name }: Node, bound: readonly Bound[], staying: readonly Bound[]): void {
  const stays = new Set(staying.map(({ task }) => task));
  const here = ({ volumes }: Bound) =>
    `its ${volumes.length === 1 ? `volume ${volumes[0]} is` : `volumes ${volumes.join(', ')} are`} on ${name}`;
  for (const one of bound.filter(({ task }) => !stays.has(task)))
    print(colours.yellow(`${one.task} stays pending: ${here(one)}`));
  for (const one of staying)
    print(colours.yellow(`${one.task} runs on here: its successor is to start first, and can nowhere: ${here(one)}`));
  if (staying.length > 0)
    print('→ say order: stop-first in update_config of its service, or scale that to 0, and it stops');
  if (bound.length > staying.length)
    print(`→ what is pending runs again when ${name} takes tasks: gantry activate ${name}`);
}
