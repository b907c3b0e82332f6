/** `gantry volume`: named volumes, each on the node that has its data. */
import { ListRequest, type VolumeSummary } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, span, table } from './words.ts';

export function list(options: CommonOptions & { readonly project?: string }): Promise<number> {
  return withSession(options, async (session) => {
    const request = ListRequest.create({ kind: 'volume', project: options.project ?? '' });
    const { volumes } = await session.call(methods.list, request);
    if (session.json) session.printJson(volumes.map(json));
    else if (volumes.length === 0) session.print('There are no volumes: a service that mounts one makes it.');
    else {
      const now = systemClock.now();
      const rows = volumes.map((one) => [
        one.volume?.name ?? '',
        one.volume?.nodeName ?? '',
        ago(one.volume?.createdAtMs ?? 0, now),
        useOf(one, now),
      ]);
      session.print(table(['VOLUME', 'NODE', 'CREATED', 'USED BY'], rows, session.colours.bold));
    }
    return exitCodes.ok;
  });
}

export function inspect(options: CommonOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { object } = await session.call(methods.inspect, { name, kind: 'volume' });
    if (object?.$case !== 'volume') throw new Fault('internal', 'the control plane answered with something else');
    const { value } = object;
    if (session.json) session.printJson(json(value));
    else {
      const now = systemClock.now();
      const rows = [
        ['Node', value.volume?.nodeName ?? ''],
        ['Created', ago(value.volume?.createdAtMs ?? 0, now)],
        ['Used by', useOf(value, now)],
      ];
      session.print(table(['Volume', name], rows));
    }
    return exitCodes.ok;
  });
}

export function remove(options: CommonOptions, names: readonly string[]): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.removeVolume, { names: [...names] });
    if (session.json) session.printJson({ removed: response.names });
    else for (const name of response.names) session.print(name);
    return exitCodes.ok;
  });
}

function useOf({ services, trashedUntilMs }: VolumeSummary, now: number): string {
  if (trashedUntilMs > 0) return `nobody: in the trash, deleted in ${span(trashedUntilMs - now)}`;
  return services.join(', ') || 'nobody';
}

function json({ volume, services, trashedUntilMs }: VolumeSummary): object {
  return { ...volume, services, trashedUntilMs };
}
