/** Holds what a service says of its container to what a process in a real one sees; and limits that change under it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCgroups } from '#node-agent/runtime/cgroup.ts';
import { deviceNumber } from '#node-agent/runtime/devices.ts';
import type { ContainerRequest, Runtime } from '#node-agent/runtime/runtime.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { type Controls, noControls } from '#proto/model/controls.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import { type ContainerLab, containerLab, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';
import { stateOf } from './runtime-contract.ts';

let lab: ContainerLab;
let runtime: Runtime;
beforeAll(async () => {
  lab = await containerLab();
  runtime = await lab.open();
});
afterAll(() => lab.close());

const run = async (script: string, container: Partial<ContainerSpec> = {}, fields: Partial<ContainerRequest> = {}) => {
  const request = shellRequest(lab, script, container, fields);
  await runtime.create(request);
  await runtime.start(request.id);
  return request;
};
/** Lines of output of a container that runs to its end. */
const outputOf = async (script: string, ...more: [Partial<ContainerSpec>?, Partial<ContainerRequest>?]) => {
  const request = await run(script, ...more);
  await eventually(async () => (await stateOf(runtime, request.id))?.exit);
  const text = readFileSync(request.logPath, 'utf8');
  await runtime.delete(request.id);
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split(' ').slice(3).join(' '));
};
/** Files of the container's control groups, by their paths as version 1 has them or version 2. */
const groupOf = (id: TaskId, names: readonly string[]) => {
  const parent = lab.directory.slice(lab.directory.lastIndexOf('/') + 1);
  const pathOf = (name: string) =>
    version1
      ? join('/sys/fs/cgroup', name.slice(0, name.indexOf('.')), parent, id, name)
      : join('/sys/fs/cgroup', parent, id, name);
  return Object.fromEntries(names.map((name) => [name, readFileSync(pathOf(name), 'utf8').trim()]));
};
const disk = () => `/dev/${readdirSync('/sys/block').find((name) => /^(vd|sd|nvme|xvd)/.test(name)) ?? 'loop0'}`;
const version1 = findCgroups().version === 1;

