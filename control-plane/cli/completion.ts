/** `gantry completion`: what may stand next on the command line, and the few lines by which a shell asks for it. */
import { strict as assert } from 'node:assert';
import type { Command } from 'commander';
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import { type NameKinds, nextOf } from '#proto/next-word.ts';
import { call } from '#proto/rpc.ts';
import { runMain } from './processes.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

/** Names that only the cluster knows. */
type Kind = 'service' | 'task' | 'node';

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
  const [room, ...rest] = words;
  // What it is told, it knows itself.
  if (room === 'sandbox' && rest.length > 0)
    return await runMain(new URL('../../node-agent/sandbox/main.ts', import.meta.url), ['complete', '--', ...rest]);
  const last = words.at(-1) ?? '';
  const next = nextOf(program, words, kinds);
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

/** Where the names of things stand. */
export const kinds: NameKinds<Kind> = {
  byArgument: {
    service: ['service'],
    'service=replicas': ['service'],
    job: ['service'],
    task: ['task'],
    node: ['node'],
    from: ['service', 'task', 'node'],
    to: ['service', 'task', 'node'],
  },
  byCommand: {
    inspect: ['service', 'task', 'node'],
    why: ['task', 'node'],
    logs: ['service', 'task'],
  },
  byOption: { '--node': ['node'] },
};

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
