/** How commands are added to the command line, by whoever has some. */
import type { Command } from 'commander';
import type { CommonOptions } from './session.ts';

export type Options = CommonOptions & Record<string, unknown>;

/** Adds `usage` to the parent. `run` gets the options and arguments, and answers with an exit code; nothing is 0. */
export type AddCommand = (
  parent: Command,
  usage: string,
  description: string,
  run: (options: Options, ...args: string[]) => Promise<number | undefined>,
  define?: (command: Command) => Command,
) => Command;

/** An option that may be given again. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
