/** Where a rollout stands, seat by seat and gate by gate: the rollout's own eyes, in words. */
import { inOrder } from '#control-plane/reconcilers/gates.ts';
import { isRolling, policyOf, stageOf } from '#control-plane/reconcilers/rollout.ts';
import {
  activeOf,
  endOf,
  isSeated,
  isStopping,
  isUp,
  latestOf,
  type Seat,
  seatsOf,
} from '#control-plane/reconcilers/seats.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  RolloutGate,
  RolloutSeat,
  RolloutStatusRequest,
  RolloutStatusResponse,
} from '#proto/gen/gantry/v1/operator.ts';
import type { Gate, Service } from '#proto/model/service.ts';
import { toWire } from '#proto/model/wire.ts';
import { wantedTasks } from './assess.ts';
import { findService } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Faults: `not-found`, `invalid` (ambiguous). */
export function rolloutStatus({ store, clock }: OperatorParts, request: RolloutStatusRequest): RolloutStatusResponse {
  const { snapshot } = store;
  const service = findService(snapshot, request.service);
  return statusOf(snapshot, service, clock.now());
}

export function statusOf(snapshot: Snapshot, service: Service, now: number): RolloutStatusResponse {
  const seats = [...seatsOf(snapshot.tasksOfService(service.id), service.spec.mode, () => '').values()]
    .filter((seat) => isSeated(seat) || (isRolling(service) && seat.tasks.some(isStopping)))
    .sort((a, b) => a.slot - b.slot || (a.nodeName < b.nodeName ? -1 : 1));
  const shown = seats.map((seat) => seatOf(service, seat, now));
  const gates = gatesOf(service, Math.max(seats.length, wantedTasks(snapshot, service)), now);
  return { service: toWire<Service>(service), summary: summaryOf(service, shown, now), seats: shown, gates };
}

function seatOf(service: Service, seat: Seat, now: number): RolloutSeat {
  const active = activeOf(seat);
  const task =
    active.find((one) => one.revision === service.revision && isUp(one)) ??
    active.find((one) => one.revision !== service.revision && isUp(one)) ??
    latestOf(seat)!;
  const stage = stageOf(service, seat, now);
  const settlesInMs = stage.at === 'new' ? stage.settledAtMs - now : 0;
  return {
    task: `${service.spec.name}.${seat.slot > 0 ? seat.slot : seat.nodeName}`,
    taskId: task.id,
    node: task.nodeName,
    revision: task.revision,
    stage: stage.at === 'new' && settlesInMs > 0 && isRolling(service) ? 'watched' : stage.at,
    waitsFor: waitOf(service, stage.at, seat, settlesInMs),
  };
}

function waitOf(service: Service, at: 'old' | 'moving' | 'failed' | 'new', seat: Seat, settlesInMs: number): string {
  const { tasks } = seat;
  const newest = latestOf(seat)!;
  const { state } = service.rollout;
  if (at === 'failed') return endOf(newest);
  if (at === 'new')
    return settlesInMs > 0 && isRolling(service) ? `to be well for another ${seconds(settlesInMs)}` : '';
  if (at === 'old') {
    if (state === 'paused') return 'the rollout to be resumed';
    if (state === 'held') return 'the gate to be opened';
    return isRolling(service) ? 'its turn' : '';
  }
  const stopping = tasks.find(isStopping);
  if (stopping && newest.state !== 'running') return `${stopping.nodeName} to stop the old task`;
  if (newest.revision !== service.revision) return `${newest.nodeName} to stop the old task`;
  if (newest.state === 'running') return `its health check (${newest.health || 'starting'})`;
  return `the new task: ${newest.state}${newest.error || newest.message ? `, ${newest.error || newest.message}` : ''}`;
}

function gatesOf(service: Service, seats: number, now: number): RolloutGate[] {
  const { rollout } = service;
  const { gatesPassed, state, holdUntilMs } = rollout;
  return inOrder(policyOf(service), seats).map(({ gate, seats: at, isMet }, index) => {
    const here = state === 'held' && index === gatesPassed;
    const isPassed = index < gatesPassed || !isMet || (!isRolling(service) && state !== 'paused');
    const byHand = `gantry rollout resume ${service.spec.name}`;
    const opens = gate.holdMs === 0 ? byHand : `after ${seconds(gate.holdMs)}, or ${byHand}`;
    return {
      name: nameOf(gate),
      seats: at,
      state: isPassed ? 'passed' : here ? 'here' : 'ahead',
      opens: isPassed ? '' : here && holdUntilMs > now ? `in ${seconds(holdUntilMs - now)}, or ${byHand}` : opens,
    };
  });
}

function nameOf({ kind, count, percent }: Gate): string {
  return `${kind} at ${percent > 0 ? `${percent}%` : count}`;
}

function summaryOf({ spec, rollout, revision, version }: Service, seats: readonly RolloutSeat[], now: number): string {
  const over = seats.filter((seat) => seat.stage === 'new' || seat.stage === 'watched').length;
  const count = `${over} of ${seats.length} seats run revision ${revision}`;
  const words = rollout.message ? `: ${rollout.message}` : '';
  const until =
    rollout.state === 'held' && rollout.holdUntilMs > now ? `, for ${seconds(rollout.holdUntilMs - now)}` : '';
  if (rollout.state === 'idle') return `${spec.name} is at version ${version}; it has had no rollout yet; ${count}`;
  return `${spec.name} is at version ${version}, ${rollout.state}${until}${words}; ${count}`;
}

function seconds(ms: number): string {
  const all = Math.ceil(ms / 1_000);
  return all < 120 ? `${all} s` : all < 7_200 ? `${Math.ceil(all / 60)} min` : `${Math.ceil(all / 3_600)} h`;
}
