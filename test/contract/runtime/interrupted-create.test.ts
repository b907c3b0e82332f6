/** A container that an agent was creating when it ended: the next one finds it begun, and ends it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { containerLab, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';
import { stateOf } from './runtime-contract.ts';

it('a container is created no more once it is deleted, where an earlier agent was still at it', async () => {
  const lab = await containerLab();
  const slow = join(lab.directory, 'slow');
  const script = `case "$*" in *" create "*) sleep 1000;; esac; exec /usr/sbin/runc "$@"`;
  writeFileSync(slow, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const parts = { runtimePaths: { slow } };
  try {
    const earlier = await lab.open(parts);
    const request = shellRequest(lab, 'sleep 1000', {}, { runtime: 'slow' });
    const created = earlier.create(request).then(
      () => 'created',
      () => 'ended',
    );
    const pidFile = join(lab.directory, 'agent/containers', request.id, 'conmon.pid');
    await eventually(() => existsSync(pidFile) && readFileSync(pidFile, 'utf8') !== '');
    const conmon = readFileSync(pidFile, 'utf8').trim();
    const later = await lab.open(parts);
    expect(await stateOf(later, request.id)).toMatchObject({ status: 'lost' });
    await later.delete(request.id);
    await eventually(() => !existsSync(`/proc/${conmon}/exe`));
    expect(await created).toBe('ended');
  } finally {
    await lab.close(parts);
  }
});
