/** What a job needs now: its iterations, the completions that each still lacks, and an end for what is done or has failed for good. */
import type { Calendar } from '#proto/model/calendar.ts';
import { type Iteration, isPerNode, type Job, noJob } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import { isAbsent, isActive, isTerminal, type Task } from '#proto/model/task.ts';
import { isUnderWay, remembered } from './iterations.ts';
import { reapTasks, restMs } from './reap.ts';
import type { Seating } from './replicated.ts';
import { restart } from './restart.ts';
import { scheduled } from './schedule.ts';
import { absentOf, activeOf, called, endedByItself, endOf, latestOf, never, type Opinion, type Seat } from './seats.ts';

export interface JobFacts {
  readonly service: Service;
  readonly tasks: readonly Task[];
  /** Wall clock, ms. */
  readonly now: number;
  /** Of its schedule, where it has one. */
  readonly calendar: Calendar | undefined;
  /** Tasks of one iteration by their seats. */
  seatsOf(tasks: readonly Task[]): ReadonlyMap<string, Seat>;
  /** Which nodes an iteration of one task on each has a seat on. */
  perNode(seats: ReadonlyMap<string, Seat>): Seating;
  /** Why a task may not stay on its node; empty when it may. */
  leave(task: Task): string;
  /** Of one that is absent: somebody else may do its completion. */
  mayReplace(absent: Task): boolean;
}

export interface JobAdvice {
  readonly job: Job;
  readonly opinions: readonly Opinion[];
  readonly wakeAtMs: number;
}

/** Tasks kept of an iteration that has ended. */
export const keptOfIteration = 20;

export function decideJob(facts: JobFacts): JobAdvice {
  const { service, tasks, now, calendar } = facts;
  const { spec, revision } = service;
  const groups = Map.groupBy(tasks, ({ iteration }) => iteration);
  const tasksOf = (number: number) => groups.get(number) ?? [];
  const before = service.job ?? noJob;
  const newest = before.iterations.findLast(({ state }) => state !== 'skipped');
  const opinions: Opinion[] = [];
  const settled = before.iterations.map((iteration) => {
    if (!isUnderWay(iteration) && !(iteration === newest && isStanding(service, iteration))) return iteration;
    const { wanted } = seatsFor(facts, iteration, tasksOf(iteration.number));
    const stages = wanted.map((seat) => stageOf(facts, iteration, seat));
    for (const stage of stages)
      if (stage.at === 'failed') opinions.push({ kind: 'note', task: stage.task, why: stage.why });
    return settle(facts, iteration, stages);
  });
  const changed = settled.some((iteration, index) => iteration !== before.iterations[index]);
  let job = remembered(changed ? { ...before, iterations: settled } : before, spec.schedule);
  let wakeAtMs = never;
  if (spec.schedule && calendar) {
    ({ job, wakeAtMs } = scheduled({ ...spec, schedule: spec.schedule }, revision, job, calendar, now));
  }
  const underWay = new Map(job.iterations.filter(isUnderWay).map((iteration) => [iteration.number, iteration]));
  const surplus = tasks.filter(({ iteration, state }) => !underWay.has(iteration) && !isTerminal(state));
  for (const task of surplus) {
    const why = job.iterations.find(({ number }) => number === task.iteration)?.message || 'its iteration has ended';
    if (isActive(task) || isAbsent(task)) opinions.push({ kind: 'stop', task, why });
  }
  for (const iteration of underWay.values()) {
    const seating = seatsFor(facts, iteration, tasksOf(iteration.number));
    opinions.push(...seating.opinions);
    // What takes the place of another waits until that is gone.
    if (surplus.every(isAbsent)) opinions.push(...fill(facts, iteration, seating.wanted));
  }
  for (const [number, group] of groups) {
    const advice = reap(facts, job, number, group);
    opinions.push(...advice.opinions);
    wakeAtMs = Math.min(wakeAtMs, advice.wakeAtMs);
  }
  return { job, opinions, wakeAtMs };
}

/** A job of one task on every node that runs when it is applied: nodes that come later get theirs, as with Swarm. */
function isStanding({ spec }: Service, { state }: Iteration): boolean {
  return isPerNode(spec) && !spec.schedule && (state === 'complete' || state === 'failed');
}

function seatsFor(facts: JobFacts, iteration: Iteration, tasks: readonly Task[]): Pick<Seating, 'wanted' | 'opinions'> {
  const seats = facts.seatsOf(tasks);
  const { number, completions } = iteration;
  if (isPerNode(facts.service.spec)) {
    const { wanted, away, opinions } = facts.perNode(seats);
    // What goes on where nobody hears it is not done.
    const unheard = away.filter((seat) => seat.tasks.some(isGoingOn));
    return {
      wanted: [...wanted, ...unheard].map((seat) => ({ ...seat, iteration: number })),
      // What has ended there stays as it ended: should the node fit again, it is not done twice.
      opinions: opinions.filter((opinion) => opinion.kind !== 'stop' || !isTerminal(opinion.task.state)),
    };
  }
  const wanted = Array.from({ length: completions }, (_, index): Seat => {
    const tasks = seats.get(String(index + 1))?.tasks ?? [];
    return { slot: index + 1, nodeId: '', nodeName: '', tasks, iteration: number };
  });
  return { wanted, opinions: [] };
}

type Stage =
  /** Some task of it does something, or is about to. */
  | { readonly at: 'busy' | 'done' }
  | { readonly at: 'failed'; readonly task: Task; readonly why: string }
  | { readonly at: 'open'; readonly failures: number; readonly startAfterMs: number; readonly why: string };

