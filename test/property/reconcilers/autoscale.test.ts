/** The autoscaler against a naive reading of its rules, and over time against loads that swing, rise and fall. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { autoscale, freshMemory, type Load } from '#control-plane/reconcilers/autoscale.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import type { Autoscale } from '#proto/model/autoscale.ts';
import { anAutoscale } from '#test/support/builders.ts';

const everyMs = 2_000;

/** `loadAt`: what all tasks together use, in percent of one; gives how many there were at each look. */
function follow(spec: Autoscale, begin: number, looks: number, loadAt: (look: number) => number): number[] {
  let current = begin;
  let memory = freshMemory(begin, 0);
  const history: number[] = [];
  for (let look = 0; look < looks; look++) {
    const mean = loadAt(look) / current;
    const tasks = Array.from({ length: current }, () => ({ ready: true, cpuPercent: mean, memoryPercent: undefined }));
    const load: Load = { tasks, requestsPerSecond: undefined, idleForMs: 0, calledAt: undefined };
    const next = autoscale(spec, { ...spec, cron: '' }, current, load, memory, (look + 1) * everyMs);
    memory = next.memory;
    current = next.replicas;
    history.push(current);
  }
  return history;
}

function changesOf(history: readonly number[]): number[] {
  return history.flatMap((replicas, look) => (look > 0 && replicas !== history[look - 1] ? [look] : []));
}

it('does not flap on a noisy signal: at most one change in a stabilisation window', () => {
  const noisy = fc.record({
    tasks: fc.integer({ min: 1, max: 9 }),
    amplitude: fc.double({ min: 0.05, max: 0.5, noNaN: true }),
    /** What is looked at is a mean of so many. */
    samples: fc.constantFrom(1, 4, 8),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(noisy, ({ tasks, amplitude, samples, seed }) => {
      const spec = anAutoscale({ max: 20 });
      const window = spec.down.stabilizationMs / everyMs;
      const random = seededRandom(seed);
      const recent: number[] = [];
      const history = follow(spec, tasks, 900, () => {
        recent.push(70 * tasks * (1 + ((random.int(2_001) - 1_000) / 1_000) * amplitude));
        if (recent.length > samples) recent.shift();
        return recent.reduce((sum, one) => sum + one, 0) / recent.length;
      });
      // It may have to find its place first.
      const changes = changesOf(history).filter((look) => look > window);
      expect(changes.length).toBeLessThanOrEqual(900 / window);
      if (amplitude > 0.25) return;
      for (const [index, look] of changes.entries())
        if (index > 0) expect(look - changes[index - 1]!).toBeGreaterThanOrEqual(window);
    }),
  );
});

it('follows a rise at once, and a fall within one window', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 20 }), (tasks) => {
      const spec = anAutoscale({ max: 20 });
      const window = spec.down.stabilizationMs / everyMs;
      const up = follow(spec, 1, 10, (look) => 70 * Math.min(tasks, 1 + look * tasks));
      expect(up[2]).toBeGreaterThanOrEqual(Math.floor(tasks / 1.1));
      const down = follow(spec, tasks, window + 5, () => 60);
      expect(down.at(-1)).toBe(1);
      expect(changesOf(down).every((look) => look >= window - 1)).toBe(true);
    }),
  );
});

it('is what a naive reading of the rules says, look by look', () => {
  const pace = fc.record({
    stabilizationMs: fc.constantFrom(0, 4_000, 30_000),
    stepTasks: fc.constantFrom(0, 1, 3),
    stepPercent: fc.constantFrom(0, 50, 100),
  });
  fc.assert(
    fc.property(
      pace,
      pace,
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 60 }),
      (up, down, begin, loads) => {
        const spec = anAutoscale({ cpuPercent: 0, requestsPerSecond: 10, min: 1, max: 12, up, down });
        let current = begin;
        let memory = freshMemory(begin, 0);
        const said = [{ atMs: 0, value: begin }];
        const moves: { atMs: number; by: number }[] = [];
        for (const [look, rate] of loads.entries()) {
          const nowMs = (look + 1) * everyMs;
          const load = { tasks: [], requestsPerSecond: rate, idleForMs: 0, calledAt: undefined };
          const next = autoscale(spec, { ...spec, cron: '' }, current, load, memory, nowMs);
          // The rules, without any economy.
          const ratio = rate / (10 * current);
          const asked = ratio > 1 ? Math.ceil(rate / 10) : Math.min(current, Math.ceil(rate / 9 - 1e-9));
          const raw = Math.min(12, Math.max(1, Math.abs(ratio - 1) <= 0.1 ? current : asked));
          said.push({ atMs: nowMs, value: raw });
          const of = (ms: number) =>
            said.filter(({ atMs }) => atMs === nowMs || atMs > nowMs - ms).map(({ value }) => value);
          const lowest = Math.min(...of(up.stabilizationMs));
          const highest = Math.max(...of(down.stabilizationMs));
          let wanted = current;
          if (wanted < lowest) wanted = lowest;
          if (wanted > highest) wanted = highest;
          const moved = (sign: number) =>
            moves.filter(({ atMs, by }) => atMs > nowMs - 15_000 && by * sign > 0).reduce((sum, { by }) => sum + by, 0);
          const most = ({ stepTasks, stepPercent }: typeof up, from: number) =>
            stepTasks + stepPercent === 0 ? 1e9 : Math.max(stepTasks, Math.ceil((from * stepPercent) / 100));
          if (wanted > current)
            wanted = Math.max(current, Math.min(wanted, current - moved(1) + most(up, current - moved(1))));
          else if (wanted < current)
            wanted = Math.min(current, Math.max(wanted, current - moved(-1) - most(down, current - moved(-1))));
          wanted = Math.min(12, Math.max(1, wanted));
          if (wanted !== current) moves.push({ atMs: nowMs, by: wanted - current });
          expect(next.replicas).toBe(wanted);
          memory = next.memory;
          current = next.replicas;
        }
      },
    ),
  );
});
