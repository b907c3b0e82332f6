/** `x-autoscale`: what it becomes, and what is refused with the place. */
import { describe, expect, it } from 'vitest';
import { bad, web } from '#test/support/compose.ts';

describe('x-autoscale', () => {
  it('becomes a range and what to go by, with defaults where it is silent', () => {
    const { autoscale } = web('x-autoscale: { max: 5, cpu: 70% }');
    expect(autoscale).toMatchObject({ min: 1, max: 5, cpuPercent: 70, memoryPercent: 0, requestsPerSecond: 0 });
    expect(autoscale?.up).toEqual({ stabilizationMs: 0, stepTasks: 0, stepPercent: 0 });
    expect(autoscale?.down).toEqual({ stabilizationMs: 60_000, stepTasks: 0, stepPercent: 0 });
  });

  it('takes rates by the second and by the minute, and a pace each way', () => {
    const { autoscale } = web(`
mem_limit: 64m
x-autoscale:
  min: 2
  max: 20
  memory: 80.5%
  requests: 30/m
  up: { stabilization: 10s, step: 4 }
  down: { stabilization: 5m, step: 50% }`);
    expect(autoscale).toMatchObject({
      min: 2,
      max: 20,
      memoryPercent: 80.5,
      requestsPerSecond: 0.5,
      up: { stabilizationMs: 10_000, stepTasks: 4, stepPercent: 0 },
      down: { stabilizationMs: 300_000, stepTasks: 0, stepPercent: 50 },
    });
  });

  it('may go to none, and says for how long nobody calls and somebody waits', () => {
    expect(web('x-autoscale: { min: 0, max: 3 }').autoscale).toMatchObject({ min: 0, idleMs: 60_000, holdMs: 30_000 });
    const { autoscale } = web('x-autoscale: { min: 0, max: 3, idle: 5m, hold: 10s }');
    expect(autoscale).toMatchObject({ idleMs: 300_000, holdMs: 10_000 });
  });

  it('has other bounds by a schedule, which are its own where the entry is silent', () => {
    const { autoscale } = web(`
x-autoscale:
  schedule:
    - { cron: "0 8 * * 1-5", timezone: Europe/Berlin, min: 4, max: 20 }
    - { cron: "@midnight", min: 0 }
  min: 2
  max: 9
  cpu: 70%
  idle: 5m`);
    expect(autoscale).toMatchObject({ min: 2, max: 9, idleMs: 300_000 });
    expect(autoscale?.schedule).toEqual([
      { cron: '0 8 * * 1-5', timezone: 'Europe/Berlin', min: 4, max: 20 },
      { cron: '@midnight', timezone: '', min: 0, max: 9 },
    ]);
  });

  it('is absent where nothing is said', () => {
    expect(web('').autoscale).toBeUndefined();
  });

  it.each([
    ['x-autoscale: { cpu: 70% }', 'x-autoscale needs max'],
    ['x-autoscale: { max: 5, min: 6, cpu: 70% }', 'from 6 to 5 is no range'],
    ['x-autoscale: { max: 5, cpu: 70 }', '"70" is not a percentage'],
    ['x-autoscale: { max: 5, cpu: 0% }', '"0%" is not a percentage'],
    ['x-autoscale: { max: 5, requests: 50 }', '"50" is not a rate'],
    ['x-autoscale: { max: 5, memory: 80% }', 'nothing says how much'],
    ['x-autoscale: { max: 5, requests: 5/s }\ndeploy: { endpoint_mode: dnsrr }', 'nobody counts them'],
    ['x-autoscale: { max: 5, cpu: 70% }\ndeploy: { mode: global }', 'mode global has no number of replicas'],
    ['x-autoscale: { max: 5, cpu: 70%, up: { step: 0 } }', 'this is not a step'],
    ['x-autoscale: { max: 5, cpus: 70% }', 'unknown key "cpus"'],
    ['x-autoscale: { max: 5, idle: 5m }', 'it always has a task'],
    ['x-autoscale: { min: 0, max: 5, idle: 10ms }', 'too short'],
    ['x-autoscale: { min: 0, max: 5 }\ndeploy: { endpoint_mode: dnsrr }', 'nobody counts them'],
    ['x-autoscale: { max: 5, schedule: [{ min: 2 }] }', 'does not say when'],
    ['x-autoscale: { max: 5, schedule: [{ cron: "99 8 * * *" }] }', 'minute'],
    ['x-autoscale: { max: 5, schedule: [{ cron: "@daily", timezone: Nowhere }] }', 'is no time zone'],
    ['x-autoscale: { max: 5, schedule: [{ cron: "@daily", min: 7 }] }', 'from 7 to 5 is no range'],
    ['x-autoscale: { max: 5, schedule: daily }', 'must be a list'],
    ['x-autoscale: { max: 20000, cpu: 70% }', 'a whole number from 1 to 10000'],
  ])('refuses %s', (lines, message) => {
    const errors = bad(lines);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatch(/^compose\.yaml:4:\d+ services\.web\.x-autoscale/);
    expect(errors[0]).toContain(message);
    expect(errors[0]).toMatch(/ → ./);
  });
});
