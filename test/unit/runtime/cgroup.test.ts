/** Both versions of control groups, over a tree of plain files. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCgroups } from '#node-agent/runtime/cgroup.ts';
import { type Controls, noControls } from '#proto/model/controls.ts';
import type { Resources } from '#proto/model/resources.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gantry-cgroup-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const put = (path: string, files: Readonly<Record<string, string>>) => {
  mkdirSync(join(root, path), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, path, name), text);
};
const get = (path: string) => readFileSync(join(root, path), 'utf8');
const limits = { cpuMillis: 500, memoryBytes: 1 << 20, pids: 7, generic: [] };
const none = { cpuMillis: 0, memoryBytes: 0, pids: 0, generic: [] };
const set = (amounts: Resources, controls: Partial<Controls> = {}) => ({
  limits: amounts,
  controls: { ...noControls, ...controls },
});
const number = (path: string) => (path === '/dev/vda' ? '254:0' : '8:16');

describe('control groups, version 2', () => {
  const groups = (own = '0::/system.slice/agent') =>
    findCgroups(`30 1 0:26 / ${root} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate`, () => own);
  beforeEach(() =>
    put('gantry/t', {
      'cgroup.procs': '11\n12\n',
      'cpu.stat': 'usage_usec 2500000\nuser_usec 1\n',
      'cpu.max': '',
      'memory.current': '9000',
      'memory.max': 'max\n',
      'memory.swap.max': '',
      'memory.stat': 'anon 1\ninactive_file 1000\n',
      'memory.events': 'low 0\noom 1\noom_kill 2\n',
      'pids.current': '3',
      'pids.max': '',
    }),
  );

  it('are measured without the cache that could go', () => {
    expect(groups().version).toBe(2);
    expect(groups().usage('/gantry/t')).toEqual({ cpuSeconds: 2.5, memoryBytes: 8000, memoryLimitBytes: 0, pids: 3 });
    expect(groups().oomKills('/gantry/t')).toBe(2);
    expect(groups().processes('/gantry/t')).toEqual([11, 12]);
  });

  it('are limited, and freed of limits', () => {
    groups().setLimits('/gantry/t', set(limits), number);
    expect(['cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'].map((file) => get(`gantry/t/${file}`))).toEqual([
      '50000 100000',
      '1048576',
      '0',
      '7',
    ]);
    groups().setLimits('/gantry/t', set(none), number);
    expect(['cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'].map((file) => get(`gantry/t/${file}`))).toEqual([
      'max 100000',
      'max',
      'max',
      '4096',
    ]);
  });

  it('refuse a limit below what is used, and change nothing', () => {
    expect(() => groups().setLimits('/gantry/t', set({ ...limits, memoryBytes: 7999 }), number)).toThrow(
      expect.objectContaining({ code: 'exhausted' }),
    );
    expect(get('gantry/t/cpu.max')).toBe('');
    expect(get('gantry/t/memory.max')).toBe('max\n');
  });

  it('have weights, processors, swap and rates of disks, and lose them again', () => {
    put('gantry/t', {
      'cpu.weight': '100',
      'cpuset.cpus': '',
      'io.weight': 'default 100\n8:16 10\n',
      'io.max': '8:16 rbps=5 wbps=max riops=max wiops=max\n',
    });
    const controls = {
      cpuShares: 512,
      cpusetCpus: '0-1',
      cpuPeriodUs: 50_000,
      memorySwapBytes: 3 << 20,
      blkioWeight: 500,
      blkioRates: [
        { path: '/dev/vda', kind: 'write_bps', rate: 1000 },
        { path: '/dev/vda', kind: 'read_iops', rate: 7 },
      ],
    } as const;
    groups().setLimits('/gantry/t', set(limits, controls), number);
    expect(get('gantry/t/cpu.max')).toBe('25000 50000');
    expect(get('gantry/t/cpu.weight')).toBe('20');
    expect(get('gantry/t/cpuset.cpus')).toBe('0-1');
    expect(get('gantry/t/memory.swap.max')).toBe(String(2 << 20));
    expect(get('gantry/t/io.weight')).toBe('8:16 default');
    // The file of a kernel keeps each line; this one has the last.
    expect(get('gantry/t/io.max')).toBe('254:0 rbps=max wbps=1000 riops=7 wiops=max');
    groups().setLimits('/gantry/t', set(limits), number);
    expect(get('gantry/t/cpu.weight')).toBe('100');
    expect(get('gantry/t/cpuset.cpus')).toBe('\n');
    expect(get('gantry/t/io.max')).toBe('254:0 rbps=max wbps=max riops=max wiops=max');
  });

  it('know nothing of what only version 1 has', () => {
    expect(groups().lacking({ ...noControls, memorySwappiness: 0 })?.message).toContain('mem_swappiness');
    expect(groups().lacking({ ...noControls, oomKillDisable: true })?.message).toContain('oom_kill_disable');
    expect(groups().lacking(noControls)).toBeUndefined();
  });

  it('are killed as a whole', () => {
    put('gantry/t', { 'cgroup.kill': '' });
    groups().kill('/gantry/t');
    expect(get('gantry/t/cgroup.kill')).toBe('1');
  });

  it('are not there for a container that has ended', () => {
    expect(() => groups().usage('/gantry/gone')).toThrow(expect.objectContaining({ code: 'not-found' }));
    expect(groups().processes('/gantry/gone')).toEqual([]);
    expect(groups().remove('/gantry/gone')).toBe(true);
  });

  it('take a process in, made where they are missing', async () => {
    await groups().adopt('/gantry/conmon', 99);
    expect(get('gantry/conmon/cgroup.procs')).toBe('99');
  });

  it('leave a process in the root group', async () => {
    await groups('0::/\n').adopt('/gantry/conmon', 99);
    expect(() => get('gantry/conmon/cgroup.procs')).toThrow('ENOENT');
  });
});

describe('control groups, version 1', () => {
  const mountinfo = () =>
    [
      `31 30 0:27 / ${root}/cpu rw - cgroup cgroup rw,cpu`,
      `31 30 0:27 / ${root}/cpuacct rw - cgroup cgroup rw,cpuacct`,
      `32 30 0:28 / ${root}/memory rw - cgroup cgroup rw,memory`,
      `36 30 0:36 / ${root}/cpuset rw - cgroup cgroup rw,cpuset`,
      `37 30 0:37 / ${root}/blkio rw - cgroup cgroup rw,blkio`,
      `33 30 0:29 / ${root}/pids rw - cgroup cgroup rw,pids`,
      `34 30 0:30 / ${root}/systemd rw - cgroup cgroup rw,name=systemd`,
      `35 30 0:31 / ${root}/unified rw - cgroup2 cgroup2 rw`,
    ].join('\n');
  const groups = (own = '5:cpu,cpuacct:/a\n4:memory:/a\n3:pids:/a\n1:name=systemd:/a\n0::/a') =>
    findCgroups(mountinfo(), () => own);
  beforeEach(() => {
    put('memory', { 'memory.memsw.limit_in_bytes': '0' });
    put('memory/gantry/t', {
      'memory.usage_in_bytes': '9000\n',
      'memory.limit_in_bytes': '9223372036854771712\n',
      'memory.memsw.limit_in_bytes': '',
      'memory.stat': 'cache 1\ntotal_inactive_file 1000\n',
      'memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n',
    });
    put('cpuacct/gantry/t', { 'cpuacct.usage': '1500000000\n' });
    put('cpu/gantry/t', { 'cpu.cfs_quota_us': '', 'cpu.cfs_period_us': '' });
    put('pids/gantry/t', { 'pids.current': '4\n', 'pids.max': '', 'cgroup.procs': '5\n' });
  });

  it('are used where they hold the controllers, also beside version 2', () => {
    expect(groups().version).toBe(1);
    expect(groups().swapLimit).toBe(true);
    expect(groups().usage('/gantry/t')).toEqual({ cpuSeconds: 1.5, memoryBytes: 8000, memoryLimitBytes: 0, pids: 4 });
    expect(groups().oomKills('/gantry/t')).toBe(1);
  });

  it('are limited', () => {
    groups().setLimits('/gantry/t', set(limits), number);
    expect(get('cpu/gantry/t/cpu.cfs_quota_us')).toBe('50000');
    expect(get('memory/gantry/t/memory.limit_in_bytes')).toBe('1048576');
    expect(get('memory/gantry/t/memory.memsw.limit_in_bytes')).toBe('1048576');
    expect(get('pids/gantry/t/pids.max')).toBe('7');
    groups().setLimits('/gantry/t', set(none), number);
    expect(get('cpu/gantry/t/cpu.cfs_quota_us')).toBe('-1');
    expect(get('memory/gantry/t/memory.limit_in_bytes')).toBe('-1');
  });

  it('have weights, processors, swap and rates of disks, and lose them again', () => {
    put('memory/gantry', { 'memory.swappiness': '60' });
    put('memory/gantry/t', {
      'memory.swappiness': '60',
      'memory.limit_in_bytes': '1000',
      'memory.memsw.limit_in_bytes': '1000',
    });
    put('cpu/gantry/t', { 'cpu.shares': '1024\n', 'cpu.cfs_period_us': '100000' });
    put('cpuset/gantry', { 'cpuset.cpus': '0-7\n' });
    put('cpuset/gantry/t', { 'cpuset.cpus': '0-7\n' });
    put('blkio/gantry/t', {
      'blkio.throttle.read_bps_device': '8:16 5\n',
      'blkio.throttle.write_bps_device': '',
      'blkio.throttle.read_iops_device': '',
      'blkio.throttle.write_iops_device': '',
    });
    const controls = {
      cpuShares: 512,
      cpusetCpus: '1',
      memorySwapBytes: -1,
      memorySwappiness: 0,
      oomKillDisable: true,
      blkioRates: [{ path: '/dev/vda', kind: 'write_bps', rate: 1000 }],
    } as const;
    groups().setLimits('/gantry/t', set(limits, controls), number);
    expect(get('cpu/gantry/t/cpu.shares')).toBe('512');
    expect(get('cpuset/gantry/t/cpuset.cpus')).toBe('1');
    expect(get('memory/gantry/t/memory.memsw.limit_in_bytes')).toBe('-1');
    expect(get('memory/gantry/t/memory.swappiness')).toBe('0');
    expect(get('memory/gantry/t/memory.oom_control')).toBe('1');
    expect(get('blkio/gantry/t/blkio.throttle.read_bps_device')).toBe('8:16 0');
    expect(get('blkio/gantry/t/blkio.throttle.write_bps_device')).toBe('254:0 1000');
    put('memory/gantry/t', { 'memory.oom_control': 'oom_kill_disable 1\n' });
    groups().setLimits('/gantry/t', set(limits), number);
    expect(get('cpu/gantry/t/cpu.shares')).toBe('1024');
    expect(get('cpuset/gantry/t/cpuset.cpus')).toBe('0-7');
    expect(get('memory/gantry/t/memory.memsw.limit_in_bytes')).toBe('1048576');
    expect(get('memory/gantry/t/memory.swappiness')).toBe('60');
    expect(get('memory/gantry/t/memory.oom_control')).toBe('0');
    expect(get('blkio/gantry/t/blkio.throttle.write_bps_device')).toBe('254:0 0');
  });

  it('say what this kernel lacks', () => {
    expect(groups().lacking({ ...noControls, blkioWeight: 10 })?.message).toContain('weight');
    expect(groups().lacking({ ...noControls, memorySwappiness: 10 })?.message).toContain('swappiness');
    put('memory', { 'memory.swappiness': '60' });
    expect(groups().lacking({ ...noControls, memorySwappiness: 10, oomKillDisable: true })).toBeUndefined();
  });

  it('take a process into every hierarchy', async () => {
    await groups().adopt('/gantry/conmon', 99);
    for (const name of ['cpu', 'cpuacct', 'memory', 'pids', 'systemd', 'unified'])
      expect(get(`${name}/gantry/conmon/cgroup.procs`)).toBe('99');
  });

  it('leave a process where it is in the root group', async () => {
    await groups('5:cpu,cpuacct:/\n4:memory:/a\n3:pids:/\n1:name=systemd:/\n0::/').adopt('/gantry/conmon', 99);
    expect(get('memory/gantry/conmon/cgroup.procs')).toBe('99');
    for (const name of ['cpu', 'pids', 'systemd', 'unified'])
      expect(() => get(`${name}/gantry/conmon/cgroup.procs`)).toThrow('ENOENT');
  });
});

it('a machine without control groups is told so', () => {
  expect(() => findCgroups('1 1 0:1 / / rw - ext4 /dev/vda rw')).toThrow(
    expect.objectContaining({ code: 'precondition' }),
  );
});
