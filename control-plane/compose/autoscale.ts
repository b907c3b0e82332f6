/** `x-autoscale`: between how many tasks a service moves, and by what. */
import { isFault } from '#proto/kernel/errors.ts';
import { type Autoscale, autoscaleDefaults, maySleep, type ScalingPace } from '#proto/model/autoscale.ts';
import { Zones } from '#proto/model/calendar.ts';
import { limits } from '#proto/model/validate.ts';
import { type Findings, refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readDuration, readInteger, readKeys, readText } from './read.ts';
import type { Tree } from './tree.ts';

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

export function readAutoscale(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const value: Mutable<Autoscale> = {
    ...autoscaleDefaults,
    min: 1,
    max: 0,
    cpuPercent: 0,
    memoryPercent: 0,
    requestsPerSecond: 0,
    schedule: [],
  };
  let idle: Tree | undefined;
  let schedule: readonly Entry[] = [];
  readKeys(findings, tree, 'x-autoscale', value, {
    min: (autoscale, value) => {
      autoscale.min = readInteger(findings, value, 0, limits.replicas) ?? 1;
    },
    max: (autoscale, value) => {
      autoscale.max = readInteger(findings, value, 1, limits.replicas) ?? 1;
    },
    cpu: (autoscale, value) => {
      autoscale.cpuPercent = readPercent(findings, value) ?? 0;
    },
    memory: (autoscale, value) => {
      autoscale.memoryPercent = readPercent(findings, value) ?? 0;
    },
    requests: (autoscale, value) => {
      autoscale.requestsPerSecond = readRate(findings, value) ?? 0;
    },
    idle: (autoscale, value) => {
      autoscale.idleMs = readTime(draft, value) ?? autoscaleDefaults.idleMs;
      idle = value;
    },
    hold: (autoscale, value) => {
      autoscale.holdMs = readTime(draft, value) ?? autoscaleDefaults.holdMs;
      idle = value;
    },
    schedule: (_, value) => {
      schedule = readSchedule(findings, value);
    },
    up: (autoscale, value) => {
      autoscale.up = readPace(findings, value, 'up', autoscaleDefaults.up);
    },
    down: (autoscale, value) => {
      autoscale.down = readPace(findings, value, 'down', autoscaleDefaults.down);
    },
  });
  value.schedule = schedule.map(({ min = value.min, max = value.max, ...entry }) => ({ ...entry, min, max }));
  if (idle && !maySleep(value))
    refuse(findings, idle, 'it always has a task: nobody waits for one', 'write min: 0, or remove this');
  if (value.max === 0) refuse(findings, tree, 'x-autoscale needs max', 'write max: and, where it is not 1, min:');
  else draft.autoscale = { value, place: tree };
}

/** A range where what it does not say is not filled in yet. */
interface Entry {
  cron: string;
  timezone: string;
  min?: number | undefined;
  max?: number | undefined;
}

function readSchedule(findings: Findings, tree: Tree): readonly Entry[] {
  if (tree.kind !== 'list')
    return refuse(findings, tree, 'schedule must be a list', 'write - { cron: "0 8 * * 1-5", min: 4 }') ?? [];
  return tree.items.map((item) => {
    const entry: Entry = { cron: '', timezone: '' };
    readKeys(findings, item, 'an entry of schedule', entry, {
      cron: (entry, value) => {
        entry.cron = readText(findings, value, 'a cron expression') ?? '';
      },
      timezone: (entry, value) => {
        entry.timezone = readText(findings, value, 'a time zone such as Europe/Berlin') ?? '';
      },
      min: (entry, value) => {
        entry.min = readInteger(findings, value, 0, limits.replicas);
      },
      max: (entry, value) => {
        entry.max = readInteger(findings, value, 1, limits.replicas);
      },
    });
    if (item.kind === 'map') checkEntry(findings, item, entry);
    return entry;
  });
}

function checkEntry(findings: Findings, tree: Tree, { cron, timezone }: Entry): void {
  if (cron === '') {
    refuse(findings, tree, 'this entry does not say when', 'add cron: "0 8 * * 1-5"');
    return;
  }
  try {
    new Zones().calendar(cron, timezone);
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    refuse(findings, tree, error.message, error.remedy ?? 'write cron: "0 8 * * 1-5"');
  }
}

/** Longer than a second: shorter, it would sleep and wake between two looks. */
function readTime({ findings }: Draft, tree: Tree): number | undefined {
  const ms = readDuration(findings, tree);
  if (ms === undefined || (ms >= 1_000 && ms <= limits.idleMs)) return ms;
  return refuse(findings, tree, 'this is too short, or too long', 'write 1s to 24h');
}

function readPace(findings: Findings, tree: Tree, name: string, absent: ScalingPace): ScalingPace {
  const pace: Mutable<ScalingPace> = { ...absent };
  readKeys(findings, tree, name, pace, {
    stabilization: (pace, value) => {
      pace.stabilizationMs = readDuration(findings, value) ?? 0;
    },
    step: (pace, value) => {
      const [, amount, percent] = /^([1-9]\d{0,4})\s*(%?)$/.exec(value.kind === 'scalar' ? value.source : '') ?? [];
      if (amount === undefined)
        refuse(findings, value, 'this is not a step', 'write tasks, such as 4, or percent, such as 50%');
      else if (percent === '%') pace.stepPercent = Number(amount);
      else pace.stepTasks = Number(amount);
    },
  });
  return pace;
}

function readPercent(findings: Findings, tree: Tree): number | undefined {
  const text = readText(findings, tree, 'a percentage such as 70%') ?? '';
  const [, amount] = /^(\d{1,4}(?:\.\d+)?)\s*%$/.exec(text) ?? [];
  if (Number(amount) > 0) return Number(amount);
  return refuse(findings, tree, `"${text}" is not a percentage`, 'write a percentage above 0, such as 70%');
}

/** New connections a second. */
function readRate(findings: Findings, tree: Tree): number | undefined {
  const text = readText(findings, tree, 'a rate such as 50/s') ?? '';
  const [, amount, per] = /^(\d{1,9}(?:\.\d+)?)\s*\/\s*(s|m)$/.exec(text) ?? [];
  if (Number(amount) > 0) return Number(amount) / (per === 'm' ? 60 : 1);
  return refuse(findings, tree, `"${text}" is not a rate`, 'write requests a second or a minute, such as 50/s or 30/m');
}
