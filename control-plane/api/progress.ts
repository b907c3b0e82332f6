/** How far services are, as a stream: one update for each step of the snapshot that changes the answer, until it is final. */
import type { Delta } from '#control-plane/store/records.ts';
import { revisionKey, type Snapshot } from '#control-plane/store/snapshot.ts';
import type { ProgressRequest, ProgressUpdate, ServiceProgress } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type ServiceId, serviceId, type TaskId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { assess, isTroubled } from './assess.ts';
import { nameOfService } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Changes of this long go out as one update. */
const coalesceMs = 40;
/** Time alone may change the answer too: what is pending too long has failed. */
const tickMs = 1_000;

export async function* progress(
  parts: OperatorParts,
  request: ProgressRequest,
  signal: AbortSignal,
): AsyncGenerator<ProgressUpdate> {
  const { store, clock } = parts;
  const ids = request.services.map(serviceId);
  if (ids.length === 0) throw new Fault('invalid', 'progress of no service was asked for');
  if (request.revision > 0) await store.seen(request.revision, signal);
  const names = new Map<ServiceId, string>();
  const since = new Map<ServiceId, number>();
  /** Rollouts that had ended before the wish, or before anybody asked where there is none: a rollback of long ago is no failure of it. */
  const stale = new Map<ServiceId, number>();
  let stuckSinceMs = new Map<TaskId, number>();
  const look = (): ServiceProgress[] => {
    const now = clock.now();
    const stuck = ids.flatMap((id) => [...store.snapshot.tasksOfService(id)].filter(isTroubled));
    stuckSinceMs = new Map(stuck.map(({ id }) => [id, stuckSinceMs.get(id) ?? now]));
    return ids.map((id) => {
      const service = store.snapshot.service(id);
      if (service) {
        names.set(id, nameOfService(service));
        since.set(id, service.updatedAtMs);
        if (!stale.has(id))
          stale.set(id, endedSince(store.snapshot, service, request.revision) ? 0 : service.rollout.finishedAtMs);
      }
      const rollback = request.rollback || service?.rollout.finishedAtMs === stale.get(id);
      const options = { now, sinceMs: since.get(id) ?? 0, rollback, stuckSinceMs };
      return assess(store.snapshot, id, names.get(id) ?? id, options);
    });
  };
  const changed = changeSignal(parts, new Set(ids));
  try {
    for (let told = ''; !signal.aborted; ) {
      const services = look();
      const done =
        services.some(({ outcome }) => outcome === 'failed') ||
        services.every(({ outcome }) => outcome === 'converged' || outcome === 'held');
      const text = JSON.stringify(services);
      if (text !== told || done) yield { services, done };
      if (done) return;
      told = text;
      await changed.next(signal);
    }
  } finally {
    changed.stop();
  }
}

/** What went back since has made the version it is at, or written into that how it ended: that may be over before anybody asks. */
function endedSince(snapshot: Snapshot, { id, version }: Service, wish: number): boolean {
  return wish > 0 && (snapshot.get('version', revisionKey(id, version))?.modRevision ?? 0) > wish;
}

/** Waits for the next change of the services, or the tick, whichever is first. */
function changeSignal({ store, clock }: OperatorParts, ids: ReadonlySet<ServiceId>) {
  let dirty = false;
  let wake: (() => void) | undefined;
  const unsubscribe = store.subscribe((delta) => {
    if (!concerns(delta, ids)) return;
    dirty = true;
    wake?.();
  });
  return {
    stop: unsubscribe,
    async next(signal: AbortSignal): Promise<void> {
      if (!dirty)
        await new Promise<void>((resolve) => {
          const done = () => {
            timer.cancel();
            signal.removeEventListener('abort', done);
            resolve();
          };
          const timer = clock.after(tickMs, done);
          wake = done;
          signal.addEventListener('abort', done, { once: true });
        });
      wake = undefined;
      if (dirty && !signal.aborted) await clock.sleep(coalesceMs);
      dirty = false;
    },
  };
}

function concerns(delta: Delta, ids: ReadonlySet<ServiceId>): boolean {
  return delta.changes.some((change) => {
    if (change.table === 'service') return ids.has(change.key as ServiceId);
    if (change.table === 'task') return ids.has((change.after ?? change.before)!.serviceId);
    return change.table === 'node';
  });
}
