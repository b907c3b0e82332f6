/** `gantry whatif`: what the deciders would do, and how full nodes would be. */
import type { NodeForecast } from '#proto/gen/gantry/v1/operator.ts';
import type { Resources } from '#proto/gen/gantry/v1/types.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { fates } from './fates.ts';
import { parseScales } from './services.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { table } from './words.ts';

interface Supposed extends CommonOptions {
  readonly kill?: readonly string[];
  readonly drain?: readonly string[];
  readonly add?: number;
  readonly like?: string;
  readonly scale?: readonly string[];
}

export function whatIf(options: Supposed): Promise<number> {
  if (options.like !== undefined && !options.add)
    throw new Fault('invalid', '--like says what added nodes are like', { remedy: 'write --add N --like NODE' });
  return withSession(options, async (session) => {
    const { colours, print } = session;
    const answer = await session.call(methods.whatIf, {
      kill: [...(options.kill ?? [])],
      drain: [...(options.drain ?? [])],
      add: options.add ?? 0,
      like: options.like ?? '',
      scale: parseScales(options.scale ?? []),
    });
    if (session.json) {
      session.printJson(answer);
      return 0;
    }
    for (const { name, tasks } of answer.services) {
      print(name);
      for (const { text, reason } of fates(name, tasks))
        print(`    ${text}${reason ? colours.dim(`  ${reason}`) : ''}`);
    }
    if (answer.moves.length > 0) print('to even out nodes, by and by');
    for (const { task, from, to, reason } of answer.moves)
      print(`    move ${task} from ${from} to ${to}${colours.dim(`  ${reason}`)}`);
    if (answer.services.length + answer.moves.length === 0) print('No task would start or stop.');
    const rows = answer.nodes.map((node) => [
      node.node,
      node.state,
      changed(node.tasksBefore, node.tasksAfter),
      changed(share(node, node.reservedBefore, 'cpuMillis'), share(node, node.reservedAfter, 'cpuMillis')),
      changed(share(node, node.reservedBefore, 'memoryBytes'), share(node, node.reservedAfter, 'memoryBytes')),
    ]);
    print('');
    print(table(['NODE', 'STATE', 'TASKS', 'CPU RESERVED', 'MEMORY RESERVED'], rows, colours.bold));
    return 0;
  });
}

function changed(before: number | string, after: number | string): string {
  return before === after ? String(after) : `${before} → ${after}`;
}

function share({ capacity }: NodeForecast, reserved: Resources | undefined, of: 'cpuMillis' | 'memoryBytes'): string {
  const all = capacity?.[of] ?? 0;
  return all === 0 ? '-' : `${Math.round((100 * (reserved?.[of] ?? 0)) / all)} %`;
}
