/** How many tasks an autoscaled service should have: Kubernetes' arithmetic (HPA) over what its tasks do, stabilised and paced. */
import type { Autoscale, ScalingPace } from '#proto/model/autoscale.ts';
import type { Range } from './scheduled-range.ts';

/** A task of the service that is to stay, as it was last measured. */
export interface TaskLoad {
  /** It does what it is there for; others say nothing of the load. */
  readonly ready: boolean;
  /** Percent of what it may use, averaged over some seconds; undefined: not known. */
  readonly cpuPercent: number | undefined;
  readonly memoryPercent: number | undefined;
}

/** What the service does now. */
export interface Load {
  readonly tasks: readonly TaskLoad[];
  /** New connections of the whole service; undefined: not known. */
  readonly requestsPerSecond: number | undefined;
  /** Since the last request, or since somebody looks. */
  readonly idleForMs: number;
  /** Where a request waits for a task of it. */
  readonly calledAt: string | undefined;
}

/** What has to be remembered from one look to the next; a new leader begins with `freshMemory`. */
export interface ScalingMemory {
  /** Recommendations, oldest first, as far as they may still be the lowest, or the highest, of their time. */
  readonly lows: readonly Mark[];
  readonly highs: readonly Mark[];
  /** What was added (or, negative, taken away) and when. */
  readonly steps: readonly Mark[];
}

interface Mark {
  readonly atMs: number;
  readonly value: number;
}

export interface Scaling {
  readonly replicas: number;
  /** Why that many; only where they are others than before. */
  readonly why: string;
  readonly memory: ScalingMemory;
}

/** A ratio this close to 1 is none. */
const tolerance = 0.1;
const stepPeriodMs = 15_000;
const settleMs = 6_000;

/** As if what there is had just been recommended: nothing is taken away, and nothing added, before its time has passed. */
export function freshMemory(current: number, nowMs: number): ScalingMemory {
  const now = [{ atMs: nowMs, value: current }];
  return { lows: now, highs: now, steps: [] };
}

/** `current`: tasks it should have up to now. `nowMs`: by any clock that only goes forward. */
export function autoscale(
  spec: Autoscale,
  range: Range,
  current: number,
  load: Load,
  before: ScalingMemory,
  nowMs: number,
): Scaling {
  const { min, max } = range;
  const least = Math.max(min, 1);
  if (current === 0) {
    if (min === 0 && load.calledAt === undefined) return { replicas: 0, why: '', memory: freshMemory(0, nowMs) };
    const why = load.calledAt === undefined ? bound('least', min, range) : `a request arrived at ${load.calledAt}`;
    return { replicas: least, why, memory: freshMemory(least, nowMs) };
  }
  if (min === 0 && load.calledAt === undefined && load.idleForMs >= spec.idleMs) {
    return { replicas: 0, why: `no request for ${seconds(spec.idleMs)}`, memory: freshMemory(0, nowMs) };
  }
  const isWithin = current >= least && current <= max;
  if (isWithin && isSettling(spec, load, before, nowMs)) return { replicas: current, why: '', memory: before };
  const advice = recommend(spec, range, current, load);
  const value = Math.min(Math.max(advice.replicas, least), max);
  const memory = remember(spec, before, value, nowMs);
  const stable = Math.max(Math.min(current, memory.highs[0]!.value), memory.lows[0]!.value);
  const paced = pace(spec, current, stable, memory.steps);
  const replicas = Math.min(Math.max(paced, least), max);
  if (replicas === current) return { replicas, why: '', memory };
  const said = replicas > current ? advice.replicas >= replicas : advice.replicas <= replicas;
  const why =
    said && advice.replicas !== current ? advice.why : bound(replicas > current ? 'least' : 'most', replicas, range);
  return { replicas, why, memory: { ...memory, steps: [...memory.steps, { atMs: nowMs, value: replicas - current }] } };
}

/** Just after a change not all tasks have said what they do since: that must not be taken for a recommendation to stay. */
function isSettling(spec: Autoscale, { tasks }: Load, { steps }: ScalingMemory, nowMs: number): boolean {
  const last = steps.at(-1);
  if (!last || nowMs - last.atMs >= settleMs || spec.cpuPercent + spec.memoryPercent === 0) return false;
  return tasks.some(({ ready, cpuPercent }) => ready && cpuPercent === undefined);
}

interface Advice {
  readonly replicas: number;
  readonly why: string;
}

