/** A disk of a host that can be filled without filling the machine's. */
import type { Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { holdDown } from './hold-down.ts';

/** Moves `directory` of a host to a disk of `size` (as tmpfs takes it) while the process that uses it, by pgrep's words, is away. */
export async function onSmallDisk(
  sandbox: Sandbox,
  host: string,
  program: string,
  directory: string,
  size: string,
): Promise<void> {
  const part = await holdDown(sandbox, host, program);
  const kept = '/var/lib/kept';
  const move = `cp -a ${directory} ${kept} && mount -t tmpfs -o size=${size} tmpfs ${directory} && cp -a ${kept}/. ${directory} && rm -r ${kept}`;
  await sandbox.run(host, ['sh', '-c', `cd / && ${move}`]);
  await part.release();
}
