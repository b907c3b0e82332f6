/** What the help shows can be copied: every example is a command line that there is, and every word of others leads to one. */
import type { Command } from 'commander';
import { expect, it } from 'vitest';
import { examples } from '#control-plane/cli/examples.ts';
import { createProgram } from '#control-plane/cli/program.ts';

/** The command line without what commands do; resolves to the words of the command that would have run. */
async function parsed(words: readonly string[]): Promise<string> {
  const program = createProgram(() => {});
  let ran = '';
  const silence = (command: Command, path: string) => {
    command.configureOutput({ writeErr: () => {}, writeOut: () => {} });
    if (command.commands.length === 0)
      command.action(() => {
        ran = path;
      });
    for (const one of command.commands) silence(one, path === '' ? one.name() : `${path} ${one.name()}`);
  };
  silence(program, '');
  await program.parseAsync([...words], { from: 'user' });
  return ran;
}

it.each(Object.entries(examples).flatMap(([path, lines]) => lines.map((line) => [path, line] as const)))(
  '%s: gantry %s',
  async (path, line) => {
    expect(await parsed(line.split(' '))).toBe(path);
  },
);

it('options of all commands stand before the command too', async () => {
  expect(await parsed(['--context', 'laptop', '--json', 'ps', '-a'])).toBe('ps');
});

it('what is missing points to the help of that command', async () => {
  const program = createProgram(() => {});
  const said: string[] = [];
  const listen = (command: Command) => {
    command.configureOutput({ writeErr: (text) => said.push(text) });
    command.commands.forEach(listen);
  };
  listen(program);
  await expect(program.parseAsync(['secret', 'create'], { from: 'user' })).rejects.toThrow('missing required argument');
  expect(said.join('')).toContain('(see gantry secret create --help)');
});
