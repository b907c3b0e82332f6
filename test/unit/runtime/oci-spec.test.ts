/** What config.json says for each thing a service can ask. */
import { describe, expect, it } from 'vitest';
import { specText } from '#node-agent/runtime/bundle.ts';
import { allCapabilities, defaultCapabilities } from '#node-agent/runtime/capabilities.ts';
import { type OciMount, ociSpec, type SpecSurroundings } from '#node-agent/runtime/oci-spec.ts';
import type { ContainerRequest } from '#node-agent/runtime/runtime.ts';
import { noControls } from '#proto/model/controls.ts';
import { taskId } from '#proto/model/ids.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import { emptyImage, shellRequest } from '#test/support/container-lab.ts';

const around: SpecSurroundings = {
  rootfsPath: '/agent/containers/t/rootfs',
  cgroupPath: '/gantry/t',
  user: { uid: 5, gid: 6, additionalGids: [7], home: '/home/x' },
  capabilitiesOfHost: allCapabilities,
  seccomp: () => ({
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    architectures: ['SCMP_ARCH_X86_64'],
    syscalls: [],
  }),
  initPath: '/usr/bin/tini-static',
  swapLimit: true,
  maxOpenFiles: 20_000,
  devices: [],
  deviceNumber: () => '254:0',
};
const spec = (
  container: Partial<ContainerSpec> = {},
  fields: Partial<ContainerRequest> = {},
  surroundings: Partial<SpecSurroundings> = {},
) =>
  ociSpec(
    shellRequest({ rootfs: '/r', netnsPath: '/run/netns/t', logs: '/l' }, 'true', container, {
      id: taskId('t'),
      ...fields,
    }),
    { ...around, ...surroundings },
  );
interface Linux {
  readonly resources: {
    readonly devices: readonly { readonly type?: string; readonly major?: number }[];
    readonly memory?: object;
  };
  readonly sysctl: object;
}
const linux = (made: ReturnType<typeof spec>) => made.linux as unknown as Linux;
const at = (mounts: readonly OciMount[], destination: string) =>
  mounts.find((mount) => mount.destination === destination);

