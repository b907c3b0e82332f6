/** What may stand next on a command line, out of how it is declared: for the shells of `gantry`, and of what it starts. Pure. */
import type { Argument, Command, Option } from 'commander';

/** What may stand in place of the last word: words, or names of those kinds; neither: a file, or anything. */
export interface Next<Kind extends string> {
  readonly words: readonly string[];
  readonly kinds: readonly Kind[];
}

/** Which names an argument, or the value of an option, takes. */
export interface NameKinds<Kind extends string> {
  /** By how the declaration calls it: `service` of `<service>`. */
  readonly byArgument: Readonly<Record<string, readonly Kind[]>>;
  /** Of commands at the top whose argument may name several kinds. */
  readonly byCommand: Readonly<Record<string, readonly Kind[]>>;
  /** `--node`. */
  readonly byOption: Readonly<Record<string, readonly Kind[]>>;
}

/** For the last of `words`; the others are taken as they are. */
export function nextOf<Kind extends string>(
  program: Command,
  words: readonly string[],
  kinds: NameKinds<Kind>,
): Next<Kind> {
  const before = words.slice(0, -1);
  const last = words.at(-1) ?? '';
  let command = program;
  let given = 0;
  for (let index = 0; index < before.length; index++) {
    const word = before[index]!;
    const option = word.startsWith('-') ? optionOf(command, word) : undefined;
    if (option && takesValue(option) && !word.includes('=')) {
      index++;
      if (index === before.length) return ofValue(option, kinds);
    } else if (!word.startsWith('-')) {
      const below = command.commands.find((one) => one.name() === word);
      if (below) command = below;
      else given++;
    }
  }
  const help = command.createHelp();
  if (last.startsWith('-')) {
    const own = help.visibleOptions(command).flatMap(({ long }) => long ?? []);
    return { words: own, kinds: [] };
  }
  if (command.commands.length > 0) return { words: help.visibleCommands(command).map((one) => one.name()), kinds: [] };
  const declared = command.registeredArguments;
  const argument = declared[given] ?? (declared.at(-1)?.variadic ? declared.at(-1) : undefined);
  return argument ? ofArgument(command, argument, kinds) : { words: [], kinds: [] };
}

function ofArgument<Kind extends string>(command: Command, argument: Argument, names: NameKinds<Kind>): Next<Kind> {
  if (argument.argChoices) return { words: argument.argChoices, kinds: [] };
  const isTop = command.parent?.parent === null;
  const kinds = (isTop && names.byCommand[command.name()]) || names.byArgument[argument.name()] || [];
  return { words: [], kinds };
}

function ofValue<Kind extends string>(option: Option, names: NameKinds<Kind>): Next<Kind> {
  const [, name = ''] = /<([^>]+)>/.exec(option.flags) ?? [];
  return {
    words: option.argChoices ?? [],
    kinds: names.byOption[option.long ?? ''] ?? names.byArgument[name] ?? [],
  };
}

function optionOf(command: Command, word: string): Option | undefined {
  const [name] = word.split('=');
  return command.options.find(({ long, short }) => long === name || short === name);
}

const takesValue = ({ required, optional }: Option) => required || optional;
