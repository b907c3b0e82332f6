/** Words of other command lines are answered with those of this one. */
import { expect, it } from 'vitest';
import { createProgram } from '#control-plane/cli/program.ts';

const said = (...words: string[]) => createProgram(() => {}).parseAsync(words, { from: 'user' });

it.each([
  [['suspend', 'backup'], 'suspend', 'gantry job suspend JOB'],
  [['run', 'backup'], 'run', 'gantry job run JOB'],
  [['cp', 'web.1:/etc/hosts', '.'], 'cp', 'gantry exec TASK tar'],
  [['node', 'ps', 'h1'], 'node ps', 'gantry ps --node NODE'],
  [['node', 'update', '--availability', 'drain', 'h1'], 'node update', 'gantry drain NODE'],
  [['volume', 'create', 'data'], 'volume create', 'name it in the Compose file'],
  [['system', 'prune', '-f'], 'system', 'gantry trash empty'],
])('%j', async (words, name, remedy) => {
  await expect(said(...words)).rejects.toMatchObject({
    code: 'invalid',
    message: `there is no command "${name}" here`,
    remedy: expect.stringContaining(remedy),
  });
});
