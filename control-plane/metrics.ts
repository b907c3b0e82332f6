/** What a control plane tells monitoring: the cluster as its snapshot has it, its commits, how soon tasks find a node and run, who leads, who is silent. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { taskStates } from '#proto/model/task.ts';
import type { Liveness } from './controllers/liveness.ts';
import type { Delta } from './store/records.ts';
import type { Store } from './store/store.ts';

export interface ControlPlaneMetricsParts {
  readonly clock: Clock;
  readonly store: Pick<Store, 'snapshot' | 'subscribe' | 'leadership'>;
  readonly liveness: Pick<Liveness, 'lastBeatAt'>;
  /** This replica leads. */
  readonly leads: () => boolean;
  readonly version: string;
}

export interface ControlPlaneMetrics {
  readonly registry: Registry;
  /** Counts one commit; for whoever wraps `Store.commit`. */
  committed(outcome: string, changes: number, seconds: number): void;
  close(): void;
}

const latencyBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60];

/** Figures of the cluster are counted when they are asked for; latencies as tasks pass by. */
export function controlPlaneMetrics(parts: ControlPlaneMetricsParts): ControlPlaneMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  new Gauge({ name: 'gantry_info', help: 'The version that runs.', labelNames: ['version'], registers }).set(
    { version: parts.version },
    1,
  );
  clusterGauges(parts, registers);
  leaderGauges(parts, registers);
  const commits = new Histogram({
    name: 'gantry_commit_seconds',
    help: 'Time of a transaction, by outcome: ok, or the code of the fault.',
    labelNames: ['outcome'],
    buckets: latencyBuckets,
    registers,
  });
  const changes = new Counter({
    name: 'gantry_committed_changes_total',
    help: 'Records written or removed by this replica.',
    registers,
  });
  const scheduling = new Histogram({
    name: 'gantry_scheduling_seconds',
    help: 'From the making of a task to its node, as the leader sees it.',
    buckets: latencyBuckets,
    registers,
  });
  const starting = new Histogram({
    name: 'gantry_task_start_seconds',
    help: 'From the making of a task to its running, as the leader sees it.',
    buckets: latencyBuckets,
    registers,
  });
  const ends = new Counter({
    name: 'gantry_task_ends_total',
    help: 'Tasks that ended, by state.',
    labelNames: ['state'],
    registers,
  });
  const unsubscribe = parts.store.subscribe((delta) => {
    if (parts.leads()) observe(delta, parts.clock.now(), { scheduling, starting, ends });
  });
  return {
    registry,
    committed(outcome, count, seconds) {
      commits.observe({ outcome }, seconds);
      if (outcome === 'ok') changes.inc(count);
    },
    close: unsubscribe,
  };
}

/** The same store, its commits measured. */
export function measuredStore(inner: Store, clock: Clock, committed: ControlPlaneMetrics['committed']): Store {
  const commit: Store['commit'] = async (changes, options) => {
    const beganAt = clock.monotonic();
    let outcome = 'ok';
    try {
      return await inner.commit(changes, options);
    } catch (error) {
      outcome = isFault(error) ? error.code : 'internal';
      throw error;
    } finally {
      committed(outcome, changes.length, (clock.monotonic() - beganAt) / 1000);
    }
  };
  // A proxy keeps what is live, such as `leadership`.
  return new Proxy(inner, {
    get(target, name) {
      if (name === 'commit') return commit;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

interface Passing {
  readonly scheduling: Histogram;
  readonly starting: Histogram;
  readonly ends: Counter;
}

function observe(delta: Delta, nowMs: number, { scheduling, starting, ends }: Passing): void {
  for (const change of delta.changes) {
    if (change.table !== 'task' || !change.after) continue;
    const { before, after } = change;
    const seconds = Math.max(0, nowMs - after.createdAtMs) / 1000;
    if (after.nodeId !== '' && (before?.nodeId ?? '') === '') scheduling.observe(seconds);
    if (after.state === 'running' && before?.state !== 'running') starting.observe(seconds);
    if (after.finishedAtMs > 0 && before && before.finishedAtMs === 0) ends.inc({ state: after.state });
  }
}

function clusterGauges({ store }: ControlPlaneMetricsParts, registers: Registry[]): void {
  new Gauge({
    name: 'gantry_tasks',
    help: 'Tasks in the store, by state; history included.',
    labelNames: ['state'],
    registers,
    collect() {
      const counts = new Map(taskStates.map((state) => [state, 0]));
      for (const { state } of store.snapshot.all('task')) counts.set(state, counts.get(state)! + 1);
      for (const [state, count] of counts) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'gantry_nodes',
    help: 'Nodes, by state and availability.',
    labelNames: ['state', 'availability'],
    registers,
    collect() {
      this.reset();
      for (const { state, availability } of store.snapshot.all('node')) this.inc({ state, availability });
    },
  });
  new Gauge({
    name: 'gantry_services',
    help: 'Services in the store.',
    registers,
    collect() {
      this.set(store.snapshot.count('service'));
    },
  });
  new Gauge({
    name: 'gantry_store_revision',
    help: 'The revision that the snapshot has reached.',
    registers,
    collect() {
      this.set(store.snapshot.revision);
    },
  });
}

function leaderGauges({ store, liveness, leads, clock }: ControlPlaneMetricsParts, registers: Registry[]): void {
  new Gauge({
    name: 'gantry_leader_epoch',
    help: 'The epoch of leadership, as last heard.',
    registers,
    collect() {
      this.set(store.leadership?.epoch ?? 0);
    },
  });
  new Gauge({
    name: 'gantry_leading',
    help: '1 where this replica leads.',
    registers,
    collect() {
      this.set(leads() ? 1 : 0);
    },
  });
  new Gauge({
    name: 'gantry_node_silence_seconds',
    help: 'How long ago each node was last heard; only of the leader.',
    labelNames: ['node'],
    registers,
    collect() {
      this.reset();
      if (!leads()) return;
      for (const { id, name } of store.snapshot.all('node')) {
        const at = liveness.lastBeatAt(id);
        if (at !== undefined) this.set({ node: name }, (clock.monotonic() - at) / 1000);
      }
    },
  });
}
