/** Both versions of control groups, over a tree of plain files. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCgroups } from '#node-agent/runtime/cgroup.ts';

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
    groups().setLimits('/gantry/t', limits);
    expect(['cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'].map((file) => get(`gantry/t/${file}`))).toEqual([
      '50000 100000',
      '1048576',
      '0',
      '7',
    ]);
    groups().setLimits('/gantry/t', none);
    expect(['cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'].map((file) => get(`gantry/t/${file}`))).toEqual([
      'max 100000',
      'max',
      'max',
      '4096',
    ]);
  });

  it('refuse a limit below what is used', () => {
    expect(() => groups().setLimits('/gantry/t', { ...limits, memoryBytes: 8999 })).toThrow(
      expect.objectContaining({ code: 'exhausted' }),
    );
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
    groups().setLimits('/gantry/t', limits);
    expect(get('cpu/gantry/t/cpu.cfs_quota_us')).toBe('50000');
    expect(get('memory/gantry/t/memory.limit_in_bytes')).toBe('1048576');
    expect(get('memory/gantry/t/memory.memsw.limit_in_bytes')).toBe('1048576');
    expect(get('pids/gantry/t/pids.max')).toBe('7');
    groups().setLimits('/gantry/t', none);
    expect(get('cpu/gantry/t/cpu.cfs_quota_us')).toBe('-1');
    expect(get('memory/gantry/t/memory.limit_in_bytes')).toBe('-1');
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
