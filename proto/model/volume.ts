/** Where the data of a named volume is: a local volume lives on one node, and what mounts it runs there. */
import type { NodeId } from './ids.ts';
import { isPerNode } from './job.ts';
import type { ServiceSpec, TaskTemplate } from './service.ts';

export interface Volume {
  /** As the nodes call it: `project_name`, or what the file says. */
  readonly name: string;
  readonly nodeId: NodeId;
  readonly nodeName: string;
  readonly createdAtMs: number;
}

/**
 * The named volumes that bind a service's tasks to a node, each once. None of a global service's or job's: it has one of its own on
 * every node. Anonymous ones belong to their task.
 */
export function pinnedVolumes(mode: ServiceSpec['mode'], template: TaskTemplate): readonly string[] {
  return isPerNode({ mode }) ? [] : namedVolumes(template);
}

/** Each once. */
export function namedVolumes(template: TaskTemplate): readonly string[] {
  const names = template.container.mounts.flatMap(({ type, source }) =>
    type === 'volume' && source !== '' ? [source] : [],
  );
  return [...new Set(names)];
}
