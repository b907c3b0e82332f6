/** `gantry scale`, `restart`, `rollback`, `rm`: a wish, then its progress. */
import type { ChangeResponse } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

interface WaitOptions extends CommonOptions {
  readonly detach?: true;
}

export async function scale(options: WaitOptions, pairs: readonly string[]): Promise<number> {
  const replicas: Record<string, number> = {};
  for (const pair of pairs) {
    const [, name, count] = /^(.+)=(\d+)$/.exec(pair) ?? [];
    if (name === undefined)
      throw new Fault('invalid', `"${pair}" is not SERVICE=REPLICAS`, { remedy: 'write gantry scale hello=3' });
    replicas[name] = Number(count);
  }
  return wish(options, (session) => session.call(methods.scale, { replicas }));
}

export function restart(options: WaitOptions, services: readonly string[]): Promise<number> {
  return wish(options, (session) => session.call(methods.restart, { services: [...services] }));
}

export function rollback(options: WaitOptions, services: readonly string[]): Promise<number> {
  return wish(options, (session) => session.call(methods.rollback, { services: [...services] }), true);
}

export function remove(options: WaitOptions, services: readonly string[]): Promise<number> {
  return wish(options, (session) => session.call(methods.remove, { services: [...services] }));
}

function wish(
  options: WaitOptions,
  ask: (session: Session) => Promise<ChangeResponse>,
  rollback = false,
): Promise<number> {
  return withSession(options, async (session) => {
    const response = await ask(session);
    if (!session.json) session.print(response.message);
    if (session.json && options.detach) session.printJson(response);
    if (options.detach) return exitCodes.ok;
    const names = new Map(response.serviceIds.map((id, index) => [id, response.names[index] ?? id]));
    return await watchProgress(session, names, { revision: response.revision, rollback });
  });
}
