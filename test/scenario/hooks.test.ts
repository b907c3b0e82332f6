/** Hooks of a task's life, over an agent and dispatch as in production. */
import { afterEach, expect, it } from 'vitest';
import type { Hook } from '#proto/model/hook.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { containerSpec } from '#proto/model/service.ts';
import { AgentLab } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

const hook = (...command: string[]): Hook => ({
  command,
  user: 'app',
  privileged: true,
  workingDir: '/x',
  env: ['A=1'],
});
const start = async (hooks: { postStart?: readonly Hook[]; preStop?: readonly Hook[] }) => {
  const container = containerSpec('web:1', { drainMs: 0, stopGracePeriodMs: 300, ...hooks });
  lab = await AgentLab.start(['h1'], { container });
  const host = lab.hosts[0]!;
  await host.start();
  const commands = () => host.runtime.execs.map(({ command }) => command.join(' '));
  return { host, commands };
};
const reaches = (id: TaskId, state: string) => eventually(() => lab.task(id).state === state);

it('post_start runs before the task counts as running, and not again when the agent is restarted', async () => {
  const { host, commands } = await start({ postStart: [hook('first'), hook('sleep')] });
  const id = await lab.assign(host, 't1');
  await eventually(() => commands().includes('sleep'));
  await reaches(id, 'starting');
  expect(host.runtime.execs[0]).toMatchObject({ user: 'app', privileged: true, workingDir: '/x', env: ['A=1'] });
  await host.stop();
  await host.start();
  // The one that was under way is begun again, the one that had ended is not.
  await eventually(() => commands().length === 3);
  expect(commands()).toEqual(['first', 'sleep', 'sleep']);
});

it('a post_start that fails ends the task as failed, with what it said', async () => {
  const { host } = await start({ postStart: [hook('first')] });
  host.runtime.execExitCode = 3;
  const id = await lab.assign(host, 't1');
  await reaches(id, 'failed');
  expect(lab.task(id).error).toBe('post_start: "first" ended with exit code 3');
  expect(host.runtime.signals).toEqual([{ id, signal: 'SIGTERM' }]);
});

it('pre_stop runs before the stop signal, and one that takes too long is ended', async () => {
  const { host, commands } = await start({ preStop: [hook('first'), hook('sleep')] });
  const id = await lab.assign(host, 't1');
  await reaches(id, 'running');
  await lab.edit(id, { wanted: 'shutdown' });
  await eventually(() => commands().length === 2);
  expect(host.runtime.signals).toEqual([]);
  await reaches(id, 'shutdown');
  expect(host.runtime.signals).toEqual([{ id, signal: 'SIGTERM' }]);
  expect(lab.task(id).error).toMatch(/^pre_stop: "sleep" took longer than 0\.\d+ s$/);
});