function stageOf({ service, now, mayReplace }: JobFacts, { revision }: Iteration, seat: Seat): Stage {
  if (seat.tasks.some(({ state }) => state === 'complete')) return { at: 'done' };
  if (seat.tasks.some(isGoingOn) || !absentOf(seat).every(mayReplace)) return { at: 'busy' };
  const latest = latestOf(seat);
  // Who was told to leave, or whose node was lost, has not used up an attempt.
  const failures = seat.tasks.filter(endedByItself);
  const open = { at: 'open', failures: failures.length, startAfterMs: 0 } as const;
  if (!latest) return { ...open, why: seat.slot > 0 ? 'a completion of the job' : 'one on every node' };
  if (!endedByItself(latest)) return { ...open, why: `replaces ${called(latest)}: ${latest.why || endOf(latest)}` };
  const tried = { ...seat, tasks: failures };
  const { restart: policy } = service.spec;
  // By the time of its end, so that a window which passes later changes nothing.
  const verdict = restart(tried, revision, policy, latest.stateAtMs);
  if (verdict.verdict === 'leave') return { at: 'failed', task: latest, why: verdict.why };
  const next = restart(tried, revision, policy, now);
  return next.verdict === 'start' ? { ...open, startAfterMs: next.startAfterMs, why: next.why } : { at: 'busy' };
}

/** It has not ended, as far as anybody hears. */
function isGoingOn(task: Task): boolean {
  return !isTerminal(task.state) && !isAbsent(task);
}

/** The iteration as its seats say it stands. */
function settle(facts: JobFacts, iteration: Iteration, stages: readonly Stage[]): Iteration {
  const ended = stages.every(({ at }) => at === 'done' || at === 'failed');
  // Where no node fits there is nothing to do, which is neither success nor news.
  if (stages.length === 0) return iteration;
  if (!ended) return isUnderWay(iteration) ? iteration : { ...iteration, state: 'running', finishedAtMs: 0 };
  if (!isUnderWay(iteration)) return iteration;
  const completed = stages.filter(({ at }) => at === 'done').length;
  const failures = stages.flatMap((stage) => (stage.at === 'failed' ? [stage.task] : []));
  const last = failures.reduce<Task | undefined>((a, b) => (a && a.stateAtMs > b.stateAtMs ? a : b), undefined);
  return {
    ...iteration,
    state: last ? 'failed' : 'complete',
    finishedAtMs: facts.now,
    completed,
    failed: failures.length,
    exitCode: last?.exitCode ?? 0,
    message: last ? `${called(last)} on ${last.nodeName || 'no node'}: ${endOf(last)}` : iteration.message,
  };
}

/** Tasks for what is open, as many as may run at once; who has failed least goes first. */
function fill(facts: JobFacts, iteration: Iteration, wanted: readonly Seat[]): Opinion[] {
  const { maxConcurrent } = facts.service.spec;
  const opinions: Opinion[] = [];
  const open: { readonly seat: Seat; readonly stage: Extract<Stage, { at: 'open' }> }[] = [];
  let busy = 0;
  for (const seat of wanted) {
    const stage = stageOf(facts, iteration, seat);
    if (stage.at === 'open') open.push({ seat, stage });
    busy += seat.tasks.filter(isGoingOn).length;
    // Where a node came back, two may do the same: who began first has done most of it.
    let doer = seat.tasks.find(({ state }) => state === 'complete');
    for (const task of activeOf(seat)) {
      const why = facts.leave(task) || (doer ? `${called(doer)} on ${doer.nodeName} does it` : '');
      if (why !== '') opinions.push({ kind: 'stop', task, why });
      else doer = task;
    }
  }
  const room = maxConcurrent === 0 ? open.length : Math.max(0, maxConcurrent - busy);
  open.sort((a, b) => a.stage.failures - b.stage.failures);
  for (const { seat, stage } of open.slice(0, room)) {
    const { startAfterMs, why } = stage;
    opinions.push({ kind: 'start', seat, revision: iteration.revision, startAfterMs, why });
  }
  return opinions;
}

/** Old tasks of an iteration: all but a few of one that has ended, all of one that is remembered no more. */
function reap(facts: JobFacts, job: Job, number: number, tasks: readonly Task[]) {
  const { service, now } = facts;
  const iteration = job.iterations.find((one) => one.number === number);
  const newest = job.iterations.findLast(({ state }) => state !== 'skipped');
  if (iteration && (isUnderWay(iteration) || (iteration === newest && isStanding(service, iteration)))) {
    const seats = facts.seatsOf(tasks);
    return reapTasks(service, seats.values(), new Set(seats.keys()), now, endedByItself);
  }
  const opinions: Opinion[] = [];
  let wakeAtMs = never;
  const ended = tasks.filter(({ state }) => isTerminal(state));
  // Failures say most, and the newest.
  ended.sort((a, b) => Number(a.state === 'complete') - Number(b.state === 'complete') || b.stateAtMs - a.stateAtMs);
  for (const task of ended.slice(iteration ? keptOfIteration : 0)) {
    const dueAtMs = task.stateAtMs + restMs;
    if (dueAtMs <= now) opinions.push({ kind: 'forget', task, why: 'old history' });
    else wakeAtMs = Math.min(wakeAtMs, dueAtMs);
  }
  return { opinions, wakeAtMs };
}
