/** Which changes of a spec reach tasks only as new tasks: all others take effect where they are. */
import { hostPortsOf } from '#control-plane/scheduler/filters.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { same } from './same.ts';

/**
 * True where tasks of the one spec are no tasks of the other: another template, other ports of their hosts, or another way of failing over,
 * which a task has for life. What else a spec says (replicas, labels, policies, placement, ingress ports, aliases, callers) is looked at as it stands.
 */
export function needsNewTasks(before: ServiceSpec, after: ServiceSpec): boolean {
  if (before.failover !== after.failover) return true;
  return !same(before.template, after.template) || !same(hostPortsOf(before), hostPortsOf(after));
}