describe('ociSpec', () => {
  it('makes of a plain request exactly this', () => {
    expect(spec({ env: ['A=1'] })).toMatchSnapshot();
  });

  it('limits processors, memory with swap, and processes', () => {
    const { resources } = linux(spec({}, { limits: { cpuMillis: 1500, memoryBytes: 1000, pids: 9, generic: [] } }));
    expect(resources).toMatchObject({
      cpu: { quota: 150_000, period: 100_000 },
      memory: { limit: 1000, swap: 1000 },
      pids: { limit: 9 },
    });
    const small = linux(
      spec({}, { limits: { cpuMillis: 1, memoryBytes: 1000, pids: 0, generic: [] } }, { swapLimit: false }),
    ).resources;
    expect(small).toMatchObject({ cpu: { quota: 1000 }, memory: { limit: 1000 }, pids: { limit: 4096 } });
    expect(small.memory).not.toHaveProperty('swap');
  });

  it('joins a namespace, stays in the host’s, or has a new one, as its network is', () => {
    const networkOf = (made: ReturnType<typeof spec>) =>
      (made.linux.namespaces as readonly { readonly type: string }[]).filter(({ type }) => type === 'network');
    expect(networkOf(spec())).toEqual([{ type: 'network', path: '/run/netns/t' }]);
    expect(networkOf(spec({}, { network: 'none' }))).toEqual([{ type: 'network' }]);
    const onHost = spec({ sysctls: { 'kernel.shmmax': '1' } }, { network: 'host' });
    expect(networkOf(onHost)).toEqual([]);
    expect(linux(onHost).sysctl).toEqual({ 'kernel.shmmax': '1' });
    expect(() => spec({ sysctls: { 'net.core.somaxconn': '1' } }, { network: 'host' })).toThrow(
      expect.objectContaining({ code: 'invalid' }),
    );
  });

  it('denies all devices but the harmless ones', () => {
    const [first, ...rest] = linux(spec()).resources.devices;
    expect(first).toEqual({ allow: false, access: 'rwm' });
    expect(rest).toHaveLength(8);
    expect(rest.every((rule) => rule.type === 'c' && rule.major !== undefined)).toBe(true);
  });

  it('gives a privileged container everything', () => {
    const made = spec({ privileged: true });
    expect(made.process.capabilities.effective).toEqual(allCapabilities);
    expect(made.process.noNewPrivileges).toBe(false);
    expect(linux(made)).not.toHaveProperty('seccomp');
    expect(linux(made)).not.toHaveProperty('maskedPaths');
    expect(linux(made).resources.devices).toEqual([{ allow: true, access: 'rwm' }]);
    expect(at(made.mounts, '/sys')?.options).toContain('rw');
  });

  it('leaves out the filter, or the bar to new privileges, where asked', () => {
    expect(linux(spec({ seccompUnconfined: true }))).not.toHaveProperty('seccomp');
    expect(spec({ newPrivileges: true }).process.noNewPrivileges).toBe(false);
    expect(spec().process.noNewPrivileges).toBe(true);
  });

  it('computes the filter for the capabilities the container holds', () => {
    let asked: readonly string[] = [];
    const seccomp: SpecSurroundings['seccomp'] = (capabilities) => {
      asked = capabilities;
      return around.seccomp(capabilities);
    };
    spec({ capAdd: ['SYS_TIME'] }, {}, { seccomp });
    expect(asked).toEqual(
      allCapabilities.filter((name) => defaultCapabilities.includes(name) || name === 'CAP_SYS_TIME'),
    );
  });

  it('puts the init before the command, bound from the host', () => {
    const made = spec({ init: true });
    expect(made.process.args).toEqual(['/sbin/docker-init', '--', '/bin/sh', '-c', 'true']);
    expect(at(made.mounts, '/sbin/docker-init')).toMatchObject({ source: '/usr/bin/tini-static', type: 'bind' });
  });

  it('mounts parents before what is below them, and what is asked for instead of its own', () => {
    const bind = { source: '/s', readOnly: true, propagation: '', type: 'bind', options: ['nosuid'] } as const;
    const made = spec(
      {},
      {
        mounts: [
          { ...bind, target: '/a/b/' },
          { ...bind, target: '/a' },
          { ...bind, target: '/dev/shm', readOnly: false, propagation: 'rslave' },
        ],
      },
    );
    const order = made.mounts.map(({ destination }) => destination);
    expect(order.indexOf('/a')).toBeLessThan(order.indexOf('/a/b'));
    expect(order.filter((destination) => destination === '/dev/shm')).toHaveLength(1);
    expect(at(made.mounts, '/a/b')).toEqual({
      destination: '/a/b',
      type: 'bind',
      source: '/s',
      options: ['rbind', 'ro', 'rprivate', 'nosuid'],
    });
    expect(at(made.mounts, '/dev/shm')?.options).toEqual(['rbind', 'rw', 'rslave', 'nosuid']);
  });

  it.each(['/', '/proc', '/proc/sys', 'relative', '/a/../proc/x'])('refuses to mount at %s', (target) => {
    const mount = { source: '/s', target, readOnly: true, propagation: '', type: 'bind', options: [] } as const;
    expect(() => spec({}, { mounts: [mount] })).toThrow(/may be mounted/);
  });

  it('sets only sysctls of the container’s own namespaces', () => {
    expect(linux(spec({ sysctls: { 'net.core.somaxconn': '9', 'kernel.shmmax': '1' } })).sysctl).toEqual({
      'net.core.somaxconn': '9',
      'kernel.shmmax': '1',
      'net.ipv4.ip_unprivileged_port_start': '0',
      'net.ipv4.ping_group_range': '0 2147483647',
    });
    for (const name of [
      'kernel.core_pattern',
      'vm.overcommit_memory',
      'fs.file-max',
      'net../../kernel/core_pattern',
      'netx.a',
    ]) {
      expect(() => spec({ sysctls: { [name]: '1' } }), name).toThrow(/sysctl/);
    }
  });

  it('sets ulimits, all of them open-ended where -1, and open files always', () => {
    const { rlimits } = spec({ ulimits: [{ name: 'core', soft: 0, hard: -1 }] }).process;
    expect(rlimits).toEqual([
      { type: 'RLIMIT_CORE', soft: 0, hard: -1 },
      { type: 'RLIMIT_NOFILE', soft: 20_000, hard: 20_000 },
    ]);
    expect(specText({ rlimits })).toContain('"soft":0,"hard":18446744073709551615');
    expect(specText(JSON.parse(specText({ rlimits })))).toContain('"hard":18446744073709551615');
    expect(() => spec({ ulimits: [{ name: 'bogus', soft: 1, hard: 1 }] })).toThrow(/does not exist/);
    expect(() => spec({ ulimits: [{ name: 'nofile', soft: -1, hard: 10 }] })).toThrow(/above/);
  });

  it('does not alter text that only looks like a limit', () => {
    const text = specText({ args: ['{"soft":-1}'] });
    expect(JSON.parse(text)).toEqual({ args: ['{"soft":-1}'] });
  });

  it('merges the environment by name: defaults, image, service', () => {
    const image = { ...emptyImage, env: ['PATH=/img', 'A=image', 'B=image', 'GONE=1'] };
    const { env } = spec({ env: ['A=service', 'GONE', 'C='], tty: true }, { image }).process;
    expect(env).toEqual(['PATH=/img', 'HOSTNAME=web-1', 'TERM=xterm', 'HOME=/home/x', 'A=service', 'B=image', 'C=']);
  });
});

