/** What the operator wishes of a rollout under way: stop, go on. */
import type { Change } from '#control-plane/store/records.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import type { Rollout, Service } from '#proto/model/service.ts';
import { isRolling } from './rollout.ts';
import { nameOf, put, standing, type WishContext } from './service-changes.ts';
import { withOutcome } from './versions.ts';

/** A rollout under way stops where it is, until it is resumed. Faults: `not-found`, `precondition` (there is none), `conflict`. */
export function pauseRollout(context: WishContext, id: ServiceId): Change[] {
  const service = standing(context, id);
  const { rollout } = service;
  if (rollout.state === 'paused') return [];
  if (!isRolling(service)) throw noRollout(service);
  const resumes = rollout.state === 'rolling-back' ? 'rolling-back' : 'updating';
  const message = `paused by ${context.by || 'an operator'}`;
  const paused: Rollout = { ...rollout, state: 'paused', resumes, message, finishedAtMs: context.now, holdUntilMs: 0 };
  return [
    put(context, 'service', id, { ...service, rollout: paused }),
    ...withOutcome(context.snapshot, service, 'paused', message),
  ];
}

/** A rollout that was paused goes on, past failures included; one that is held at a gate passes it. Faults as of `pauseRollout`. */
export function resumeRollout(context: WishContext, id: ServiceId): Change[] {
  const service = standing(context, id);
  const { rollout } = service;
  const goingOn = { ...rollout, finishedAtMs: 0, holdUntilMs: 0, failuresSinceMs: context.now, resumes: '' } as const;
  if (rollout.state === 'held') {
    const message = `to revision ${service.revision}, resumed by ${context.by || 'an operator'}`;
    const passed: Rollout = { ...goingOn, state: 'updating', message, gatesPassed: rollout.gatesPassed + 1 };
    return [put(context, 'service', id, { ...service, rollout: passed })];
  }
  if (rollout.state === 'paused') {
    const message = `to revision ${service.revision}, resumed by ${context.by || 'an operator'}`;
    const resumed: Rollout = { ...goingOn, state: rollout.resumes || 'updating', message };
    return [
      put(context, 'service', id, { ...service, rollout: resumed }),
      ...withOutcome(context.snapshot, service, '', ''),
    ];
  }
  throw isRolling(service)
    ? new Fault('precondition', `the rollout of service ${nameOf(service)} is under way already`)
    : noRollout(service);
}

function noRollout(service: Service): Fault {
  return new Fault('precondition', `service ${nameOf(service)} has no rollout under way`, {
    remedy: `see gantry rollout status ${service.spec.name}`,
  });
}
