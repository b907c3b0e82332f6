/** Bugs put back, one after the other: a simulator that does not find them would not find the next one either. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { mutations } from './mutations.ts';

const run = promisify(execFile);

describe('the simulator finds a bug that is put back', () => {
  it.each(mutations.map(({ name }, index) => ({ name, index })))('$name', async ({ index }) => {
    const program = join(import.meta.dirname, 'mutated.ts');
    const { stdout } = await run(process.execPath, [program, String(index)], { maxBuffer: 2 ** 24 });
    expect(JSON.parse(stdout)).toMatchObject({ seed: expect.any(Number), why: expect.any(String) });
  });
});
