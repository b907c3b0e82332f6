/** The seccomp profile a container gets: Debian's containers-common profile, for the native architecture only, tightened to Docker's. Pure. */
import { Fault } from '#proto/kernel/errors.ts';

/** linux.seccomp of the OCI runtime spec. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly SeccompRule[];
}

interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly SeccompArgument[];
}

interface SeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: string;
}

interface SourceRule extends SeccompRule {
  readonly includes?: Condition;
  readonly excludes?: Condition;
}

interface Condition {
  readonly caps?: readonly string[];
  readonly arches?: readonly string[];
  readonly minKernel?: string;
}

const EPERM = 1;
const ENOSYS = 38;
const architectures: Readonly<Record<string, { readonly seccomp: string; readonly names: readonly string[] }>> = {
  x64: { seccomp: 'SCMP_ARCH_X86_64', names: ['amd64'] },
  arm64: { seccomp: 'SCMP_ARCH_AARCH64', names: ['arm64'] },
};

/** What Docker's default profile (moby profiles/seccomp/default.json) allows only to holders of one of these, and Debian's to all. */
const gated: readonly (readonly [names: string, capabilities: readonly string[]])[] = [
  [
    'mount umount umount2 mount_setattr move_mount open_tree fsconfig fsmount fsopen fspick setns unshare name_to_handle_at quotactl_fd',
    ['CAP_SYS_ADMIN'],
  ],
  ['syslog', ['CAP_SYS_ADMIN', 'CAP_SYSLOG']],
  ['reboot', ['CAP_SYS_BOOT']],
  ['process_vm_readv process_vm_writev pidfd_getfd', ['CAP_SYS_PTRACE']],
  ['mbind get_mempolicy set_mempolicy', ['CAP_SYS_NICE', 'CAP_SYS_ADMIN']],
  ['pivot_root keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register', []],
];
const familyVsock = 40;
/** CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET */
const newNamespaces = 0x7e020000;

/** Profiles by capability set: `source` is the text of seccomp.json, `arch` as process.arch. Computed once for each set. */
export function seccompProfiles(source: string, arch: string): (capabilities: readonly string[]) => SeccompProfile {
  const native = architectures[arch];
  if (!native) throw new Fault('unsupported', `no seccomp profile for the architecture ${arch}`);
  const parsed = JSON.parse(source) as { readonly syscalls: readonly SourceRule[] };
  const made = new Map<string, SeccompProfile>();
  return (capabilities) => {
    const key = [...capabilities].sort().join(' ');
    let profile = made.get(key);
    if (!profile) {
      profile = {
        defaultAction: 'SCMP_ACT_ERRNO',
        defaultErrnoRet: ENOSYS,
        architectures: [native.seccomp],
        syscalls: rulesFor(parsed.syscalls, native.names, new Set(capabilities)),
      };
      made.set(key, profile);
    }
    return profile;
  };
}

/** As Docker writes it: `defaultAction` and `syscalls`, with conditions of capabilities and architectures. */
interface DockerProfile {
  readonly defaultAction?: string;
  readonly defaultErrnoRet?: number;
  readonly syscalls?: readonly (SourceRule & { readonly name?: string })[];
}

/** A profile of the user's own, for a container that holds these capabilities. Fault `invalid`. */
export function ownSeccompProfile(text: string, arch: string, capabilities: readonly string[]): SeccompProfile {
  const native = architectures[arch];
  if (!native) throw new Fault('unsupported', `no seccomp profile for the architecture ${arch}`);
  let profile: DockerProfile;
  try {
    profile = JSON.parse(text) as DockerProfile;
  } catch (cause) {
    throw new Fault('invalid', 'the seccomp profile is not JSON', { cause });
  }
  const held = new Set(capabilities);
  const { defaultAction = 'SCMP_ACT_ERRNO', defaultErrnoRet = EPERM, syscalls = [] } = profile;
  const rules = syscalls.flatMap(({ includes, excludes, name, names, action, errnoRet, args }): SeccompRule[] => {
    if (includes && !applies(includes, native.names, held)) return [];
    if (excludes && excludedBy(excludes, native.names, held)) return [];
    const rule = { names: names ?? (name === undefined ? [] : [name]), action };
    return [{ ...rule, ...(errnoRet === undefined ? {} : { errnoRet }), ...(args && args.length > 0 ? { args } : {}) }];
  });
  // Only calls that may fail can say with what.
  const errno = defaultAction === 'SCMP_ACT_ERRNO' ? { defaultErrnoRet } : {};
  return { defaultAction, ...errno, architectures: [native.seccomp], syscalls: rules };
}

function rulesFor(source: readonly SourceRule[], arches: readonly string[], held: ReadonlySet<string>): SeccompRule[] {
  const admin = held.has('CAP_SYS_ADMIN');
  const refused = new Set(
    gated.flatMap(([names, unlock]) => (unlock.some((name) => held.has(name)) ? [] : names.split(' '))),
  );
  const special = new Set(['socket', ...(admin ? [] : ['clone', 'clone3'])]);
  const rules: SeccompRule[] = [{ names: [...refused], action: 'SCMP_ACT_ERRNO', errnoRet: EPERM }];
  for (const { includes, excludes, ...rule } of source) {
    if (includes && !applies(includes, arches, held)) continue;
    if (excludes && excludedBy(excludes, arches, held)) continue;
    const names = rule.names.filter((name) => !refused.has(name) && !special.has(name));
    if (names.length === 0) continue;
    rules.push({
      names,
      action: rule.action,
      ...(rule.errnoRet === undefined ? {} : { errnoRet: rule.errnoRet }),
      ...(rule.args && rule.args.length > 0 ? { args: rule.args } : {}),
    });
  }
  rules.push({
    names: ['socket'],
    action: 'SCMP_ACT_ALLOW',
    args: [{ index: 0, value: familyVsock, op: 'SCMP_CMP_NE' }],
  });
  if (!admin) {
    rules.push({
      names: ['clone'],
      action: 'SCMP_ACT_ALLOW',
      args: [{ index: 0, value: newNamespaces, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
    });
    // Its flags are behind a pointer that a filter cannot follow; "not implemented" makes the C library use clone.
    rules.push({ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS });
  }
  return rules;
}

function applies(condition: Condition, arches: readonly string[], held: ReadonlySet<string>): boolean {
  if (condition.arches && !condition.arches.some((name) => arches.includes(name))) return false;
  return !condition.caps || condition.caps.every((name) => held.has(name));
}

function excludedBy(condition: Condition, arches: readonly string[], held: ReadonlySet<string>): boolean {
  return (
    (condition.caps?.some((name) => held.has(name)) || condition.arches?.some((name) => arches.includes(name))) ?? false
  );
}
