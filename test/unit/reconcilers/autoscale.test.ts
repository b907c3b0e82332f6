/** The decider of autoscaling by example. */
import { describe, expect, it } from 'vitest';
import {
  autoscale,
  freshMemory,
  type Load,
  type ScalingMemory,
  type TaskLoad,
} from '#control-plane/reconcilers/autoscale.ts';
import type { Range } from '#control-plane/reconcilers/scheduled-range.ts';
import type { Autoscale } from '#proto/model/autoscale.ts';
import { anAutoscale } from '#test/support/builders.ts';

const second = 1_000;

function task(cpuPercent: number | undefined, fields: Partial<TaskLoad> = {}): TaskLoad {
  return { ready: true, cpuPercent, memoryPercent: undefined, ...fields };
}

function aLoad(fields: Partial<Load> = {}): Load {
  return { tasks: [], requestsPerSecond: undefined, idleForMs: 0, calledAt: undefined, ...fields };
}

/** One look at a service of `current` tasks, a long time after anything was decided. */
function look(
  spec: Autoscale,
  current: number,
  load: Partial<Load>,
  { memory = freshMemory(current, -1e9), range = { ...spec, cron: '' } as Range, nowMs = 0 } = {},
) {
  return autoscale(spec, range, current, aLoad(load), memory, nowMs);
}

describe('by what tasks use', () => {
  const spec = anAutoscale();

  it('asks for as many as would use what is aimed at', () => {
    const { replicas, why } = look(spec, 2, { tasks: [task(100), task(120)] });
    expect(replicas).toBe(4);
    expect(why).toBe('cpu 110 % of 70 %');
  });

  it('leaves alone what is within a tenth of it', () => {
    expect(look(spec, 2, { tasks: [task(76), task(77)] }).replicas).toBe(2);
    expect(look(spec, 2, { tasks: [task(64), task(64)] }).replicas).toBe(2);
  });

  it('asks for fewer, and never for less than the least', () => {
    expect(look(spec, 4, { tasks: [task(20), task(20), task(20), task(20)] }).replicas).toBe(2);
    expect(look({ ...spec, min: 3 }, 4, { tasks: [task(1), task(1), task(1), task(1)] }).replicas).toBe(3);
  });

  it('takes what is not measured to use nothing where more are asked for', () => {
    expect(look(spec, 3, { tasks: [task(140), task(140), task(undefined)] }).replicas).toBe(4);
  });

  it('takes what is not measured to use all where fewer are asked for', () => {
    expect(look(spec, 3, { tasks: [task(30), task(30), task(undefined)] }).replicas).toBe(3);
  });

  it('does not add more for tasks that are still starting', () => {
    const starting = task(500, { ready: false });
    expect(look(spec, 4, { tasks: [task(140), task(140), starting, starting] }).replicas).toBe(4);
  });

  it('changes nothing where nothing is measured', () => {
    expect(look(spec, 4, { tasks: [task(undefined), task(undefined)] }).replicas).toBe(4);
    expect(look(spec, 4, {}).replicas).toBe(4);
  });

  it('follows the measure that asks for most, and says which', () => {
    const both = { ...spec, memoryPercent: 50 };
    const tasks = [task(100, { memoryPercent: 150 })];
    expect(look(both, 1, { tasks })).toMatchObject({ replicas: 3, why: 'memory 150 % of 50 %' });
  });

  it('takes nothing away while one of its measures is not known', () => {
    const both = { ...spec, memoryPercent: 50 };
    expect(look(both, 4, { tasks: [task(10), task(10), task(10), task(10)] }).replicas).toBe(4);
    expect(look(both, 1, { tasks: [task(140)] }).replicas).toBe(2);
  });
});

describe('by requests', () => {
  const spec = anAutoscale({ cpuPercent: 0, requestsPerSecond: 50 });

  it('asks for as many as have their share of them', () => {
    expect(look(spec, 1, { requestsPerSecond: 220 })).toMatchObject({
      replicas: 5,
      why: '220 requests/s, 50 to a task',
    });
    expect(look(spec, 5, { requestsPerSecond: 60 }).replicas).toBe(2);
  });

  it('leaves alone what is within a tenth', () => {
    expect(look(spec, 4, { requestsPerSecond: 219 }).replicas).toBe(4);
  });
});

describe('the range', () => {
  const spec = anAutoscale();

  it('is kept at once, whatever was stabilised', () => {
    const memory = freshMemory(8, 0);
    expect(look(spec, 8, { tasks: [task(70)] }, { memory, range: { min: 1, max: 5, cron: '' } })).toMatchObject({
      replicas: 5,
      why: 'at most 5',
    });
    const more = { memory: freshMemory(2, 0), range: { min: 4, max: 9, cron: '' } };
    expect(look(spec, 2, { tasks: [task(70), task(70)] }, more)).toMatchObject({ replicas: 4, why: 'at least 4' });
  });

  it('alone says how many where nothing is measured', () => {
    const scheduled = anAutoscale({ cpuPercent: 0 });
    expect(look(scheduled, 2, {}, { range: { min: 6, max: 9, cron: '' } }).replicas).toBe(6);
  });
});

