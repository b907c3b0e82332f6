/** What users of a service notice of a change that is planned, in words. Pure. */
import type { PlannedTask } from '#proto/gen/gantry/v1/operator.ts';
import type { ServiceSpec } from '#proto/model/service.ts';

/** Empty: nothing. `after`: what the service is to be; undefined: it goes. */
export function disruptionOf(after: ServiceSpec | undefined, tasks: readonly PlannedTask[]): string {
  const stops = tasks.filter(({ action }) => action === 'stop');
  if (stops.length === 0) return '';
  if (!after) return `it is gone: ${counted(stops.length)} ${stops.length === 1 ? 'stops' : 'stop'}`;
  const placed = tasks.filter(({ action, node }) => action === 'start' && node !== '');
  const held = new Set(placed.map((task) => seatOf(task)));
  const replaced = stops.filter((task) => held.has(seatOf(task))).length;
  if (replaced === 0) return '';
  const { order, parallelism } = after.update;
  if (order === 'start-first') return '';
  const atOnce = parallelism === 0 ? replaced : Math.min(parallelism, replaced);
  const all = Math.max(replaced, after.mode === 'replicated' ? after.replicas : replaced);
  if (atOnce >= all) return `it is away while ${counted(all)} ${all === 1 ? 'is' : 'are'} replaced (stop-first)`;
  return `${atOnce} of ${all} tasks at a time ${atOnce === 1 ? 'is' : 'are'} away (stop-first)`;
}

/** One per node have no slots: their node is their seat. */
function seatOf({ slot, node }: PlannedTask): string {
  return slot > 0 ? String(slot) : node;
}

function counted(count: number): string {
  return count === 1 ? 'its one task' : `its ${count} tasks`;
}
