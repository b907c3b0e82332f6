/** Pure: what a step of the snapshot means to people, as events in their words. */

import type { AuthorityState } from '#proto/model/authority.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import type { ClusterConfig, Event } from '#proto/model/cluster.ts';
import type { Document } from '#proto/model/document.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task, TaskState } from '#proto/model/task.ts';
import type { Volume } from '#proto/model/volume.ts';
import type { Applied, Delta } from '../store/records.ts';
import { jobWords } from './job-events.ts';

type Said = Omit<Event, 'revision' | 'atMs'>;

/** The steps on the way to running say little to people; where a task stands shows in `ps`. */
const quietStates: ReadonlySet<TaskState> = new Set(['new', 'preparing', 'ready', 'starting', 'remove']);

/** The events of a delta, in the order of its changes; often fewer than changes, for what only machines care about is left out. */
export function eventsOf(delta: Delta, atMs: number): readonly Event[] {
  return delta.changes.flatMap(said).map((event) => ({ revision: delta.revision, atMs, ...event }));
}

function said(change: Applied): readonly Said[] {
  switch (change.table) {
    case 'service':
      return ofService(change.before, change.after);
    case 'task':
      return ofTask(change.before, change.after);
    case 'node':
      return ofNode(change.before, change.after);
    case 'volume':
      return ofVolume(change.before, change.after);
    case 'network':
      return [
        clusterEvent(
          !change.before ? 'network-created' : change.after ? 'network-updated' : 'network-removed',
          change.key,
          `network ${change.key}`,
        ),
      ];
    case 'token':
      if (change.before && change.after) return [];
      return [clusterEvent(change.after ? 'token-created' : 'token-revoked', change.key, `join token ${change.key}`)];
    case 'credential':
      return [clusterEvent(change.after ? 'login' : 'logout', change.key, `login for ${change.key}`)];
    case 'cluster':
      return ofCluster(change.before, change.after);
    case 'authority':
      return ofAuthority(change.before, change.after);
    case 'document':
      return ofDocument(change.before, change.after);
    case 'content':
    case 'trash':
    case 'revision':
    case 'version':
    case 'guard':
      return [];
  }
}

/** Enrolments write the record unchanged: that is no news. */
function ofCluster(before: ClusterConfig | undefined, after: ClusterConfig | undefined): readonly Said[] {
  if (!before || !after) return [clusterEvent('created', 'config', 'the cluster begins')];
  const changed = (Object.keys(after) as (keyof ClusterConfig)[]).filter((key) => after[key] !== before[key]);
  if (changed.length === 0) return [];
  const words = changed.map((key) => `${key} ${after[key] || 'off'}, was ${before[key] || 'off'}`);
  return [clusterEvent('updated', 'config', words.join('; '))];
}

const phaseWords: Record<AuthorityState['phase'], string> = {
  settled: 'the CA was rotated: only the new one is trusted',
  renewing: 'the CA is being rotated: all members get certificates of a new one',
  dropping: 'all members have certificates of the new CA: the old one is no longer trusted',
};

function ofAuthority(before: AuthorityState | undefined, after: AuthorityState | undefined): readonly Said[] {
  if (!before || !after || before.phase === after.phase) return [];
  return [clusterEvent('ca-rotated', 'ca', phaseWords[after.phase])];
}

function clusterEvent(action: string, id: string, message: string): Said {
  return { kind: 'cluster', action, id, name: id, node: '', message };
}

function ofService(before: Service | undefined, after: Service | undefined): readonly Said[] {
  const { id, spec } = (after ?? before)!;
  const event = (action: string, message: string): Said => ({
    kind: 'service',
    action,
    id,
    name: qualifiedName(spec.project, spec.name),
    node: '',
    message,
  });
  if (!after) return [event('removed', 'removed')];
  const ofJob = jobWords(before?.job, after.job).map(({ action, message }) => event(action, message));
  if (!before) return [event('created', `${wants(after)} of ${spec.template.container.image}`), ...ofJob];
  const events: Said[] = ofJob;
  if (after.removing && !before.removing) events.push(event('removing', 'its tasks are being stopped'));
  const [from, to] = [replicasOf(before), replicasOf(after)];
  if (from !== to && spec.mode === 'replicated') {
    const why = spec.autoscale && after.autoscaled ? `: ${after.autoscaled.why}` : '';
    events.push(event(why === '' ? 'scaled' : 'autoscaled', `from ${from} to ${to} replicas${why}`));
  }
  if (after.revision !== before.revision) events.push(event('updated', newRevision(before, after)));
  else if (events.length === 0 && after.updatedAtMs !== before.updatedAtMs)
    events.push(event('updated', 'changed without new tasks'));
  const { rollout } = after;
  if (rollout.state !== before.rollout.state && rollout.state !== 'idle')
    events.push(event(`rollout-${rollout.state}`, rollout.message || `rollout ${rollout.state}`));
  return events;
}

