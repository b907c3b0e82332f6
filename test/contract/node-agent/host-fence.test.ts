/** Singletons end with the lease on a real machine, whoever else has died: guards, control groups, signals. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { marginMs } from '#control-plane/reconcilers/fence.ts';
import { type Cgroups, findCgroups } from '#node-agent/runtime/cgroup.ts';
import { startTicksOf } from '#node-agent/runtime/processes.ts';
import { hostFence } from '#node-agent/watchdog/host-fence.ts';
import { type LeaseFile, openLease } from '#node-agent/watchdog/lease-file.ts';
import { armedIn } from '#node-agent/watchdog/overdue.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import { idOf } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

const parent = `/gantry-fence-${process.pid}`;
const groupOf = (task: TaskId) => `${parent}/${task}`;
const id = taskId(idOf('db'));
const bootId = 'boot-1';

let directory: string;
let cgroups: Cgroups;
let lease: LeaseFile;
let fence: ReturnType<typeof open>;

const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
/** As this machine has them, and version 2 alone where that is mounted too. */
const versions = [mounts, mounts.replace(/.* - cgroup .*\n/g, '')].filter((text) => text.includes(' - cgroup'));

function prepare(mountinfo: string): void {
  directory = mkdtempSync(join(tmpdir(), 'fence-'));
  cgroups = findCgroups(mountinfo);
  lease = openLease(directory, bootId);
  fence = open();
}

afterEach(async () => {
  fence.close();
  await fence.empty(id);
  // Guards end with it; one that a test has stopped cannot.
  for (const pid of guards.splice(0)) if (startTicksOf(pid) !== undefined) process.kill(pid, 'SIGKILL');
  rmSync(directory, { recursive: true, force: true });
  await eventually(() => cgroups.remove(parent));
});

/** Before then nobody else runs it (what this test sees late is not what happened late, on a busy machine). */
const fencedAt = (untilMs: number) => untilMs + marginMs;

function open() {
  return hostFence({ clock: systemClock, log: silentLog, cgroups, groupOf, lease, bootId, directory });
}

/** Two processes of a container that may ignore SIGTERM; the pid of the first, which begins the other only in the container's group. */
async function container(ignores: boolean): Promise<number> {
  const script = `read; ${ignores ? "trap '' TERM; " : ''}sleep 1000 & while kill -0 $!; do wait; done`;
  const { pid, stdin } = spawn('bash', ['--norc', '-c', script], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  await eventually(() => startTicksOf(pid!) !== undefined);
  // As the OCI runtimes do: into the group of every hierarchy, of which these two count here.
  const freezer = cgroups.freezer(groupOf(id));
  for (const group of new Set([freezer, freezer.replace('/freezer/', '/pids/')])) {
    mkdirSync(group, { recursive: true });
    writeFileSync(join(group, 'cgroup.procs'), String(pid));
  }
  stdin!.end('\n');
  await eventually(() => members().length === 2);
  return pid!;
}

const members = () => cgroups.processes(groupOf(id));
const guards: number[] = [];
const guard = () => {
  const { guardPid } = JSON.parse(readFileSync(join(directory, id), 'utf8')) as { guardPid: number };
  guards.push(guardPid);
  return guardPid;
};
const in_ = (ms: number) => systemClock.boottime() + ms;

describe.each([...new Set(versions)].map((mountinfo) => ({ mountinfo, version: findCgroups(mountinfo).version })))(
  'a singleton, with control groups of version $version',
  ({ mountinfo }) => {
    beforeEach(() => prepare(mountinfo));

    it('is not armed without a lease', async () => {
      const pid = await container(false);
      await expect(fence.arm(id, { pid, signal: 'SIGTERM' })).rejects.toThrow('this node holds no lease');
      expect(fence.mayBegin()).toBe(false);
    });

    it('lives while the lease is renewed, is asked to stop, and is killed before the lease ends', async () => {
      const pid = await container(true);
      lease.renew(in_(2_500));
      await fence.arm(id, { pid, signal: 'SIGTERM' });
      const untilMs = in_(2_500);
      lease.renew(untilMs);
      await eventually(() => fence.killed(id) !== undefined);
      expect(systemClock.boottime()).toBeGreaterThan(untilMs - 1_050);
      expect(members().length).toBeGreaterThan(0);
      await eventually(() => members().length === 0);
      expect(systemClock.boottime()).toBeLessThan(fencedAt(untilMs));
      expect(startTicksOf(pid)).toBeUndefined();
    });

    it('is killed by its guard though everybody else is dead', async () => {
      const pid = await container(true);
      lease.renew(in_(2_500));
      await fence.arm(id, { pid, signal: 'SIGTERM' });
      fence.close();
      const untilMs = lease.untilMs();
      await eventually(() => members().length === 0);
      expect(systemClock.boottime()).toBeLessThan(fencedAt(untilMs));
    });

    it('is killed without its guard', async () => {
      const pid = await container(true);
      lease.renew(in_(2_500));
      await fence.arm(id, { pid, signal: 'SIGTERM' });
      process.kill(guard(), 'SIGSTOP');
      const untilMs = lease.untilMs();
      await eventually(() => members().length === 0);
      expect(systemClock.boottime()).toBeLessThan(fencedAt(untilMs));
    });

    it('is killed without its guard where all that was written down is gone: there is no lease then', async () => {
      const pid = await container(true);
      lease.renew(in_(60_000));
      await fence.arm(id, { pid, signal: 'SIGTERM' });
      process.kill(guard(), 'SIGSTOP');
      rmSync(directory, { recursive: true });
      expect(armedIn(directory)).toEqual([]);
      await eventually(() => members().length === 0);
    });

    it('gets another guard when its own dies, also from an agent that comes after', async () => {
      const pid = await container(false);
      lease.renew(in_(60_000));
      await fence.arm(id, { pid, signal: 'SIGTERM' });
      const first = guard();
      process.kill(first, 'SIGKILL');
      await eventually(() => guard() !== first);
      const second = guard();
      fence.close();
      process.kill(second, 'SIGKILL');
      await eventually(() => startTicksOf(second) === undefined);
      fence = open();
      await eventually(() => guard() !== second && startTicksOf(guard()) !== undefined);
      expect(members().length).toBeGreaterThan(0);
      await fence.empty(id);
      expect(members()).toEqual([]);
      const third = guard();
      await eventually(() => startTicksOf(third) === undefined);
    });
  },
);

it('a lease of another boot of the machine is none', () => {
  prepare(mounts);
  openLease(directory, 'boot-0').renew(in_(60_000));
  expect(lease.untilMs()).toBe(0);
  lease.renew(in_(5_000));
  const untilMs = lease.untilMs();
  lease.renew(untilMs - 1_000);
  expect(lease.untilMs()).toBe(untilMs);
});
