/** What an agent tells of its tasks and of calls, and how often. */
import { afterEach, describe, expect, it } from 'vitest';
import { type Measured, measuredOf, UsageReporter } from '#node-agent/usage.ts';
import type { UsageBatch } from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { type ServiceId, serviceId, taskId } from '#proto/model/ids.ts';
import { aTask, aTemplate } from '#test/support/builders.ts';
import { endpoint } from '#test/support/endpoint.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const reporters: UsageReporter[] = [];
afterEach(() => {
  for (const reporter of reporters.splice(0)) reporter.close();
});

function reporter(measured: readonly Measured[]) {
  const clock = new FakeClock();
  const cpuSeconds = new Map<string, number>();
  const calls = new Map<ServiceId, number>();
  const sent: UsageBatch[] = [];
  const asked: (readonly string[])[] = [];
  const stats = { memoryLimitBytes: 0, pids: 1, networkReceivedBytes: 0, networkSentBytes: 0 };
  reporters.push(
    new UsageReporter({
      clock,
      log: silentLog,
      runtime: {
        async stats(id) {
          const seconds = cpuSeconds.get(id);
          if (seconds === undefined) throw new Fault('not-found', 'it has ended');
          return { ...stats, cpuSeconds: seconds, memoryBytes: 4_096 };
        },
      },
      network: {
        async traffic() {
          const now = new Map(calls);
          calls.clear();
          return now;
        },
        async connections(addresses) {
          asked.push(addresses);
          return new Map(addresses.map((address) => [address, 2]));
        },
      },
      measured: () => measured,
      send: (batch) => sent.push(batch) > 0,
    }),
  );
  return { clock, cpuSeconds, calls, sent, asked };
}

describe('an agent', () => {
  it('tells what tasks have used since it last looked, from the second look on', async () => {
    const { clock, cpuSeconds, sent, asked } = reporter([{ id: taskId('a'), addresses: [] }]);
    cpuSeconds.set('a', 10);
    await clock.pass(2_100);
    expect(sent).toEqual([]);
    cpuSeconds.set('a', 11);
    await clock.pass(2_000);
    expect(sent).toEqual([
      { tasks: [{ taskId: 'a', cpuMillis: 500, memoryBytes: 4_096, connections: 0 }], services: [] },
    ]);
    expect(asked).toEqual([]);
  });

  it('passes over a task that has ended meanwhile, and counts open connections where that is asked', async () => {
    const { clock, cpuSeconds, sent } = reporter([
      { id: taskId('gone'), addresses: [] },
      { id: taskId('b'), addresses: ['10.192.1.2', '172.28.0.2'] },
    ]);
    cpuSeconds.set('b', 1);
    await clock.pass(4_100);
    expect(sent.at(-1)?.tasks).toEqual([{ taskId: 'b', cpuMillis: 0, memoryBytes: 4_096, connections: 4 }]);
  });

  it('tells of calls, and nothing where there is nothing to tell', async () => {
    const { clock, calls, sent } = reporter([]);
    await clock.pass(10_000);
    expect(sent).toEqual([]);
    calls.set(serviceId('s'), 7);
    await clock.pass(4_000);
    expect(sent).toEqual([{ tasks: [], services: [{ serviceId: 's', connections: 7 }] }]);
  });
});

it('measured are the running tasks of services that say so', () => {
  const wanted = (name: string) => {
    const task = aTask(name, { serviceId: serviceId(name), address: '10.192.1.2' });
    return { task, template: aTemplate(), imageDigest: '', links: [], removed: false };
  };
  const runner = (name: string, state: 'running' | 'starting') =>
    ({ status: { state }, wanted: wanted(name) }) as never;
  const endpoints = new Map([
    ['scaled', endpoint('scaled', { measured: true })],
    ['sleeper', endpoint('sleeper', { measured: true, holdMs: 1 })],
    ['other', endpoint('other')],
  ]);
  const runners = ['scaled', 'sleeper', 'other', 'unknown'].map((name) => runner(name, 'running'));
  const measured = measuredOf([...runners, runner('scaled', 'starting')], (id) => endpoints.get(id));
  expect(measured.map(({ addresses }) => addresses)).toEqual([[], ['10.192.1.2']]);
});
