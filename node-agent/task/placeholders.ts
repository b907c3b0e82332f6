/** What of a task's description is otherwise for each task: the templates that Docker Swarm fills in, `{{.Task.Slot}}` and their kin. */
import { taskName } from '#proto/model/ids.ts';
import type { Task } from '#proto/model/task.ts';

/** The kernel takes no longer name of a host. */
const longest = 63;

/** `web-{{.Task.Slot}}` of the third task of web: `web-3`. Other templates are the program's own business and stay as they are. */
export function filled(text: string, task: Task): string {
  const values: Readonly<Record<string, string>> = {
    'Task.Slot': task.slot > 0 ? String(task.slot) : task.nodeId,
    'Task.ID': task.id,
    'Task.Name': `${taskName(task)}.${task.id}`,
    'Service.Name': task.serviceName,
    'Service.ID': task.serviceId,
    'Node.Hostname': task.nodeName,
    'Node.ID': task.nodeId,
  };
  return text.replace(/\{\{\s*\.([A-Za-z.]+)\s*\}\}/g, (whole, name: string) => values[name] ?? whole);
}

/** What a task's host is called. */
export function filledHostname(hostname: string, task: Task): string {
  return filled(hostname, task).slice(0, longest);
}
