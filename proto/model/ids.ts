/** Names of things: branded, so that one kind cannot be handed over as another. */
declare const brand: unique symbol;
type Branded<Kind extends string> = string & { readonly [brand]: Kind };

export type ServiceId = Branded<'service'>;
export type TaskId = Branded<'task'>;
export type NodeId = Branded<'node'>;

/** The forms a name may take: what fits a DNS label, so that every name can be looked up. */
export const namePattern = /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/;
const idPattern = /^[a-z0-9]{25}$/;

/** True for 25 characters of base 36, the form of every id. */
export function isId(text: string): boolean {
  return idPattern.test(text);
}

export function serviceId(text: string): ServiceId {
  return text as ServiceId;
}
export function taskId(text: string): TaskId {
  return text as TaskId;
}
export function nodeId(text: string): NodeId {
  return text as NodeId;
}

/** `project/name`: how a service is called across projects. */
export function qualifiedName(project: string, name: string): string {
  return `${project}/${name}`;
}

/** What people call a task: `web.3`, or `web.h2` where there is one per node. */
export function taskName(task: {
  readonly serviceName: string;
  readonly slot: number;
  readonly nodeName: string;
}): string {
  return `${task.serviceName}.${task.slot > 0 ? task.slot : task.nodeName || 'unassigned'}`;
}
