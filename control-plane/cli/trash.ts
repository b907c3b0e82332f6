/** `gantry trash` and `gantry undo`: what was removed, and back with it. */
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, span, table } from './words.ts';

export function list(options: CommonOptions): Promise<number> {
  return withSession(options, async (session) => {
    const { trash } = await session.call(methods.list, ListRequest.create({ kind: 'trash' }));
    if (session.json) session.printJson(trash);
    else if (trash.length === 0) session.print('The trash is empty.');
    else {
      const now = systemClock.now();
      const rows = trash.map(({ removal, kind, name, removedAtMs, dueAtMs }) => [
        removal.slice(0, 8),
        kind,
        name,
        ago(removedAtMs, now),
        dueAtMs <= now ? 'now' : `in ${span(dueAtMs - now)}`,
      ]);
      session.print(table(['REMOVAL', 'KIND', 'NAME', 'REMOVED', 'GONE FOR GOOD'], rows, session.colours.bold));
    }
    return exitCodes.ok;
  });
}

export function empty(options: CommonOptions, names: readonly string[]): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.emptyTrash, { names: [...names] });
    if (session.json) session.printJson({ removed: response.names });
    else session.print(response.message);
    return exitCodes.ok;
  });
}

export function undo(options: CommonOptions & { readonly detach?: true }, name = ''): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.undo, { name });
    if (!session.json) session.print(response.message);
    const nothingToAwait = options.detach || response.serviceIds.length === 0;
    if (session.json && nothingToAwait) session.printJson(response);
    if (nothingToAwait) return exitCodes.ok;
    const names = new Map(response.serviceIds.map((id, index) => [id, response.names[index] ?? id]));
    return await watchProgress(session, names, { revision: response.revision });
  });
}