/** The most that any of its measures asks for; where one is not known, nothing is taken away. */
function recommend(spec: Autoscale, range: Range, current: number, { tasks, requestsPerSecond }: Load): Advice {
  const advices: (Advice | undefined)[] = [];
  if (spec.cpuPercent > 0) advices.push(byTasks('cpu', tasks, (task) => task.cpuPercent, spec.cpuPercent, current));
  if (spec.memoryPercent > 0)
    advices.push(byTasks('memory', tasks, (task) => task.memoryPercent, spec.memoryPercent, current));
  if (spec.requestsPerSecond > 0) advices.push(byRequests(requestsPerSecond, spec.requestsPerSecond, current));
  if (advices.length === 0) {
    const least = Math.max(range.min, 1);
    return { replicas: least, why: bound('least', least, range) };
  }
  let most: Advice | undefined;
  for (const advice of advices) if (advice && (!most || advice.replicas > most.replicas)) most = advice;
  if (!most || (most.replicas < current && advices.includes(undefined))) return { replicas: current, why: '' };
  return most;
}

/**
 * By what ready tasks use on average. Those that are not measured are taken to use nothing where more are asked for, and
 * all they may where fewer are; those that are only starting count as using nothing where more are asked for.
 */
function byTasks(
  what: string,
  tasks: readonly TaskLoad[],
  usedBy: (task: TaskLoad) => number | undefined,
  target: number,
  current: number,
): Advice | undefined {
  const ready = tasks.filter((task) => task.ready);
  const used = ready.flatMap((task) => usedBy(task) ?? []);
  if (used.length === 0) return undefined;
  const sum = used.reduce((total, one) => total + one, 0);
  const mean = sum / used.length;
  const advice = (replicas: number) => ({ replicas, why: `${what} ${round(mean)} % of ${round(target)} %` });
  const more = mean > target;
  const missing = ready.length - used.length;
  const starting = more ? tasks.length - ready.length : 0;
  const count = used.length + missing + starting;
  const ratio = (sum + (more ? 0 : missing * Math.max(100, target))) / count / target;
  if (Math.abs(ratio - 1) <= tolerance || ratio > 1 !== more) return advice(current);
  return advice(more ? Math.max(ceil(ratio * count), current) : Math.min(fewer(ratio * count), current));
}

function byRequests(rate: number | undefined, target: number, current: number): Advice | undefined {
  if (rate === undefined) return undefined;
  const ratio = rate / (target * current);
  const why = `${round(rate)} requests/s, ${round(target)} to a task`;
  if (Math.abs(ratio - 1) <= tolerance) return { replicas: current, why };
  return { replicas: ratio > 1 ? ceil(rate / target) : Math.min(fewer(rate / target), current), why };
}

/** As many that each stays a tolerance below what is aimed at: what is noise does not ask for the next one at once. */
function fewer(tasks: number): number {
  return ceil(tasks / (1 - tolerance));
}

/** The first of `lows` is the lowest of its window, the first of `highs` the highest. */
function remember(spec: Autoscale, before: ScalingMemory, value: number, nowMs: number): ScalingMemory {
  const recent = (marks: readonly Mark[], windowMs: number) => marks.filter(({ atMs }) => atMs > nowMs - windowMs);
  const now = { atMs: nowMs, value };
  return {
    lows: [...recent(before.lows, spec.up.stabilizationMs).filter((mark) => mark.value < value), now],
    highs: [...recent(before.highs, spec.down.stabilizationMs).filter((mark) => mark.value > value), now],
    steps: recent(before.steps, stepPeriodMs),
  };
}

function pace(spec: Autoscale, current: number, wanted: number, steps: readonly Mark[]): number {
  const moved = (sign: number) => steps.reduce((total, { value }) => total + Math.max(0, value * sign), 0);
  if (wanted > current) {
    const begun = current - moved(1);
    return Math.max(current, Math.min(wanted, begun + mostOf(spec.up, begun)));
  }
  const begun = current + moved(-1);
  return Math.min(current, Math.max(wanted, begun - mostOf(spec.down, begun)));
}

/** Of a service that had `begun` tasks when the period began. */
function mostOf({ stepTasks, stepPercent }: ScalingPace, begun: number): number {
  if (stepTasks === 0 && stepPercent === 0) return Number.POSITIVE_INFINITY;
  return Math.max(stepTasks, ceil((begun * stepPercent) / 100));
}

function bound(which: 'least' | 'most', replicas: number, { cron }: Range): string {
  return `at ${which} ${replicas}${cron === '' ? '' : ` by the schedule ${cron}`}`;
}

function ceil(value: number): number {
  return Math.ceil(value - 1e-9);
}

function round(value: number): string {
  return String(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
