/** What flows: events, logs, exec and stats. */

import type { RelayChannel } from '#control-plane/dispatch/relay.ts';
import type { LogQuery } from '#control-plane/logs/log-store.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { RelayFrame, TaskStats } from '#proto/gen/gantry/v1/agent.ts';
import type {
  EventsRequest,
  ExecInput,
  LogLine,
  LogsRequest,
  StatsRequest,
  StatsResponse,
} from '#proto/gen/gantry/v1/operator.ts';
import type { Event as WireEvent } from '#proto/gen/gantry/v1/types.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Event } from '#proto/model/cluster.ts';
import { type NodeId, taskName } from '#proto/model/ids.ts';
import type { Task } from '#proto/model/task.ts';
import { toWire } from '#proto/model/wire.ts';
import type { MessageStream } from '#proto/stream.ts';
import { join } from './leader-door.ts';
import { findService, findTask } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Nodes that have not told their figures by then are named as unreachable. */
const statsTimeoutMs = 3_000;

export async function* events(
  { events }: OperatorParts,
  request: EventsRequest,
  signal: AbortSignal,
): AsyncGenerator<WireEvent> {
  for await (const event of events.read({ follow: request.follow, sinceMs: request.sinceMs, signal }))
    yield toWire<Event>(event);
}

export async function* logs(
  { store, logs }: OperatorParts,
  request: LogsRequest,
  signal: AbortSignal,
): AsyncGenerator<LogLine> {
  const { follow, tail, sinceMs } = request;
  for await (const entry of logs.read({ ...whoseLogs(store.snapshot, request.name), follow, tail, sinceMs, signal }))
    yield { ...entry };
}

/** A service or task that is there, or `project/service[.slot]` that was: its lines outlive it. */
function whoseLogs(snapshot: Snapshot, name: string): Pick<LogQuery, 'project' | 'service' | 'slot' | 'taskId'> {
  const [, project, service, slot] = /^([^/.]+)\/([^/.]+)(?:\.(\d+))?$/.exec(name) ?? [];
  if (project && service) return { project, service, ...(slot ? { slot: Number(slot) } : {}) };
  try {
    const [, bare = name, number] = /^(.*)\.(\d+)$/.exec(name) ?? [];
    const { spec } = findService(snapshot, bare);
    return { project: spec.project, service: spec.name, ...(number ? { slot: Number(number) } : {}) };
  } catch (error) {
    if (!isFault(error, 'not-found')) throw error;
    const task = taskOrNone(snapshot, name);
    if (task) return { project: task.project, service: task.serviceName, taskId: task.id };
    throw new Fault('not-found', `there is no service or task "${name}"`, {
      remedy: 'for one that was removed, write project/service',
    });
  }
}

function taskOrNone(snapshot: Snapshot, name: string): Task | undefined {
  try {
    return findTask(snapshot, name);
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}

/** Joins the operator's stream to one that the task's node opens, or to the leader's. */
export function exec({ store, relays, leader }: OperatorParts, stream: MessageStream<ExecInput, RelayFrame>): void {
  const door = leader();
  if (door) {
    join(stream, door.exec());
    return;
  }
  let channel: RelayChannel | undefined;
  let opening = false;
  let ended = false;
  const open = async (input: ExecInput) => {
    if (input.body?.$case !== 'open' || !input.body.value.start)
      throw new Fault('invalid', 'the first message of an exec must open it');
    const { start, task: name } = input.body.value;
    const task = findTask(store.snapshot, name);
    if (task.state !== 'running' || task.nodeId === '')
      throw new Fault('precondition', `${taskName(task)} is ${task.state}: a command can only run in a running task`, {
        remedy: 'see gantry ps',
      });
    const opened = await relays.open(task.nodeId, { $case: 'exec', value: { ...start, taskId: task.id } });
    if (ended) return opened.close();
    channel = opened;
    stream.resume();
    for await (const frame of opened.frames) if (!stream.send(frame)) await drained();
    stream.close();
  };
  let wake: (() => void) | undefined;
  const drained = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  stream.listen({
    message(input) {
      if (channel) {
        if (input.body?.$case !== 'frame') return;
        stream.pause();
        void channel.write(input.body.value).then(() => stream.resume());
      } else if (!opening) {
        opening = true;
        stream.pause();
        open(input).catch((error) =>
          stream.close(error instanceof Fault ? error : new Fault('internal', String(error))),
        );
      }
    },
    drain: () => wake?.(),
    closed() {
      ended = true;
      channel?.close();
      wake?.();
    },
  });
}

/** The figures of running tasks, from all their nodes at once. */
export async function stats(parts: OperatorParts, request: StatsRequest): Promise<StatsResponse> {
  const door = parts.leader();
  if (door) return door.stats(request);
  const { snapshot } = parts.store;
  const wanted =
    request.service === '' ? snapshot.all('task') : snapshot.tasksOfService(findService(snapshot, request.service).id);
  const byNode = new Map<NodeId, Task[]>();
  for (const task of wanted)
    if (task.state === 'running' && task.nodeId !== '')
      byNode.set(task.nodeId, [...(byNode.get(task.nodeId) ?? []), task]);
  const unreachableNodes: string[] = [];
  const figures = await Promise.all(
    [...byNode].map(async ([node, tasks]) => {
      try {
        return await statsOf(parts, node, tasks);
      } catch (error) {
        if (!isFault(error)) throw error;
        unreachableNodes.push(tasks[0]!.nodeName);
        return [];
      }
    }),
  );
  return { tasks: figures.flat(), unreachableNodes: unreachableNodes.sort() };
}

async function statsOf({ relays, clock }: OperatorParts, node: NodeId, tasks: readonly Task[]): Promise<TaskStats[]> {
  const channel = await relays.open(node, { $case: 'stats', value: { taskIds: tasks.map(({ id }) => id) } });
  const timer = clock.after(statsTimeoutMs, () => channel.close());
  const figures = new Map<string, TaskStats>();
  try {
    for await (const { body } of channel.frames) {
      if (body?.$case === 'error') throw new Fault('unavailable', body.value);
      if (body?.$case === 'stats') figures.set(body.value.taskId, body.value);
      if (figures.size >= tasks.length) break;
    }
  } finally {
    timer.cancel();
    channel.close();
  }
  return [...figures.values()];
}