function wants(service: Service): string {
  if (isPerNode(service.spec)) return 'one task per node';
  const replicas = replicasOf(service);
  return replicas === 1 ? '1 replica' : `${replicas} replicas`;
}

function newRevision(before: Service, after: Service): string {
  const [from, to] = [before.spec.template.container.image, after.spec.template.container.image];
  return from === to ? `revision ${after.revision}` : `revision ${after.revision}: ${from} is now ${to}`;
}

function ofTask(before: Task | undefined, after: Task | undefined): readonly Said[] {
  if (!after) return []; // Old history goes silently.
  const event = (action: string, message: string): Said => ({
    kind: 'task',
    action,
    id: after.id,
    name: taskName(after),
    node: after.nodeName,
    message,
  });
  const events: Said[] = [];
  if (!before) events.push(event('created', after.why));
  if (before && before.state !== after.state && !quietStates.has(after.state))
    events.push(event(after.state, stateMessage(after)));
  if (
    before &&
    before.wanted !== after.wanted &&
    after.wanted === 'shutdown' &&
    after.state !== 'orphaned' &&
    after.state !== 'shutdown'
  )
    events.push(event('stopping', after.why));
  if (before && before.isolatedUntilMs === 0 && after.isolatedUntilMs > 0) events.push(event('isolated', after.why));
  if (before && !before.absence && after.absence) events.push(event('absent', after.why));
  if (before && before.returnedAtMs < after.returnedAtMs) events.push(event('returned', after.why));
  if (before && before.health !== after.health && (after.health === 'healthy' || after.health === 'unhealthy'))
    events.push(event(after.health, after.message));
  return events;
}

function stateMessage(task: Task): string {
  if (task.state === 'assigned') return `to ${task.nodeName}`;
  if (task.oomKilled) return `killed for want of memory${task.error && `: ${task.error}`}`;
  return task.error || task.message;
}

function ofNode(before: Node | undefined, after: Node | undefined): readonly Said[] {
  const { id, name } = (after ?? before)!;
  const event = (action: string, message: string): Said => ({ kind: 'node', action, id, name, node: name, message });
  if (!after) return [event('removed', 'removed from the cluster')];
  // Its agent has not described itself yet.
  if (!before) return [event('joined', after.address)];
  const events: Said[] = [];
  if (after.state !== before.state) events.push(event(after.state, after.message || `${before.state} before`));
  else if (after.message !== before.message && after.state === 'ready')
    events.push(after.message === '' ? event('well', `no more: ${before.message}`) : event('warned', after.message));
  if (after.subnet !== before.subnet && before.subnet !== '')
    events.push(event('subnet', `${after.subnet || 'none'}, was ${before.subnet}`));
  if (after.availability !== before.availability)
    events.push(event(after.availability, `availability was ${before.availability}`));
  if (after.bootId !== before.bootId && before.bootId !== '')
    events.push(event('rebooted', 'its tasks of before have ended'));
  const labels = changedLabels(before.labels, after.labels);
  if (labels.length > 0) events.push(event('labelled', labels.join(', ')));
  return events;
}

function ofVolume(before: Volume | undefined, after: Volume | undefined): readonly Said[] {
  const { name } = (after ?? before)!;
  if (!after) return [clusterEvent('volume-forgotten', name, `volume ${name} was on ${before!.nodeName}`)];
  if (!before) return [clusterEvent('volume-placed', name, `volume ${name} is on ${after.nodeName}`)];
  const words = `volume ${name} begins empty on ${after.nodeName}: ${before.nodeName}, which had it, is lost`;
  return before.nodeId === after.nodeId ? [] : [clusterEvent('volume-recreated', name, words)];
}

/** Who refers to it writes it down again: that is no news. */
function ofDocument(before: Document | undefined, after: Document | undefined): readonly Said[] {
  const { type, name } = (after ?? before)!;
  if (!after) return [clusterEvent(`${type}-removed`, name, `${type} ${name}`)];
  if (!before) return [clusterEvent(`${type}-created`, name, `${type} ${name}`)];
  const news = before.version !== after.version;
  return news ? [clusterEvent(`${type}-updated`, name, `${type} ${name} has another content`)] : [];
}

function changedLabels(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
): readonly string[] {
  const set = Object.keys(after).filter((key) => after[key] !== before[key]);
  const gone = Object.keys(before).filter((key) => !(key in after));
  return [...set.sort().map((key) => `${key}=${after[key]}`), ...gone.sort().map((key) => `${key} removed`)];
}
