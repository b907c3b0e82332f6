/** The log files of a node's tasks, from the first line to the deletion of the file. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { type ShippedTaskLogs, taskLogs } from '#node-agent/task-logs.ts';
import { type Clock, sleepOn, systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { aCluster, aNode, aTask, aTemplate } from '#test/support/builders.ts';

const data = mkdtempSync(join(tmpdir(), 'gantry-task-logs-'));
let logs: ShippedTaskLogs;
afterEach(async () => {
  await logs.close();
  rmSync(data, { recursive: true, force: true });
});

/** Waits of seconds are a tenth by it. */
const hurried: Clock = {
  ...systemClock,
  after: (ms, action) => systemClock.after(ms / 10, action),
  sleep: (ms, signal) => sleepOn(hurried, ms, signal),
};
const assignment = { task: aTask('t1'), template: aTemplate(), imageDigest: '', links: [] };
const cluster = aCluster({ natsUrl: 'tls://127.0.0.1:1' });
const membership = { node: aNode('h1'), cluster };

it('a log that can never be read is deleted with its task all the same', async () => {
  logs = await taskLogs({
    clock: hurried,
    random: systemRandom,
    log: silentLog,
    data,
    reopen: async () => {},
    open: () => ({ publish: async () => {}, close: async () => {} }),
  });
  const { task } = assignment;
  const path = logs.path(task.id);
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(path, path);
  logs.follow(assignment, membership);
  await logs.drop(task.id);
  expect(existsSync(dirname(path))).toBe(false);
});
