/** Health checks: a test, the image's, or a probe that the agent makes. */
import { describe, expect, it } from 'vitest';
import { defaults } from '#proto/model/service.ts';
import { bad, web } from '#test/support/compose.ts';

const checkOf = (lines: string) =>
  web(`healthcheck:\n${lines.replace(/^(?=.)/gm, '  ')}`).template.container.healthCheck;

describe('a health check', () => {
  it('keeps the test of the image, and its times where none are said', () => {
    expect(checkOf('interval: 3s\nretries: 5')).toMatchObject({
      test: [],
      intervalMs: 3_000,
      timeoutMs: 0,
      retries: 5,
    });
    expect(checkOf('x-on-unhealthy: ignore')).toMatchObject({ test: [], onUnhealthy: 'ignore', retries: 0 });
    expect(checkOf('disable: true')).toMatchObject({ test: ['NONE'] });
  });

  it('says what is isolated, and for how long', () => {
    const specOf = (action: string) => web(`healthcheck: { test: ls, x-on-unhealthy: ${action} }`);
    expect(specOf('isolate')).toMatchObject({
      isolation: { atMost: 1, forMs: 3_600_000 },
      template: { container: { healthCheck: { onUnhealthy: 'isolate' } } },
    });
    expect(specOf('{ action: isolate, at-most: 3, for: 10m }').isolation).toEqual({ atMost: 3, forMs: 600_000 });
    expect(specOf('replace').isolation).toEqual(defaults.isolation);
  });

  it('is a probe by HTTP', () => {
    expect(checkOf('x-http: { port: 80 }\ninterval: 1s')).toEqual({
      ...defaults.healthCheck,
      test: [],
      intervalMs: 1_000,
      http: { port: 80, path: '/', scheme: 'http', statuses: [{ from: 200, to: 399 }], headers: {} },
    });
    const all = '{ port: "8443", path: "/up?deep=1", scheme: https, status: [204, 300-302], headers: ["Host: a.b:1"] }';
    expect(checkOf(`x-http: ${all}`)?.http).toEqual({
      port: 8_443,
      path: '/up?deep=1',
      scheme: 'https',
      statuses: [
        { from: 204, to: 204 },
        { from: 300, to: 302 },
      ],
      headers: { Host: 'a.b:1' },
    });
  });

  it('is a probe by TCP or gRPC', () => {
    expect(checkOf('x-tcp: { port: 5432 }')?.tcp).toEqual({ port: 5_432 });
    expect(checkOf('x-grpc: { port: 50051 }')?.grpc).toEqual({ port: 50_051, service: '' });
    expect(checkOf('x-grpc: { port: 50051, service: shop.Cart }')?.grpc?.service).toBe('shop.Cart');
  });

  it.each([
    ['x-http: {}', '5:15 services.web.healthcheck.x-http: this probe has no port → add port:'],
    [
      'x-http: { port: 80, path: up }',
      '5:33 services.web.healthcheck.x-http.path: "up" is not a path → start it with /',
    ],
    ['x-http: { port: 80, status: 2xx }', '"2xx" is no status → write 200, or 200-299'],
    ['x-http: { port: 80, status: 300-200 }', '"300-200" is no status'],
    ['x-http: { port: 80, headers: ["a b: c"] }', '"a b" is not a header → write Name: value'],
    ['x-http: { port: 80, pth: / }', 'unknown key "pth" → did you mean "path"?'],
    ['x-tcp: { port: 70000 }', '70000 is not a whole number from 1 to 65535'],
    [
      'x-tcp: { port: 80 }\n  x-http: { port: 80 }',
      '6:15 services.web.healthcheck.x-http: x-http and x-tcp are two probes',
    ],
    ['x-tcp: { port: 80 }\n  test: ls', 'a test and a probe are two checks'],
    ['x-on-unhealthy: restart', '"restart" is not one of replace, ignore, isolate'],
    [
      'x-on-unhealthy: { action: isolate, at-most: 0 }',
      '5:51 services.web.healthcheck.x-on-unhealthy.at-most: 0 is not a whole number from 1 to 1000',
    ],
    [
      'x-on-unhealthy: { action: isolate, for: 10ms }',
      '5:47 services.web.healthcheck.x-on-unhealthy.for: nobody can look',
    ],
    ['x-on-unhealthy: { for: 1h }', 'it says how much is isolated, and nothing is → write action: isolate'],
    ['x-on-unhealthy: isolate\nrestart: "no"', 'isolated tasks are replaced, and its restart policy begins none again'],
    [
      'x-on-unhealthy: isolate\nx-failover: singleton',
      'a singleton has one task, and an isolated one would be a second',
    ],
    ['x-on-unhealthy: isolate\nx-schedule: "@daily"', 'tasks of a job are not isolated'],
    ['test: ls\n  interval: 0s', 'interval and timeout must be longer than 0'],
  ])('refuses %s', (lines, message) => {
    expect(bad(`healthcheck:\n  ${lines}`).join('\n')).toContain(message);
  });
});
