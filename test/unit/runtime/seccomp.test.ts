/** The filter is not looser than Docker’s. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { defaultCapabilities } from '#node-agent/runtime/capabilities.ts';
import { seccompProfiles } from '#node-agent/runtime/seccomp.ts';

const source = readFileSync('/usr/share/containers/seccomp.json', 'utf8');
const profiles = seccompProfiles(source, 'x64');
const allowed = (name: string, capabilities: readonly string[]) =>
  profiles(capabilities).syscalls.filter((rule) => rule.action === 'SCMP_ACT_ALLOW' && rule.names.includes(name));

describe('the seccomp profile', () => {
  it('knows only the native architecture, and refuses what it does not name', () => {
    expect(profiles([])).toMatchObject({
      architectures: ['SCMP_ARCH_X86_64'],
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 38,
    });
    expect(seccompProfiles(source, 'arm64')([]).architectures).toEqual(['SCMP_ARCH_AARCH64']);
    expect(() => seccompProfiles(source, 'mips')).toThrow(expect.objectContaining({ code: 'unsupported' }));
  });

  it.each(
    'mount umount2 unshare setns pivot_root move_mount open_tree fsopen keyctl add_key bpf perf_event_open reboot init_module kexec_load userfaultfd process_vm_readv open_by_handle_at swapon iopl settimeofday quotactl syslog mbind io_uring_setup clone3'.split(
      ' ',
    ),
  )('does not allow %s by default', (name) => {
    expect(allowed(name, defaultCapabilities)).toEqual([]);
  });

  it.each('read write openat execve fork wait4 futex clone socket connect chroot mknodat prctl ptrace'.split(' '))(
    'allows %s by default',
    (name) => {
      expect(allowed(name, defaultCapabilities).length).toBeGreaterThan(0);
    },
  );

  it('allows new processes but no new namespaces, and makes the C library fall back from clone3', () => {
    expect(allowed('clone', defaultCapabilities)).toMatchObject([
      { args: [{ index: 0, value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] },
    ]);
    expect(profiles(defaultCapabilities).syscalls).toContainEqual({
      names: ['clone3'],
      action: 'SCMP_ACT_ERRNO',
      errnoRet: 38,
    });
  });

  it('allows every family of sockets but that of the hypervisor', () => {
    expect(allowed('socket', defaultCapabilities)).toMatchObject([
      { args: [{ index: 0, value: 40, op: 'SCMP_CMP_NE' }] },
    ]);
  });

  it('opens with the capability that the call needs, and no other', () => {
    expect(allowed('mount', ['CAP_SYS_ADMIN'])).toHaveLength(1);
    expect(allowed('clone3', ['CAP_SYS_ADMIN'])).toHaveLength(1);
    expect(allowed('mount', ['CAP_SYS_TIME'])).toEqual([]);
    expect(allowed('settimeofday', ['CAP_SYS_TIME'])).toHaveLength(1);
    expect(allowed('process_vm_readv', ['CAP_SYS_PTRACE'])).toHaveLength(1);
    expect(allowed('keyctl', ['CAP_SYS_ADMIN'])).toEqual([]);
  });

  it('is computed once for each set of capabilities', () => {
    expect(profiles(['CAP_KILL', 'CAP_CHOWN'])).toBe(profiles(['CAP_CHOWN', 'CAP_KILL']));
  });
});
