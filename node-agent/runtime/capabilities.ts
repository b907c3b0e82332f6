/** Which capabilities a container gets. Pure. */
import { Fault } from '#proto/kernel/errors.ts';

/** All of Linux, by number (capabilities(7)). */
export const allCapabilities: readonly string[] = [
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE',
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN',
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE',
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE',
]
  .join(' ')
  .split(' ')
  .map((name) => `CAP_${name}`);

/** Docker's fourteen without NET_RAW, MKNOD, AUDIT_WRITE and SETFCAP. */
export const defaultCapabilities: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
];

/**
 * The capabilities by Docker's rules: `ALL` in `drop` leaves only what is added, `ALL` in `add` gives all that this host can
 * give. Names with or without `CAP_`, in any case. Faults: `invalid` (no such capability), `unsupported` (this host lacks it).
 */
export function capabilities(
  wanted: { readonly add: readonly string[]; readonly drop: readonly string[]; readonly privileged: boolean },
  ofHost: readonly string[],
): readonly string[] {
  if (wanted.privileged) return allCapabilities.filter((name) => ofHost.includes(name));
  const add = wanted.add.map(normalized);
  const drop = wanted.drop.map(normalized);
  const base = add.includes('ALL') ? ofHost : drop.includes('ALL') ? [] : defaultCapabilities;
  const dropped = drop.includes('ALL') && !add.includes('ALL') ? [] : drop;
  for (const name of add) {
    if (name === 'ALL' || ofHost.includes(name)) continue;
    throw new Fault('unsupported', `cap_add: this host cannot give ${name}`, {
      remedy: 'the agent itself lacks it: remove it, or run the service elsewhere',
    });
  }
  return allCapabilities.filter(
    (name) => (base.includes(name) && !dropped.includes(name)) || (add.includes(name) && !dropped.includes(name)),
  );
}

function normalized(text: string): string {
  const upper = text.toUpperCase();
  if (upper === 'ALL' || upper === 'CAP_ALL') return 'ALL';
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (allCapabilities.includes(name)) return name;
  throw new Fault('invalid', `"${text}" is not a capability`, { remedy: 'see capabilities(7) for the names' });
}

/** The names in a hexadecimal mask, as in /proc/PID/status. */
export function capabilitiesOfMask(mask: string): readonly string[] {
  const bits = BigInt(`0x${mask}`);
  return allCapabilities.filter((_, index) => (bits >> BigInt(index)) & 1n);
}
