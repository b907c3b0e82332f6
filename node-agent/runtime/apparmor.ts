/** AppArmor of this machine: a container that is to be confined by a profile must not run without it. */
import { readFileSync } from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';

const enabledPath = '/sys/module/apparmor/parameters/enabled';
const profilesPath = '/sys/kernel/security/apparmor/profiles';

/** Nothing where none is asked for. Faults: `unsupported` (no AppArmor here), `precondition` (the profile is not loaded). */
export function checkApparmor(profile: string): void {
  if (profile === '') return;
  if (textOf(enabledPath).trim() !== 'Y') {
    throw new Fault('unsupported', `this node has no AppArmor, and the service is to be confined by ${profile}`, {
      remedy: 'choose nodes that have it by a constraint, or remove apparmor from security_opt',
    });
  }
  const loaded = textOf(profilesPath)
    .split('\n')
    .some((line) => line.startsWith(`${profile} (`));
  if (loaded) return;
  throw new Fault('precondition', `the AppArmor profile ${profile} is not loaded on this node`, {
    remedy: 'load it there: apparmor_parser -r FILE',
  });
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
