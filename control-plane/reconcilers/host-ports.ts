/** Start-first needs a second place for a seat. Where its host ports leave none, the old task goes first: else both would wait for each other. */
import type { Request } from '#control-plane/scheduler/filters.ts';
import type { Scheduler } from '#control-plane/scheduler/place.ts';
import type { Service, UpdatePolicy } from '#proto/model/service.ts';
import { waitsForSeat } from '#proto/model/task.ts';
import { policyOf } from './rollout.ts';
import { activeOf, isStopping, type Seat } from './seats.ts';

/** In which order a seat is handed over, and why not in that of the policy. */
export interface SeatOrder {
  readonly order: UpdatePolicy['order'];
  readonly because: string;
}

/** The order for each seat, asked in the order in which seats are decided: those that begin take the places that are left. */
export function seatOrders(
  service: Service,
  request: Request | undefined,
  scheduler: Scheduler,
): (seat: Seat, mayMove: boolean) => SeatOrder {
  const { order } = policyOf(service);
  const free = (asked: Request) => scheduler.candidates(asked).length;
  const asPolicy: SeatOrder = { order, because: '' };
  if (order === 'stop-first' || !request || request.hostPorts.length === 0) return () => asPolicy;
  const ports = request.hostPorts.map(({ published, protocol }) => `${published}/${protocol}`).join(', ');
  const stopFirst: SeatOrder = {
    order: 'stop-first',
    because: `stop-first, as host port ${ports} is free nowhere else`,
  };
  let left: number | undefined;
  return (seat, mayMove) => {
    const active = activeOf(seat);
    if (active.length === 0) return seat.tasks.some(isStopping) ? stopFirst : asPolicy;
    const next = active.find((task) => task.revision === service.revision);
    if (next && waitsForSeat(next)) return stopFirst;
    const begins = next ? next.nodeId === '' && active.length > 1 : mayMove;
    if (!begins) return asPolicy;
    if (seat.nodeId !== '') return free({ ...request, only: seat.nodeId }) > 0 ? asPolicy : stopFirst;
    left ??= free(request);
    return left-- > 0 ? asPolicy : stopFirst;
  };
}
