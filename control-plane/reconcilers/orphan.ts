/** Tasks whose node is down or gone: nobody will report on them again, so their seats are free. Those of singletons are when its lease is over. */
import type { Node } from '#proto/model/node.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import type { Opinion } from './seats.ts';

export function orphans(tasks: Iterable<Task>, nodeOf: (task: Task) => Node | undefined): Opinion[] {
  const opinions: Opinion[] = [];
  for (const task of tasks) {
    if (!occupiesNode(task)) continue;
    const node = nodeOf(task);
    if (task.singleton && node) {
      if (node.fenced)
        opinions.push({
          kind: 'orphan',
          task,
          why: `the lease of node ${task.nodeName} is over: no singleton runs on it`,
        });
      continue;
    }
    if (node && node.state !== 'down') continue;
    opinions.push({ kind: 'orphan', task, why: `node ${task.nodeName} is ${node ? 'down' : 'gone'}` });
  }
  return opinions;
}

/** What becomes of its record: it counts as ended now, whatever became of it. */
export function orphaned(task: Task, why: string, now: number): Task {
  const ended = { state: 'orphaned', wanted: 'shutdown', stateAtMs: now, finishedAtMs: now } as const;
  return { ...task, ...ended, why, message: why };
}