describe('what a container is to its host', () => {
  const types = (made: ReturnType<typeof spec>) =>
    (made.linux.namespaces as readonly { readonly type: string; readonly path?: string }[]).map(({ type }) => type);

  it('has all namespaces of its own, but those of its host or of another container that it asks for', () => {
    expect(types(spec())).toEqual(['pid', 'ipc', 'uts', 'mount', 'cgroup', 'network']);
    const made = spec({ pid: 'host', ipc: 'host', uts: 'host', cgroup: 'host', domainname: 'x' });
    expect(types(made)).toEqual(['mount', 'network']);
    expect(made).not.toHaveProperty('hostname');
    expect(at(made.mounts, '/dev/shm')).toMatchObject({ type: 'bind', source: '/dev/shm' });
    expect(linux(made).sysctl).not.toHaveProperty('kernel.domainname');
    const joined = spec({}, { pidNamespace: '/proc/7/ns/pid' });
    expect(joined.linux.namespaces).toContainEqual({ type: 'pid', path: '/proc/7/ns/pid' });
    expect(() => spec({ ipc: 'host', sysctls: { 'kernel.shmmax': '1' } })).toThrow(/host's own/);
  });

  it('has annotations beside ours, which nothing overrides', () => {
    const made = spec({ annotations: { a: '1', 'gantry.task': 'x' } });
    expect(made.annotations).toEqual({ a: '1', 'gantry.task': 't' });
  });

  it('has device nodes with their permissions, and rules', () => {
    const device = { type: 'c', path: '/dev/fuse', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 } as const;
    const made = spec(
      { deviceRules: [{ type: 'c', major: 189, minor: -1, permissions: 'rw' }] },
      {},
      { devices: [{ ...device, permissions: 'rw' }] },
    );
    expect(made.linux.devices).toEqual([device]);
    expect(linux(made).resources.devices.slice(-2)).toEqual([
      { allow: true, type: 'c', major: 10, minor: 229, access: 'rw' },
      { allow: true, type: 'c', major: 189, access: 'rw' },
    ]);
  });

  it('is throttled by the numbers of devices, and swaps as far as is said', () => {
    const controls = {
      ...noControls,
      memorySwapBytes: -1,
      memorySwappiness: 0,
      blkioWeight: 20,
      blkioRates: [{ path: '/dev/vda', kind: 'read_iops', rate: 9 }],
    } as const;
    const { resources } = linux(
      spec({}, { limits: { cpuMillis: 0, memoryBytes: 1000, pids: 0, generic: [] }, controls }),
    );
    expect(resources.memory).toEqual({ limit: 1000, swap: -1, swappiness: 0 });
    expect(resources).toMatchObject({
      blockIO: { weight: 20, throttleReadIOPSDevice: [{ major: 254, minor: 0, rate: 9 }], throttleReadBpsDevice: [] },
    });
  });
});
