/** `gantry scale`, `restart`, `rollback`, `rm`: a wish, then its progress; `release`. */
import { type ChangeResponse, ListRequest, ServiceRequest } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import { ask } from './ask.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

export interface WaitOptions extends CommonOptions {
  readonly detach?: true;
}

export async function scale(options: WaitOptions, pairs: readonly string[]): Promise<number> {
  const replicas = parseScales(pairs);
  return wish(options, (session) => session.call(methods.scale, { replicas }));
}

/** `hello=3`, each. Faults: `invalid`. */
export function parseScales(pairs: readonly string[]): Record<string, number> {
  const replicas: Record<string, number> = {};
  for (const pair of pairs) {
    const [, name, count] = /^(.+)=(\d+)$/.exec(pair) ?? [];
    if (name === undefined)
      throw new Fault('invalid', `"${pair}" is not SERVICE=REPLICAS`, { remedy: 'write it as in hello=3' });
    replicas[name] = Number(count);
  }
  return replicas;
}

export function restart(options: WaitOptions, services: readonly string[]): Promise<number> {
  return wish(options, (session) => session.call(methods.restart, ServiceRequest.create({ services: [...services] })));
}

export function rollback(
  { to = 0, ...options }: WaitOptions & { readonly to?: number },
  services: readonly string[],
): Promise<number> {
  const request = { services: [...services], toVersion: to };
  return wish(options, (session) => session.call(methods.rollback, request), true);
}

interface RemoveOptions extends WaitOptions {
  readonly project?: string;
  readonly yesRemoveProtected?: readonly string[];
  readonly volumes?: true;
}

export function remove(options: RemoveOptions, names: readonly string[]): Promise<number> {
  if (names.length === 0 && options.project === undefined)
    throw new Fault('invalid', 'nothing to remove is named', {
      remedy: 'gantry rm SERVICE …, or -p PROJECT for all of it',
    });
  return wish(options, async (session) => {
    const services = [...names, ...(options.project === undefined ? [] : await namesIn(session, options.project))];
    const confirmed = [...(options.yesRemoveProtected ?? [])];
    if (process.stdin.isTTY) confirmed.push(...(await askForProtected(session, services, confirmed)));
    return session.call(methods.remove, {
      services: [...new Set(services)],
      confirmed,
      volumes: options.volumes === true,
    });
  });
}

/** Whole names of the services of a project. Faults: `not-found`. */
async function namesIn(session: Session, project: string): Promise<readonly string[]> {
  const { services } = await session.call(methods.list, ListRequest.create({ kind: 'service', project }));
  if (services.length === 0)
    throw new Fault('not-found', `there are no services of project "${project}"`, { remedy: 'see gantry services' });
  return services.map(({ service }) => qualifiedName(project, service?.spec?.name ?? ''));
}

/** Nothing is waited for: that it stops changes nothing for anybody. */
export function release(options: CommonOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.releaseTask, { name });
    if (session.json) session.printJson(response);
    else session.print(response.message);
    return exitCodes.ok;
  });
}

/** Whoever sits at a terminal may type the name of a protected service instead of starting again with the option. */
async function askForProtected(
  session: Session,
  names: readonly string[],
  confirmed: readonly string[],
): Promise<readonly string[]> {
  const { services } = await session.call(methods.list, ListRequest.create({ kind: 'service' }));
  const typed: string[] = [];
  for (const { service } of services) {
    const { project = '', name = '' } = service?.spec ?? {};
    const whole = qualifiedName(project, name);
    const isMeant = names.includes(name) || names.includes(whole);
    if (!service?.spec?.protected || !isMeant || confirmed.includes(name) || confirmed.includes(whole)) continue;
    if ((await ask(`${whole} is protected. Type its name to remove it: `, false)) === whole) typed.push(whole);
  }
  return typed;
}

/** Asks, says what comes of it, and waits until it is so, unless told not to. */
export function wish(
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