describe('a container', () => {
  it('has its domain, its groups, its shared memory and its place among victims', async () => {
    const script =
      'hostname; cat /proc/sys/kernel/domainname; id -G; df -k /dev/shm | tail -1; cat /proc/self/oom_score_adj';
    const [host, domain, groups, shm, adj] = await outputOf(script, {
      domainname: 'example.com',
      groupAdd: ['shared', '77'],
      shmBytes: 8 << 20,
      oomScoreAdj: 300,
    });
    expect([host, domain, groups, adj]).toEqual(['web-1', 'example.com', '0 77 2000', '300']);
    expect(shm).toMatch(/^\S+\s+8192\s/);
  });

  it('has the namespaces of its host that it asks for, and no others', async () => {
    const script = 'for n in pid ipc uts cgroup mnt net; do readlink /proc/self/ns/$n; done';
    const own = await outputOf(script);
    const shared = await outputOf(script, { pid: 'host', ipc: 'host', uts: 'host', cgroup: 'host' });
    const ofHost = ['pid', 'ipc', 'uts', 'cgroup'].map((name) => readlinkSync(`/proc/self/ns/${name}`));
    expect(shared.slice(0, 4)).toEqual(ofHost);
    for (const name of own) expect(ofHost).not.toContain(name);
    expect((await outputOf('hostname; ls /proc | grep -c "^[0-9]"', { pid: 'host', uts: 'host' }))[0]).toBe(hostname());
  });

  it('sees the processes of another container', async () => {
    const first = await run('exec sleep 1000');
    const { pid } = (await stateOf(runtime, first.id))!;
    const seen = await outputOf('cat /proc/1/cmdline | tr "\\0" " "', {}, { pidNamespace: `/proc/${pid}/ns/pid` });
    expect(seen.join('')).toContain('sleep 1000');
    await runtime.delete(first.id);
  });

  it('may use the devices it was given, and only as it was allowed', async () => {
    const device = { source: '/dev/kmsg', target: '/dev/log-of-kernel', permissions: 'r' };
    const script =
      'test -c /dev/log-of-kernel && dd if=/dev/log-of-kernel of=/dev/null bs=8k count=1 2>/dev/null && echo read; ' +
      'echo x 2>/dev/null > /dev/log-of-kernel || echo refused';
    expect(await outputOf(script, { devices: [device], capAdd: ['SYSLOG'] })).toEqual(['read', 'refused']);
    const rules = [{ type: 'c', major: 1, minor: 11, permissions: 'rwm' }] as const;
    const make = 'mknod /tmp/k c 1 11 && dd if=/tmp/k of=/dev/null bs=8k count=1 2>/dev/null && echo read || echo no';
    expect(await outputOf(make, { deviceRules: rules, capAdd: ['MKNOD', 'SYSLOG'] })).toEqual(['read']);
    expect(await outputOf(`{ ${make}; } 2>/dev/null`, { capAdd: ['MKNOD', 'SYSLOG'] })).toEqual(['no']);
  });

  it('is not made where its node lacks a device, or AppArmor, that it asks for', async () => {
    const missing = shellRequest(lab, 'true', {
      devices: [{ source: '/dev/nothing', target: '/dev/x', permissions: 'r' }],
    });
    await expect(runtime.create(missing)).rejects.toMatchObject({
      code: 'precondition',
      message: 'device /dev/nothing is not there on this node',
    });
    const confined = runtime.create(shellRequest(lab, 'true', { apparmorProfile: 'no-such-profile' }));
    await expect(confined).rejects.toThrow(/AppArmor/);
  });

  it('is filtered by the seccomp profile of its own', async () => {
    const seccompProfile = JSON.stringify({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [
        { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 },
        { names: ['chmod', 'fchmodat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1, includes: { caps: ['CAP_SYS_ADMIN'] } },
      ],
    });
    const script = 'mkdir /tmp/a 2>/dev/null || echo no; chmod 777 /tmp && echo yes';
    expect(await outputOf(script, { seccompProfile })).toEqual(['no', 'yes']);
  });

  it('sees what is masked where it asks to', async () => {
    const script = 'cat /proc/timer_list | head -1 | grep -c Timer; mount | grep -c "/proc/.*ro,"';
    expect((await outputOf(script, { systemPathsUnconfined: true }))[1]).toBe('0');
    expect(Number((await outputOf(script))[1])).toBeGreaterThan(0);
  });

  it('writes no log where none is to be kept, and runs all the same', async () => {
    const request = await run('echo lost; exit 3', { logging: { driver: 'none', maxSizeBytes: 0 } });
    const state = await eventually(async () => {
      const state = await stateOf(runtime, request.id);
      return state?.exit ? state : undefined;
    });
    expect(state!.exit!.exitCode).toBe(3);
    expect(() => readFileSync(request.logPath)).toThrow('ENOENT');
    await runtime.delete(request.id);
  });

  it('has the options of its tmpfs', async () => {
    const mount = {
      type: 'tmpfs',
      source: 'tmpfs',
      target: '/scratch',
      readOnly: false,
      propagation: '',
      options: ['size=1m', 'mode=700', 'uid=1234', 'exec'],
    } as const;
    const script = 'stat -c "%u %a" /scratch; cp /bin/busybox /scratch/true 2>/dev/null; mount | grep /scratch';
    const [stat, options] = await outputOf(script, {}, { mounts: [mount] });
    expect(stat).toBe('1234 700');
    expect(options).not.toContain('noexec');
  });
});

describe('the control group of a container', () => {
  const controls = (fields: Partial<Controls>) => ({ ...noControls, ...fields });

  it('begins with what the service says', async () => {
    const rate = { path: disk(), kind: 'write_bps', rate: 1 << 20 } as const;
    const request = await run(
      'exec sleep 1000',
      {},
      {
        limits: { cpuMillis: 500, memoryBytes: 32 << 20, pids: 0, generic: [] },
        controls: controls({
          cpuShares: 512,
          cpuPeriodUs: 50_000,
          cpusetCpus: '0',
          memorySwapBytes: 48 << 20,
          ...(version1 && { memorySwappiness: 5, oomKillDisable: true }),
          blkioRates: [rate],
        }),
      },
    );
    const { id } = request;
    const device = deviceNumber(rate.path);
    const held = version1
      ? {
          'cpu.shares': '512',
          'cpu.cfs_quota_us': '25000',
          'cpuset.cpus': '0',
          'memory.memsw.limit_in_bytes': String(48 << 20),
          'memory.swappiness': '5',
          'blkio.throttle.write_bps_device': `${device} 1048576`,
        }
      : {
          'cpu.weight': '20',
          'cpu.max': '25000 50000',
          'cpuset.cpus': '0',
          'memory.swap.max': String(16 << 20),
          'io.max': `${device} rbps=max wbps=1048576 riops=max wiops=max`,
        };
    expect(groupOf(id, Object.keys(held))).toEqual(held);
    await runtime.updateLimits(id, { limits: noResources, controls: noControls });
    const free = version1
      ? { 'cpu.shares': '1024', 'cpu.cfs_quota_us': '-1', 'blkio.throttle.write_bps_device': '' }
      : { 'cpu.weight': '100', 'cpu.max': 'max 100000', 'io.max': '' };
    expect(groupOf(id, Object.keys(free))).toEqual(free);
    expect(groupOf(id, ['cpuset.cpus'])).not.toEqual({ 'cpuset.cpus': '0' });
    await runtime.delete(id);
  });

  it('says what its kernel has not', async () => {
    const weighed = shellRequest(lab, 'true', {}, { controls: controls({ blkioWeight: 200 }) });
    const outcome = await runtime.create(weighed).then(
      () => 'made',
      (fault) => fault.code,
    );
    expect(['made', 'unsupported']).toContain(outcome);
    await runtime.delete(weighed.id);
  });
});

describe('limits that change', () => {
  /** Cores used in the next second. */
  const coresOf = async (id: TaskId) => {
    const [before, at] = [await runtime.stats(id), systemClock.monotonic()];
    await eventually(() => systemClock.monotonic() - at >= 1_000);
    const after = await runtime.stats(id);
    return (after.cpuSeconds - before.cpuSeconds) / ((systemClock.monotonic() - at) / 1_000);
  };

  it('slow down the same process, also after the agent was restarted', async () => {
    const limits = (cpuMillis: number) => ({ limits: { ...noResources, cpuMillis }, controls: noControls });
    const request = await run('while :; do :; done', {}, limits(400));
    const before = await stateOf(runtime, request.id);
    const fast = await coresOf(request.id);
    expect(fast).toBeGreaterThan(0.15);
    expect(fast).toBeLessThan(0.5);
    await runtime.updateLimits(request.id, limits(100));
    expect(await coresOf(request.id)).toBeLessThan(0.15);
    await runtime.close();
    runtime = await lab.open();
    const after = await stateOf(runtime, request.id);
    expect(after).toMatchObject({ pid: before!.pid, status: 'running', settings: limits(100) });
    expect(await coresOf(request.id)).toBeLessThan(0.15);
    await runtime.delete(request.id);
  });

  it('below the memory in use are refused in words, and the process goes on under those of before', async () => {
    const memory = (bytes: number) => ({ limits: { ...noResources, memoryBytes: bytes }, controls: noControls });
    const script = 'dd if=/dev/zero of=/dev/shm/held bs=1M count=30 2>/dev/null; echo held; exec sleep 1000';
    const request = await run(script, {}, memory(64 << 20));
    await eventually(async () => (await runtime.stats(request.id)).memoryBytes > 30 << 20);
    await expect(runtime.updateLimits(request.id, memory(16 << 20))).rejects.toMatchObject({
      code: 'exhausted',
      message: expect.stringMatching(/^\d+ bytes of memory are in use, more than the new limit of 16777216$/),
    });
    const state = await stateOf(runtime, request.id);
    expect(state).toMatchObject({ status: 'running', settings: memory(64 << 20) });
    await runtime.updateLimits(request.id, memory(48 << 20));
    expect((await runtime.stats(request.id)).memoryLimitBytes).toBe(48 << 20);
    await runtime.delete(request.id);
  });
});
