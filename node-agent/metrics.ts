/** What an agent tells monitoring: its tasks, its pulls, the logs it ships, the repairs of its network, and how its own process is. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { type TaskStatus, taskStates } from '#proto/model/task.ts';
import type { Images } from './images/images.ts';
import type { LogCounts } from './logs/log-shipper.ts';
import type { Effect } from './task/decide.ts';

export interface AgentMetricsParts {
  readonly clock: Clock;
  /** The newest word about each task on this node. */
  readonly statuses: () => readonly TaskStatus[];
  readonly logs: () => LogCounts;
  /** True while a session with the control plane stands. */
  readonly connected: () => boolean;
  readonly version: string;
}

export interface AgentMetrics {
  readonly registry: Registry;
  /** The same store of images, measured. */
  measured(images: Images): Images;
  networkRepaired(): void;
  /** A step of a task has succeeded. */
  stepDone(step: Effect, durationMs: number): void;
}

/** Figures are read when they are asked for; only what passes by is counted as it passes. */
export function agentMetrics(parts: AgentMetricsParts): AgentMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  new Gauge({ name: 'gantry_agent_info', help: 'The version that runs.', labelNames: ['version'], registers }).set(
    { version: parts.version },
    1,
  );
  new Gauge({
    name: 'gantry_agent_tasks',
    help: 'Tasks on this node, by state.',
    labelNames: ['state'],
    registers,
    collect() {
      const counts = new Map(taskStates.map((state) => [state, 0]));
      for (const { state } of parts.statuses()) counts.set(state, counts.get(state)! + 1);
      for (const [state, count] of counts) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'gantry_agent_connected',
    help: '1 while a session with the control plane stands.',
    registers,
    collect() {
      this.set(parts.connected() ? 1 : 0);
    },
  });
  logMetrics(parts.logs, registers);
  const repairs = new Counter({
    name: 'gantry_agent_network_repairs_total',
    help: 'Things of ours in the kernel that were missing or wrong, and put right.',
    registers,
  });
  const pulls = new Histogram({
    name: 'gantry_agent_image_ensure_seconds',
    help: 'Time until an image was there, by outcome: ok, or the code of the fault.',
    labelNames: ['outcome'],
    buckets: [0.005, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 180],
    registers,
  });
  const steps = new Histogram({
    name: 'gantry_task_step_seconds',
    help: 'Time of a successful step of a task.',
    labelNames: ['step'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10],
    registers,
  });
  return {
    registry,
    networkRepaired: () => repairs.inc(),
    stepDone: (step, durationMs) => steps.observe({ step }, durationMs / 1000),
    measured: (images) =>
      measuredImages(images, parts.clock, (outcome, seconds) => pulls.observe({ outcome }, seconds)),
  };
}

const logFigures: readonly (readonly [Exclude<keyof LogCounts, 'following'>, string, string])[] = [
  ['lines', 'gantry_agent_log_lines_total', 'Log lines that are kept in NATS.'],
  ['bytes', 'gantry_agent_log_bytes_total', 'Bytes of log files that are kept in NATS.'],
  ['batches', 'gantry_agent_log_batches_total', 'Messages with log lines that NATS took.'],
  ['retries', 'gantry_agent_log_retries_total', 'Messages with log lines that NATS did not take at once.'],
  ['droppedBytes', 'gantry_agent_log_dropped_bytes_total', 'Bytes of log files lost because the spool was full.'],
];

function logMetrics(counts: () => LogCounts, registers: Registry[]): void {
  for (const [field, name, help] of logFigures)
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(counts()[field]);
      },
    });
  new Gauge({
    name: 'gantry_agent_logs_followed',
    help: 'Log files that are followed.',
    registers,
    collect() {
      this.set(counts().following);
    },
  });
}

function measuredImages(images: Images, clock: Clock, observe: (outcome: string, seconds: number) => void): Images {
  return {
    async ensure(request) {
      const beganAt = clock.monotonic();
      let outcome = 'ok';
      try {
        return await images.ensure(request);
      } catch (error) {
        outcome = isFault(error) ? error.code : 'internal';
        throw error;
      } finally {
        observe(outcome, (clock.monotonic() - beganAt) / 1000);
      }
    },
    config: (request) => images.config(request),
    prepareRootfs: (task, image) => images.prepareRootfs(task, image),
    release: (task) => images.release(task),
    rootfs: () => images.rootfs(),
    importArchive: (path) => images.importArchive(path),
    version: () => images.version(),
  };
}
