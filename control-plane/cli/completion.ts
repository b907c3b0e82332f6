/** `gantry completion`: what may stand next on the command line, and the few lines by which a shell asks for it. */
import { strict as assert } from 'node:assert';
import type { Argument, Command, Option } from 'commander';
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import { call } from '#proto/rpc.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

/** Names that only the cluster knows. */
export type Kind = 'service' | 'task' | 'node';

/** What may stand in place of the last word: words, or names of those kinds; neither: a file, or anything. */
export interface Next {
  readonly words: readonly string[];
  readonly kinds: readonly Kind[];
}

const bash = `_gantry() {
  local IFS=$'\\n'
  COMPREPLY=($(gantry complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _gantry gantry`;

export async function completion(shell: string): Promise<number> {
  assert(shell === 'bash', 'the only choice there is');
  process.stdout.write(`${bash}\n`);
  return 0;
}

/** Prints what may stand in place of the last of `words`, a line each. Whoever presses a key waits for it: nothing is said of faults. */
export async function complete(program: Command, words: readonly string[]): Promise<number> {
  const last = words.at(-1) ?? '';
  const next = nextOf(program, words);
  const names =
    next.kinds.length === 0
      ? []
      : await withSession(whereabouts(words), (session) => namesOf(session, next.kinds, last)).catch(() => []);
  const fitting = [...new Set([...next.words, ...names])].filter((word) => word.startsWith(last)).sort();
  process.stdout.write(fitting.map((word) => `${word}\n`).join(''));
  return 0;
}

/** Whom the words themselves name to be asked. */
function whereabouts(words: readonly string[]): CommonOptions {
  const of = (flag: string) => words.slice(0, -1).findLast((_, index) => words[index - 1] === flag);
  const options = { socket: of('--socket'), context: of('--context'), sandbox: of('--sandbox') };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** Pure: what the command line as it is declared says of the last of `words`. */
export function nextOf(program: Command, words: readonly string[]): Next {
  const before = words.slice(0, -1);
  const last = words.at(-1) ?? '';
  let command = program;
  let given = 0;
  for (let index = 0; index < before.length; index++) {
    const word = before[index]!;
    const option = word.startsWith('-') ? optionOf(command, word) : undefined;
    if (option && takesValue(option) && !word.includes('=')) {
      index++;
      if (index === before.length) return ofValue(option);
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
  return argument ? ofArgument(command, argument) : { words: [], kinds: [] };
}

const kindsByArgument: Readonly<Record<string, readonly Kind[]>> = {
  service: ['service'],
  'service=replicas': ['service'],
  job: ['service'],
  task: ['task'],
  node: ['node'],
  from: ['service', 'task', 'node'],
  to: ['service', 'task', 'node'],
};
/** Of commands whose argument may name several kinds. */
const kindsByCommand: Readonly<Record<string, readonly Kind[]>> = {
  inspect: ['service', 'task', 'node'],
  why: ['task', 'node'],
  logs: ['service', 'task'],
};

function ofArgument(command: Command, argument: Argument): Next {
  if (argument.argChoices) return { words: argument.argChoices, kinds: [] };
  const isTop = command.parent?.parent === null;
  const kinds = (isTop && kindsByCommand[command.name()]) || kindsByArgument[argument.name()] || [];
  return { words: [], kinds };
}

function ofValue(option: Option): Next {
  const [, name = ''] = /<([^>]+)>/.exec(option.flags) ?? [];
  return { words: option.argChoices ?? [], kinds: kindsByArgument[name] ?? (option.long === '--node' ? ['node'] : []) };
}

function optionOf(command: Command, word: string): Option | undefined {
  const [name] = word.split('=');
  return command.options.find(({ long, short }) => long === name || short === name);
}

const takesValue = ({ required, optional }: Option) => required || optional;

async function namesOf(session: Session, kinds: readonly Kind[], word: string): Promise<readonly string[]> {
  const listed = (request: Partial<ListRequest>) =>
    call(session.client, methods.list, ListRequest.create(request), { timeoutMs: listTimeoutMs });
  const dot = word.lastIndexOf('.');
  // A cluster may have a million tasks: those of one service are asked for, once it is named.
  if (kinds.includes('task') && dot > 0) {
    const { tasks } = await listed({ kind: 'task', service: word.slice(0, dot) });
    const [project] = word.includes('/') ? word.split('/') : [];
    return tasks.map((task) => `${project === undefined ? '' : `${project}/`}${taskName(task)}`);
  }
  const names: string[] = [];
  if (kinds.includes('node'))
    names.push(...(await listed({ kind: 'node' })).nodes.flatMap(({ node }) => node?.name ?? []));
  if (kinds.includes('service') || kinds.includes('task')) {
    const specs = (await listed({ kind: 'service' })).services.flatMap(({ service }) => service?.spec ?? []);
    for (const { project, name } of specs) {
      const isAlone = specs.filter((other) => other.name === name).length === 1;
      const shown = isAlone && !word.includes('/') ? name : qualifiedName(project, name);
      if (kinds.includes('service')) names.push(shown);
      if (kinds.includes('task')) names.push(`${shown}.`);
    }
  }
  return names;
}

const listTimeoutMs = 1_000;
