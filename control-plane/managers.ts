/** The managers of an installation, as each of them is told: who else runs etcd, NATS and a control plane. Pure. */
import { Fault } from '#proto/kernel/errors.ts';
import { namePattern } from '#proto/model/ids.ts';

export interface Manager {
  readonly name: string;
  /** IP address or host name that agents and other managers reach it at. */
  readonly address: string;
}

/** How many there may be: with an even number one more could fail no more often, and a write would wait for more. */
const counts: readonly number[] = [1, 3, 5];

/** NAME=ADDRESS by comma. Faults: `invalid`. */
export function parseManagers(text: string): Manager[] {
  const managers = text.split(',').map((part): Manager => {
    const [name = '', address = '', ...more] = part.trim().split('=');
    if (more.length > 0 || !namePattern.test(name) || !isHost(address))
      throw new Fault('invalid', `"${part.trim()}" is not NAME=ADDRESS`, { remedy: 'write it as m1=192.0.2.10' });
    return { name, address };
  });
  assertManagerCount(managers.length);
  for (const key of ['name', 'address'] as const)
    if (new Set(managers.map((one) => one[key])).size < managers.length)
      throw new Fault('invalid', `two managers have one ${key}`, { remedy: 'give each of them its own' });
  return managers;
}

/** Faults: `invalid`, with the reason, for a number of managers that is none. */
function assertManagerCount(count: number): void {
  if (counts.includes(count)) return;
  throw new Fault(
    'invalid',
    `${count} managers: the majority of an even number may lose no more of them than that of one less, and more than five only make each write wait`,
    { remedy: `name ${counts.slice(0, -1).join(', ')} or ${counts.at(-1)}` },
  );
}

function isHost(text: string): boolean {
  return /^[a-z0-9.-]+$|^[0-9a-f:]*:[0-9a-f:]*$/i.test(text);
}
