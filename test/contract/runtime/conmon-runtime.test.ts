/** The real runtime, with runc: the contract, and what only a kernel can show. */
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerRequest, Runtime } from '#node-agent/runtime/runtime.ts';
import { hostVolumes } from '#node-agent/volumes/volumes.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { type ContainerSpec, emptyMount, type Mount } from '#proto/model/service.ts';
import { type ContainerLab, containerLab, makeRootfs, newTaskId, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';
import { execRequest, exitsOf, type Role, runtimeContract, stateOf } from './runtime-contract.ts';

const scripts: Record<Role, string> = {
  stays: 'trap "exit 143" TERM; while true; do sleep 0.1; done',
  'exits-7': 'sleep 0.2; exit 7',
  'ignores-term': 'trap "" TERM; while true; do sleep 1; done',
  refused: '',
};

runtimeContract('conmon with runc', async () => {
  const lab = await containerLab();
  return {
    open: () => lab.open(),
    request: (role) => shellRequest(lab, scripts[role], role === 'refused' ? { command: ['/bin/nothing'] } : {}),
    close: () => lab.close(),
  };
});

runtimeContract('conmon with crun', async () => {
  const lab = await containerLab();
  // crun 1.8 refuses a machine with both versions of control groups mounted: it is shown the first alone.
  const crun = join(lab.directory, 'crun');
  const script = `umount /sys/fs/cgroup/unified 2>/dev/null; exec /usr/bin/crun "$@"`;
  writeFileSync(crun, `#!/bin/sh\nexec unshare -m sh -c '${script}' -- "$@"\n`, { mode: 0o755 });
  return {
    open: () => lab.open({ runtimePaths: { crun } }),
    request: (role) =>
      shellRequest(lab, scripts[role], role === 'refused' ? { command: ['/bin/nothing'] } : {}, { runtime: 'crun' }),
    close: () => lab.close({ runtimePaths: { crun } }),
  };
});

describe('a container of conmon with runc', () => {
  let lab: ContainerLab;
  let runtime: Runtime;
  const made: TaskId[] = [];
  beforeAll(async () => {
    lab = await containerLab();
    runtime = await lab.open();
  });
  afterAll(() => lab.close());

  const run = async (
    script: string,
    container: Partial<ContainerSpec> = {},
    fields: Partial<ContainerRequest> = {},
  ) => {
    const request = shellRequest(lab, script, container, fields);
    await runtime.create(request);
    made.push(request.id);
    await runtime.start(request.id);
    return request;
  };
  const exitOf = async (id: TaskId) => {
    const state = await eventually(async () => {
      const state = await stateOf(runtime, id);
      return state?.exit ? state : undefined;
    });
    return state!.exit!;
  };
  const logOf = (request: ContainerRequest) =>
    readFileSync(request.logPath, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split(' ').slice(3).join(' '));
  /** Runs to its end; its lines of output and its exit code. */
  const outcome = async (
    script: string,
    container: Partial<ContainerSpec> = {},
    fields: Partial<ContainerRequest> = {},
  ) => {
    const request = await run(script, container, fields);
    const exit = await exitOf(request.id);
    const lines = logOf(request);
    await runtime.delete(request.id);
    return { lines, exit };
  };

  it('writes its log with times and streams, and leaves the log when it is deleted', async () => {
    const request = await run('echo one; echo two >&2; printf half');
    await exitOf(request.id);
    await runtime.delete(request.id);
    const lines = readFileSync(request.logPath, 'utf8').trimEnd().split('\n');
    const stamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d /;
    expect(lines.every((line) => stamp.test(line))).toBe(true);
    expect(lines.map((line) => line.replace(stamp, '')).sort()).toEqual([
      'stderr F two',
      'stdout F one',
      'stdout P half',
    ]);
  });

  it('holds few capabilities, no new privileges, and a seccomp filter', async () => {
    const { lines } = await outcome('grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status');
    const status = Object.fromEntries(lines.map((line) => line.split(':').map((part) => part.trim())));
    const ten = '00000000000405fb';
    expect(status).toEqual({
      CapInh: '0000000000000000',
      CapPrm: ten,
      CapEff: ten,
      CapBnd: ten,
      CapAmb: '0000000000000000',
      NoNewPrivs: '1',
      Seccomp: '2',
    });
  });

  it('cannot mount, unshare, make devices, write sysctls, or see what is masked', async () => {
    const attempts = [
      'mount -t tmpfs none /tmp',
      'unshare -m true',
      'unshare -U true',
      'mknod /tmp/sda b 8 0',
      'echo 1 > /proc/sys/kernel/panic',
      'echo h > /proc/sysrq-trigger',
      'test -s /proc/kcore',
      'umount /proc',
      'mount -o remount,rw /sys',
      'mkdir /sys/fs/cgroup/memory/escape',
      'hostname other',
      'dmesg',
      'chroot / mount -t proc none /tmp',
    ];
    const { lines } = await outcome(
      attempts.map((attempt, index) => `(${attempt}) >/dev/null 2>&1; echo ${index}:$?`).join('\n'),
    );
    const succeeded = lines.filter((line) => line.endsWith(':0')).map((line) => attempts[Number(line.split(':')[0])]);
    expect(lines).toHaveLength(attempts.length);
    expect(succeeded).toEqual([]);
  });

  it('inherits no descriptor of the agent', async () => {
    const { lines } = await outcome('ls /proc/self/fd | tr "\\n" " "');
    expect(lines[0]?.trim().split(' ')).toEqual(['0', '1', '2', '3']);
  });

  it('is killed when it uses more memory than its limit, and says so', async () => {
    const { exit } = await outcome(
      'tail /dev/zero',
      {},
      { limits: { cpuMillis: 0, memoryBytes: 16 << 20, pids: 0, generic: [] } },
    );
    expect(exit).toMatchObject({ exitCode: 137, oomKilled: true });
  });

  it('is limited in processors, memory and processes by its cgroup', async () => {
    const { lines } = await outcome(
      `cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max
       for i in $(seq 40); do sleep 1 & done; wait`,
      {},
      { limits: { cpuMillis: 250, memoryBytes: 32 << 20, pids: 20, generic: [] } },
    );
    expect(lines.slice(0, 3)).toEqual(['25000', String(32 << 20), '20']);
    expect(lines.some((line) => /can't fork/.test(line))).toBe(true);
  });

  it('runs as the user its image names, with the groups of that user', async () => {
    const byName = await outcome('id; pwd; echo $HOME', { user: 'app', workingDir: '/home/app' });
    expect(byName.lines).toEqual(['uid=1234(app) gid=1234(app) groups=2000(shared)', '/home/app', '/home/app']);
    const byNumber = await outcome('id', { user: '77:88' });
    expect(byNumber.lines).toEqual(['uid=77 gid=88']);
    await expect(run('id', { user: 'nobody-here' })).rejects.toMatchObject({ code: 'invalid' });
  });

  it('does not look up users through a symlink that leads out of the image', async () => {
    const rootfs = join(lab.directory, 'evil');
    makeRootfs(rootfs);
    rmSync(join(rootfs, 'etc/passwd'));
    symlinkSync('/../../../../../../etc/passwd', join(rootfs, 'etc/passwd'));
    const request = shellRequest({ ...lab, rootfs }, 'id', { user: 'daemon' });
    await expect(runtime.create(request)).rejects.toMatchObject({
      code: 'invalid',
      message: expect.stringContaining('daemon'),
    });
  });

  it('refuses an image whose /dev is a symlink, and a working directory in /proc', async () => {
    const rootfs = join(lab.directory, 'dev-link');
    makeRootfs(rootfs);
    rmSync(join(rootfs, 'dev'), { recursive: true });
    symlinkSync('tmp', join(rootfs, 'dev'));
    await expect(runtime.create(shellRequest({ ...lab, rootfs }, 'id'))).rejects.toMatchObject({ code: 'invalid' });
    await expect(run('id', { workingDir: '/proc/self/fd/7' })).rejects.toMatchObject({ code: 'invalid' });
  });

  it('may have a root it cannot write to, and a tmpfs that it can', async () => {
    const { lines } = await outcome(
      'touch /x 2>/dev/null || echo read-only; touch /scratch/x && echo written; df -k /scratch | tail -1',
      {
        readOnly: true,
      },
      {
        mounts: [
          {
            source: 'tmpfs',
            target: '/scratch',
            readOnly: false,
            propagation: '',
            type: 'tmpfs',
            options: ['size=1m'],
          },
        ],
      },
    );
    expect(lines.slice(0, 2)).toEqual(['read-only', 'written']);
    expect(lines[2]).toContain('1024');
  });

  it('has what is bound into it, read-only where asked', async () => {
    const source = join(lab.directory, 'bound');
    mkdirSync(source, { recursive: true });
    writeFileSync(join(source, 'file'), 'content\n');
    const mount = {
      source,
      target: '/data/inner',
      readOnly: true,
      propagation: '',
      type: 'bind',
      options: ['nosuid', 'nodev'],
    } as const;
    const { lines } = await outcome(
      'cat /data/inner/file; touch /data/inner/x 2>/dev/null || echo refused',
      {},
      { mounts: [mount] },
    );
    expect(lines).toEqual(['content', 'refused']);
  });

  it('finds in a volume what another one left, beginning with the image’s content and owners', async () => {
    const data = join(lab.directory, 'agent');
    chownSync(join(lab.rootfs, 'data'), 1234, 1234);
    const volumes = hostVolumes({ data, forbidden: [data] });
    const volume = emptyMount('volume', 'shop_data', '/data');
    const tmpfs = {
      ...emptyMount('tmpfs', '', '/scratch'),
      tmpfsSizeBytes: 1 << 20,
      tmpfsMode: 0o1777,
    } as const;
    const visit = async (script: string, mount: Partial<Mount>) => {
      const id = newTaskId();
      const rootfs = [{ type: 'bind', source: lab.rootfs, options: ['rbind'] }];
      const wanted = [{ ...volume, ...mount }, tmpfs];
      const mounts = await volumes.prepare({ task: id, mounts: wanted, imageVolumes: [], rootfs, privileged: false });
      const { lines } = await outcome(script, { user: 'app' }, { id, mounts });
      await volumes.release(id);
      return lines;
    };
    const first = await visit('ls /data; echo kept > /data/inner-note; echo x > /scratch/x && cat /scratch/x', {});
    expect(first).toEqual(['inner', 'x']);
    const second = await visit('cat /data/inner-note; echo x > /data/more || echo refused', { readOnly: true });
    expect(second).toContain('kept');
    expect(second).toContain('refused');
  });

  it('has its hostname, environment and network namespace', async () => {
    const { lines } = await outcome('hostname; echo $A $B $HOSTNAME; ls /sys/class/net', { env: ['A=1', 'B=2=3'] });
    expect(lines).toEqual(['web-1', '1 2=3 web-1', 'lo']);
  });

  it('may have an init that reaps and passes signals on, also from an image without one', async () => {
    const request = await run('echo $$; sleep 100', { init: true });
    await eventually(() => existsSync(request.logPath) && logOf(request).length > 0);
    expect(logOf(request)).not.toContain('1');
    await runtime.kill(request.id, 'SIGTERM');
    expect((await exitOf(request.id)).exitCode).toBe(143);
    await runtime.delete(request.id);
  });

  it('writes to a new log file after the old one was renamed and it was told so', async () => {
    const request = await run('while true; do echo tick; sleep 0.05; done');
    await eventually(() => existsSync(request.logPath) && logOf(request).length > 0);
    renameSync(request.logPath, `${request.logPath}.1`);
    await runtime.reopenLog(request.id);
    await eventually(() => existsSync(request.logPath) && logOf(request).length > 1);
    const old = readFileSync(`${request.logPath}.1`, 'utf8');
    await eventually(() => logOf(request).length > 5);
    expect(readFileSync(`${request.logPath}.1`, 'utf8')).toBe(old);
    await runtime.delete(request.id);
  });

  it('F18: is told lost, and ended, when its conmon is killed', async () => {
    const exits = exitsOf(runtime);
    const request = await run('sleep 1000');
    const bundle = join(lab.directory, 'agent/containers', request.id);
    const { pid } = (await stateOf(runtime, request.id))!;
    process.kill(Number(readFileSync(join(bundle, 'conmon.pid'), 'utf8')), 'SIGKILL');
    await eventually(() => exits.has(request.id));
    expect(exits.get(request.id)).toMatchObject([{ lost: true }]);
    expect(await stateOf(runtime, request.id)).toMatchObject({ status: 'lost' });
    await eventually(
      () => !existsSync(`/proc/${pid}/root`) || readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z '),
    );
    await runtime.delete(request.id);
    expect(existsSync(bundle)).toBe(false);
  });

  it('is told lost after a restart of the agent in which its conmon was killed', async () => {
    const request = await run('sleep 1000');
    const conmon = Number(readFileSync(join(lab.directory, 'agent/containers', request.id, 'conmon.pid'), 'utf8'));
    await runtime.close();
    process.kill(conmon, 'SIGKILL');
    await eventually(
      () => !existsSync(`/proc/${conmon}/exe`) || readFileSync(`/proc/${conmon}/stat`, 'utf8').includes(') Z '),
    );
    runtime = await lab.open();
    const exits = exitsOf(runtime);
    await eventually(() => exits.has(request.id));
    expect(exits.get(request.id)).toMatchObject([{ lost: true }]);
    await runtime.delete(request.id);
  });

  it('tells an exit that happened while no agent ran, once to each listener', async () => {
    const request = await run('sleep 0.1; exit 42');
    await runtime.close();
    await eventually(() => existsSync(join(lab.directory, 'agent/exits', request.id)));
    runtime = await lab.open();
    const first = exitsOf(runtime);
    const second = exitsOf(runtime);
    await eventually(() => first.has(request.id) && second.has(request.id));
    for (const exits of [first, second]) expect(exits.get(request.id)).toMatchObject([{ exitCode: 42, lost: false }]);
    await runtime.delete(request.id);
  });

  it('takes up a creation that an earlier agent did not finish', async () => {
    const request = shellRequest(lab, 'sleep 1000');
    await runtime.create(request);
    await runtime.close();
    const path = join(lab.directory, 'agent/containers', request.id, 'container.json');
    const record = JSON.parse(readFileSync(path, 'utf8'));
    const { pid } = record;
    writeFileSync(path, JSON.stringify({ ...record, pid: 0, startTicks: 0, conmonPid: 0, conmonStartTicks: 0 }));
    runtime = await lab.open();
    expect(await stateOf(runtime, request.id)).toMatchObject({ status: 'created', pid });
    await runtime.start(request.id);
    await runtime.kill(request.id, 'SIGKILL');
    expect((await exitOf(request.id)).exitCode).toBe(137);
    await runtime.delete(request.id);
  });

  it('F19: is told lost after a reboot, whoever has its process number now', async () => {
    const request = await run('sleep 1000');
    const sleeper = (await stateOf(runtime, request.id))!.pid;
    await runtime.close();
    const path = join(lab.directory, 'agent/containers', request.id, 'container.json');
    const record = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...record, bootId: 'another', pid: process.pid, conmonPid: process.pid }));
    process.kill(record.conmonPid, 'SIGKILL');
    runtime = await lab.open();
    expect(await stateOf(runtime, request.id)).toMatchObject({ status: 'lost', exit: { lost: true } });
    await runtime.delete(request.id);
    await eventually(() => !existsSync(`/proc/${sleeper}/root`));
  });

  it('is removed where its record is gone', async () => {
    const request = await run('sleep 1000');
    const { pid } = (await stateOf(runtime, request.id))!;
    await runtime.close();
    const bundle = join(lab.directory, 'agent/containers', request.id);
    rmSync(join(bundle, 'container.json'));
    runtime = await lab.open();
    expect(await stateOf(runtime, request.id)).toBeUndefined();
    expect(existsSync(bundle)).toBe(false);
    await eventually(() => !existsSync(`/proc/${pid}/root`));
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(request.id);
  });

  it('may have a root of more layers than fit the options of one mount', async () => {
    const layers = Array.from({ length: 120 }, (_, index) =>
      join(lab.directory, 'snapshots-of-containerd', `${index}`, 'fs'),
    );
    for (const [index, layer] of layers.entries()) {
      mkdirSync(layer, { recursive: true });
      writeFileSync(join(layer, `layer-${index}`), '');
    }
    const upper = join(lab.directory, 'snapshots-of-containerd/upper');
    const work = join(lab.directory, 'snapshots-of-containerd/work');
    for (const path of [upper, work]) mkdirSync(path);
    const options = [`lowerdir=${[...layers, lab.rootfs].join(':')}`, `upperdir=${upper}`, `workdir=${work}`];
    expect(options.join().length).toBeGreaterThan(4095);
    const overlay = { type: 'overlay', source: 'overlay', options };
    const before = process.cwd();
    const { lines } = await outcome('ls / | grep -c layer-; touch /written', {}, { rootfs: [overlay] });
    expect(lines).toEqual(['120']);
    expect(process.cwd()).toBe(before);
    expect(readdirSync(upper)).toContain('written');
  });

  it('tells how much it sent and received', async () => {
    const peer = `v${lab.netnsPath.slice(-6)}`;
    const namespace = lab.netnsPath.slice(lab.netnsPath.lastIndexOf('/') + 1);
    const ip = (...args: string[]) => execFileSync('ip', ['-n', namespace, ...args]);
    ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', peer);
    ip('addr', 'add', '192.0.2.1/24', 'dev', 'eth0');
    ip('link', 'set', 'eth0', 'up');
    ip('link', 'set', peer, 'up');
    const request = await run('sleep 1000');
    const before = await runtime.stats(request.id);
    const { exit } = await runtime.exec(execRequest(request.id, ['nc', '-w', '1', '192.0.2.77', '80']));
    await exit;
    expect((await runtime.stats(request.id)).networkSentBytes).toBeGreaterThan(before.networkSentBytes);
    await runtime.delete(request.id);
  });

  it('runs in the host’s network, of which nothing is counted as its own, and with a loopback alone', async () => {
    const links = (await outcome('cat /proc/net/dev', {}, { network: 'host' })).lines;
    const own = readFileSync('/proc/net/dev', 'utf8').trimEnd().split('\n');
    expect(links.map((line) => line.split(':')[0])).toEqual(own.map((line) => line.split(':')[0]));
    const alone = (await outcome('ip -o link', {}, { network: 'none' })).lines;
    expect(alone).toEqual([expect.stringMatching(/^1: lo: <LOOPBACK,UP/)]);
    const request = await run('sleep 1000', {}, { network: 'host' });
    expect(await runtime.stats(request.id)).toMatchObject({ networkReceivedBytes: 0, networkSentBytes: 0 });
    await runtime.delete(request.id);
  });

  it('leaves no bundle, mount, cgroup or state behind', async () => {
    const request = await run('sleep 1000');
    await runtime.delete(request.id);
    expect(existsSync(join(lab.directory, 'agent/containers', request.id))).toBe(false);
    expect(readdirSync(join(lab.directory, 'run/oci/runc'))).not.toContain(request.id);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(request.id);
    expect(execFileSync('find', ['/sys/fs/cgroup', '-name', request.id], { encoding: 'utf8' })).toBe('');
  });

  it('sits beside conmon, which is in no group of the agent that could limit it', async () => {
    const request = await run('sleep 1000');
    const conmon = Number(readFileSync(join(lab.directory, 'agent/containers', request.id, 'conmon.pid'), 'utf8'));
    await eventually(() =>
      readFileSync(`/proc/${conmon}/cgroup`, 'utf8')
        .split('\n')
        .filter(Boolean)
        .every((line) => /(:\/|\/conmon)$/.test(line)),
    );
    await runtime.delete(request.id);
  });
});

describe('an OCI runtime that hangs', () => {
  it('is ended after a while: its container is not started, and goes all the same', async () => {
    const lab = await containerLab();
    const runc = join(lab.directory, 'runc');
    const hangs = 'case "$3" in start|delete) sleep 1000;; esac';
    writeFileSync(runc, `#!/bin/sh\n${hangs}\nexec /usr/sbin/runc "$@"\n`, { mode: 0o755 });
    const parts = {
      runtimePaths: { runc },
      // Its deadlines of a minute are seconds here.
      clock: {
        ...systemClock,
        after: (ms: number, action: () => void) => systemClock.after(ms < 20_000 ? ms : ms / 20, action),
      },
    };
    const runtime = await lab.open(parts);
    const request = shellRequest(lab, 'sleep 100');
    await runtime.create(request);
    await expect(runtime.start(request.id)).rejects.toMatchObject({
      code: 'timeout',
      message: expect.stringMatching(/runc .*start/),
    });
    await runtime.delete(request.id);
    expect(await runtime.list()).toEqual([]);
    await lab.close(parts);
  });
});
