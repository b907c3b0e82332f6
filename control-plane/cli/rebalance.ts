/** `gantry rebalance`: what would be moved to even out nodes, and the beginning of it. */
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { table } from './words.ts';

interface RebalanceOptions extends CommonOptions {
  readonly dryRun?: true;
}

export function rebalance(options: RebalanceOptions, service?: string): Promise<number> {
  return withSession(options, async (session) => {
    const dryRun = options.dryRun ?? false;
    const response = await session.call(methods.rebalance, { service: service ?? '', dryRun });
    const { moves, perMinute, more } = response;
    if (session.json) session.printJson(response);
    else if (moves.length === 0) session.print('Nothing is to be moved.');
    else {
      const rows = moves.map(({ task, from, to, reason }) => [task, from, to, reason]);
      session.print(table(['TASK', 'FROM', 'TO', 'WHY'], rows, session.colours.bold));
      const count = `${moves.length}${more ? ' and more' : ''} ${moves.length === 1 ? 'move' : 'moves'}`;
      session.print(
        dryRun ? `${count}; nothing was done.` : `${count}, at most ${perMinute} a minute: see gantry events`,
      );
    }
    return exitCodes.ok;
  });
}
