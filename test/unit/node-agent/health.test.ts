/** Holds health checks to Docker's rules. */
import { describe, expect, it } from 'vitest';
import { healthCheckOf, nextHealth, nextProbeMs } from '#node-agent/task/health.ts';
import { commandOf } from '#node-agent/task/prober.ts';
import { containerSpec, defaults } from '#proto/model/service.ts';
import { plainConfig } from '#test/support/fake-images.ts';

const check = {
  ...defaults.healthCheck,
  test: ['CMD', 'ok'],
  intervalMs: 1_000,
  timeoutMs: 100,
  startPeriodMs: 500,
  startIntervalMs: 50,
  retries: 2,
};
const good = { ok: true, output: '' };
const bad = { ok: false, output: '' };

describe('a health check', () => {
  it("is the service's, else the image's, with Docker's defaults, unless switched off", () => {
    const image = { ...plainConfig, healthCheck: { ...check, intervalMs: 0 } };
    expect(healthCheckOf(containerSpec('a'), plainConfig)).toBeUndefined();
    expect(healthCheckOf(containerSpec('a'), image)).toMatchObject({ test: ['CMD', 'ok'], intervalMs: 30_000 });
    const none = containerSpec('a', { healthCheck: { ...check, test: ['NONE'] } });
    expect(healthCheckOf(none, image)).toBeUndefined();
    const timing = containerSpec('a', { healthCheck: { ...check, test: [], retries: 9 } });
    expect(healthCheckOf(timing, image)).toMatchObject({ test: ['CMD', 'ok'], retries: 9 });
  });

  it('runs a command as it is, and a line by the shell', () => {
    expect(commandOf(['CMD', 'a', 'b'])).toEqual(['a', 'b']);
    expect(commandOf(['CMD-SHELL', 'a | b'])).toEqual(['/bin/sh', '-c', 'a | b']);
  });

  it('counts failures in a row, but none within the start period', () => {
    const starting = { health: 'starting', failures: 0 } as const;
    expect(nextHealth(check, starting, bad, 499)).toEqual(starting);
    const once = nextHealth(check, starting, bad, 500);
    expect(once).toEqual({ health: 'starting', failures: 1 });
    expect(nextHealth(check, once, bad, 600).health).toBe('unhealthy');
    expect(nextHealth(check, once, good, 600)).toEqual({ health: 'healthy', failures: 0 });
    // Once healthy, the start period is over.
    expect(nextHealth(check, { health: 'healthy', failures: 1 }, bad, 100).health).toBe('unhealthy');
  });

  it('asks more often while it starts', () => {
    expect(nextProbeMs(check, { health: 'starting', failures: 0 }, 10)).toBe(50);
    expect(nextProbeMs(check, { health: 'healthy', failures: 0 }, 10)).toBe(1_000);
    expect(nextProbeMs(check, { health: 'starting', failures: 0 }, 500)).toBe(1_000);
  });
});
