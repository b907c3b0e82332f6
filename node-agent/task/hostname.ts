/** What a task's host is called: the templates of Docker's `hostname` filled in. */
import { taskName } from '#proto/model/ids.ts';
import type { Task } from '#proto/model/task.ts';

/** The kernel takes no more. */
const longest = 63;

/** `web-{{.Task.Slot}}` of the third task of web: `web-3`. What the resolver does not let through stays as it is. */
export function filledHostname(hostname: string, task: Task): string {
  const values: Readonly<Record<string, string>> = {
    'Task.Slot': task.slot > 0 ? String(task.slot) : task.nodeId,
    'Task.ID': task.id,
    'Task.Name': `${taskName(task)}.${task.id}`,
    'Service.Name': task.serviceName,
    'Service.ID': task.serviceId,
    'Node.Hostname': task.nodeName,
    'Node.ID': task.nodeId,
  };
  const filled = hostname.replace(/\{\{\s*\.([A-Za-z.]+)\s*\}\}/g, (whole, name: string) => values[name] ?? whole);
  return filled.slice(0, longest);
}
