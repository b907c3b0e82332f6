/** Probes over the network, made from within the network of a real process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectFrom } from '#net/host/task-socket.ts';
import { Prober } from '#node-agent/task/prober.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { HttpProbe } from '#proto/model/probe.ts';
import { defaults, type HealthCheck } from '#proto/model/service.ts';
import { endsWithTest } from '#test/support/process.ts';

let task: ChildProcess;
const exec = () => Promise.reject(new Error('nothing is spawned for a probe'));
const prober = new Prober({ clock: systemClock, runtime: { exec }, connectFrom });
const check = (fields: Partial<HealthCheck>): HealthCheck => ({
  ...defaults.healthCheck,
  test: [],
  timeoutMs: 400,
  ...fields,
});
const http = (path: string, fields: Partial<HttpProbe> = {}) =>
  check({ http: { port: 8080, path, scheme: 'http', statuses: [{ from: 200, to: 399 }], headers: {}, ...fields } });
const probe = (fields: HealthCheck, pid = task.pid!) =>
  prober.probe('t1' as TaskId, fields, { pid, address: '127.0.0.1' });

beforeAll(async () => {
  const program = new URL('../../support/probed-process.ts', import.meta.url).pathname;
  task = spawn('setpriv', [...endsWithTest, 'unshare', '--net', process.execPath, program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(task.stdout!, 'data');
});
afterAll(() => {
  task.kill('SIGKILL');
});

describe('a probe by HTTP', () => {
  it('is good where the status is one of those that are, and says what was answered', async () => {
    expect(await probe(http('/200'))).toMatchObject({
      ok: true,
      output: expect.stringMatching(/^GET \/200: 200 OK\nan/),
    });
    expect((await probe(http('/302'))).ok).toBe(true);
    const bad = await probe(http('/503'));
    expect(bad).toMatchObject({ ok: false, output: expect.stringMatching(/^GET \/503: 503 Service Unavailable/) });
    expect(bad.output.length).toBeLessThanOrEqual(4_096);
    expect((await probe(http('/503', { statuses: [{ from: 503, to: 503 }] }))).ok).toBe(true);
  });

  it('sends the headers that it is told to', async () => {
    const { output } = await probe(http('/who', { headers: { Host: 'shop.example' } }));
    expect(output).toBe('GET /who: 200 OK\nshop.example');
  });

  it('fails in its time where nothing comes, where nobody listens, and where it is not HTTP', async () => {
    const begun = performance.now();
    expect(await probe(http('/slow'))).toEqual({ ok: false, output: 'the check took longer than 0.4 s' });
    expect(performance.now() - begun).toBeLessThan(2_000);
    expect((await probe(http('/', { port: 8081 }))).output).toMatch(/ECONNREFUSED/);
    expect((await probe(http('/', { port: 9090 }))).ok).toBe(false);
    expect((await probe(http('/', { scheme: 'https' }))).ok).toBe(false);
  });
});

describe('a probe by TCP', () => {
  it('is good where a connection comes about', async () => {
    expect((await probe(check({ tcp: { port: 7070 } }))).ok).toBe(true);
    expect((await probe(check({ tcp: { port: 7071 } }))).output).toMatch(/ECONNREFUSED/);
  });

  it('fails for a process that is no more', async () => {
    const { ok, output } = await probe(check({ tcp: { port: 7070 } }), 4_194_303);
    expect(ok).toBe(false);
    expect(output).toMatch(/no network namespace/);
  });
});

describe('a probe by gRPC', () => {
  it('is good where the service says that it serves', async () => {
    const grpc = (service: string, port = 9090) => probe(check({ grpc: { port, service } }));
    expect(await grpc('')).toEqual({ ok: true, output: 'the server is SERVING' });
    expect(await grpc('sick')).toEqual({ ok: false, output: 'service sick is NOT_SERVING' });
    expect(await grpc('other')).toEqual({ ok: false, output: 'service other: gRPC status 5, unknown service' });
    expect((await grpc('', 8080)).ok).toBe(false);
    expect(await grpc('', 7070)).toEqual({ ok: false, output: 'the check took longer than 0.4 s' });
  });
});

it('thousands of probes leave the event loop to others, and no descriptor behind', async () => {
  const { readdirSync } = await import('node:fs');
  const open = () => readdirSync('/proc/self/fd').length;
  await probe(check({ tcp: { port: 7070 } }));
  const before = open();
  let [probing, longest] = [true, 0];
  /** What one turn of the event loop computes at most, microseconds of the processor: how long it waits for one says what else the machine does. */
  const turn = (begun: NodeJS.CpuUsage) => {
    const { user, system } = process.threadCpuUsage(begun);
    longest = Math.max(longest, user + system);
    if (probing) setImmediate(turn, process.threadCpuUsage());
  };
  turn(process.threadCpuUsage());
  const results = await Promise.all(
    Array.from({ length: 2_000 }, () => probe(check({ tcp: { port: 7070 }, timeoutMs: 20_000 }))),
  );
  probing = false;
  expect(results.every(({ ok }) => ok)).toBe(true);
  expect(longest).toBeLessThan(250_000);
  await new Promise((resolve) => systemClock.after(100, () => resolve(undefined)));
  expect(open() - before).toBeLessThan(10);
});
