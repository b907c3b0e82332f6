/** Unhealthy tasks that the control plane may isolate, over an agent and dispatch as in production. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { TaskId } from '#proto/model/ids.ts';
import { containerSpec, defaults } from '#proto/model/service.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

const healthCheck = {
  ...defaults.healthCheck,
  test: ['CMD-SHELL', 'true'],
  onUnhealthy: 'isolate',
  intervalMs: 20,
  startIntervalMs: 20,
  retries: 2,
} as const;

let lab: AgentLab;
let host: LabHost;
let id: TaskId;
beforeEach(async () => {
  lab = await AgentLab.start(['h1'], { container: containerSpec('web:1', { healthCheck, drainMs: 0 }) });
  host = lab.hosts[0]!;
  host.runtime.execExitCode = 1;
  await host.start();
  id = await lab.assign(host, 't1');
  await eventually(() => lab.task(id).health === 'unhealthy');
});
afterEach(() => lab.close());

const isServing = () => host.network.wanted?.endpoints[0]?.backends.some(({ serving }) => serving) ?? false;
const probes = () => host.runtime.execs.length;

it('one that is isolated runs on without calls, also when it gets well again and its agent is restarted', async () => {
  await lab.edit(id, { isolatedUntilMs: 1e15 });
  const { pid } = host.runtime.containers.get(id)!.state;
  await host.stop();
  await host.start();
  host.runtime.execExitCode = 0;
  await eventually(() => lab.task(id).health === 'healthy');
  expect(lab.task(id)).toMatchObject({ state: 'running', pid, isolatedUntilMs: 1e15 });
  expect(host.runtime.signals).toEqual([]);
  await eventually(() => host.network.wanted !== undefined);
  expect(isServing()).toBe(false);
  await lab.edit(id, { wanted: 'shutdown' });
  await eventually(() => lab.task(id).state === 'shutdown');
});

it('one that nobody has spoken of yet is asked on, and may get well', async () => {
  const before = probes();
  await eventually(() => probes() > before + 3);
  expect(lab.task(id).state).toBe('running');
  host.runtime.execExitCode = 0;
  await eventually(() => lab.task(id).health === 'healthy' && isServing());
});

it('one that is not to be isolated ends as any unhealthy one, also by an agent that was restarted', async () => {
  await host.stop();
  await lab.edit(id, { isolationRefused: true });
  await host.start();
  await eventually(() => lab.task(id).state === 'failed');
  expect(lab.task(id).error).toBe('unhealthy: the check exited with 1');
});