describe('stabilisation', () => {
  it('takes away only what was too much for all of the time', () => {
    const spec = anAutoscale({ down: { stabilizationMs: 60 * second, stepTasks: 0, stepPercent: 0 } });
    let memory = freshMemory(4, 0);
    let current = 4;
    const at = (nowMs: number, cpu: number) => {
      const tasks = Array.from({ length: current }, () => task(cpu));
      const next = autoscale(spec, { ...spec, cron: '' }, current, aLoad({ tasks }), memory, nowMs);
      memory = next.memory;
      current = next.replicas;
      return current;
    };
    expect(at(2 * second, 10)).toBe(4);
    expect(at(30 * second, 45)).toBe(4);
    // What was there at the begin is forgotten; 3 were asked for half a minute ago.
    expect(at(61 * second, 10)).toBe(3);
    expect(at(89 * second, 10)).toBe(3);
    expect(at(91 * second, 10)).toBe(1);
  });

  it('adds only what was asked for all of the time', () => {
    const spec = anAutoscale({ up: { stabilizationMs: 10 * second, stepTasks: 0, stepPercent: 0 } });
    const first = look(spec, 1, { tasks: [task(700)] }, { memory: freshMemory(1, 0), nowMs: 5 * second });
    expect(first.replicas).toBe(1);
    const second1 = look(spec, 1, { tasks: [task(200)] }, { memory: first.memory, nowMs: 11 * second });
    expect(second1.replicas).toBe(3);
  });

  it('of a new leader begins anew: nothing is taken away before a whole window has passed', () => {
    const spec = anAutoscale();
    const idle = { tasks: [task(1), task(1), task(1)] };
    const first = look(spec, 3, idle, { memory: freshMemory(3, 0), nowMs: 59 * second });
    expect(first.replicas).toBe(3);
    expect(look(spec, 3, idle, { memory: first.memory, nowMs: 60 * second }).replicas).toBe(1);
  });
});

describe('just after a change', () => {
  const spec = anAutoscale({ down: { stabilizationMs: 10 * second, stepTasks: 0, stepPercent: 0 } });
  const idle = (count: number) => ({ tasks: Array.from({ length: count }, () => task(5)) });
  const memory = { ...freshMemory(6, -11 * second), steps: [{ atMs: 0, value: -2 }] };

  it('what is not known yet is no recommendation to stay', () => {
    const unknown = { tasks: [task(5), task(undefined), task(undefined), task(undefined)] };
    const first = look(spec, 4, unknown, { memory, nowMs: 2 * second });
    expect(first).toEqual({ replicas: 4, why: '', memory });
    expect(look(spec, 4, idle(4), { memory: first.memory, nowMs: 4 * second }).replicas).toBe(1);
  });

  it('is over when they stay silent', () => {
    const unknown = { tasks: [task(undefined)] };
    const first = look(spec, 4, unknown, { memory, nowMs: 7 * second });
    expect(look(spec, 4, idle(4), { memory: first.memory, nowMs: 9 * second }).replicas).toBe(4);
  });
});

describe('the pace', () => {
  it('limits what is added within a quarter of a minute', () => {
    const spec = anAutoscale({ up: { stabilizationMs: 0, stepTasks: 2, stepPercent: 0 } });
    const first = look(spec, 1, { tasks: [task(700)] });
    expect(first.replicas).toBe(3);
    const hot = { tasks: [task(700), task(700), task(700)] };
    const soon = look(spec, 3, hot, { memory: first.memory, nowMs: 14 * second });
    expect(soon.replicas).toBe(3);
    expect(look(spec, 3, hot, { memory: soon.memory, nowMs: 15 * second }).replicas).toBe(5);
  });

  it('limits what is taken away, by percent of what there was', () => {
    const spec = anAutoscale({ down: { stabilizationMs: 0, stepTasks: 0, stepPercent: 50 } });
    const tasks = Array.from({ length: 8 }, () => task(1));
    expect(look(spec, 8, { tasks }).replicas).toBe(4);
  });
});

describe('to zero and back', () => {
  const spec = anAutoscale({ min: 0, cpuPercent: 0 });

  it('takes the last task away after a time without a request', () => {
    expect(look(spec, 1, { idleForMs: 59 * second }).replicas).toBe(1);
    expect(look(spec, 3, { idleForMs: 60 * second })).toMatchObject({ replicas: 0, why: 'no request for 60 s' });
  });

  it('never goes to zero where one is the least', () => {
    expect(look(anAutoscale({ min: 1 }), 1, { idleForMs: 1e9, tasks: [task(0)] }).replicas).toBe(1);
  });

  it('stays at zero until somebody calls, and says where', () => {
    expect(look(spec, 0, { idleForMs: 1e9, requestsPerSecond: 0 }).replicas).toBe(0);
    const woken = look(spec, 0, { calledAt: 'h2' });
    expect(woken).toMatchObject({ replicas: 1, why: 'a request arrived at h2' });
  });

  it('is woken by a range that wants some', () => {
    expect(look(spec, 0, {}, { range: { min: 2, max: 4, cron: '' } })).toMatchObject({
      replicas: 2,
      why: 'at least 2',
    });
  });

  it('keeps one while a request waits', () => {
    expect(look(spec, 1, { idleForMs: 1e9, calledAt: 'h1' }).replicas).toBe(1);
  });
});

it('remembers no more than it needs', () => {
  const spec = anAutoscale({ down: { stabilizationMs: 300 * second, stepTasks: 0, stepPercent: 0 } });
  let memory: ScalingMemory = freshMemory(5, 0);
  for (let turn = 1; turn < 1_000; turn++) {
    const tasks = [task(40 + (turn % 7) * 10)];
    memory = autoscale(spec, { ...spec, cron: '' }, 5, aLoad({ tasks }), memory, turn * 2 * second).memory;
  }
  expect(memory.highs.length + memory.lows.length + memory.steps.length).toBeLessThan(30);
});
