/** `gantry config` and `gantry secret`: those that are made by hand, and what uses which. */
import { type DocumentSummary, ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { DocumentType } from '#proto/model/document.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { readBytes } from './read-bytes.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, bytes, pairs, table } from './words.ts';

interface PutOptions extends CommonOptions {
  readonly label?: readonly string[];
  readonly detach?: true;
}

export function list(options: CommonOptions & { readonly project?: string }, type: DocumentType): Promise<number> {
  return withSession(options, async (session) => {
    const request = ListRequest.create({ kind: type, project: options.project ?? '' });
    const { documents } = await session.call(methods.list, request);
    if (session.json) session.printJson(documents.map(json));
    else if (documents.length === 0) session.print(`There are no ${type}s. Make one: gantry ${type} create NAME FILE`);
    else {
      const now = systemClock.now();
      const rows = documents.map(({ document, services }) => [
        document?.name ?? '',
        document?.project || 'by hand',
        bytes(sizeOf(document)),
        short(document?.version),
        ago(document?.updatedAtMs ?? 0, now),
        services.join(', '),
      ]);
      session.print(
        table([type.toUpperCase(), 'PROJECT', 'SIZE', 'VERSION', 'CHANGED', 'USED BY'], rows, session.colours.bold),
      );
    }
    return exitCodes.ok;
  });
}

export function inspect(options: CommonOptions, type: DocumentType, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { object } = await session.call(methods.inspect, { name, kind: type });
    if (object?.$case !== 'document') throw new Fault('internal', 'the control plane answered with something else');
    const { document, services } = object.value;
    if (session.json) {
      session.printJson(json(object.value));
      return exitCodes.ok;
    }
    const now = systemClock.now();
    const rows = [
      ['Name', name],
      ['Project', document?.project || 'none: made by hand'],
      ...Object.entries(document?.labels ?? {}).map(([key, text]) => ['Label', `${key}=${text}`]),
      ...(document?.versions ?? []).map((one) => [
        'Version',
        `${one.version}  ${bytes(one.bytes)}, ${ago(one.createdAtMs, now)}${one.version === document?.version ? ', the current one' : ''}`,
      ]),
      ['Used by', services.join(', ') || 'nobody'],
    ];
    session.print(table(rows[0]!, rows.slice(1)));
    return exitCodes.ok;
  });
}

/** From a file or standard input, never from an argument: those are seen by every process of the machine. */
export function create(options: PutOptions, type: DocumentType, name: string, path = '-'): Promise<number> {
  if (path === '-' && process.stdin.isTTY)
    throw new Fault('invalid', 'there is no file, and standard input is a terminal', {
      remedy: `name a file, or write: … | gantry ${type} create ${name}`,
    });
  const data = readBytes(path);
  return withSession(options, async (session) => {
    const labels = pairs(options.label ?? [], 'label');
    const { action, change } = await session.call(methods.putDocument, { type, name, data, labels });
    if (!session.json) session.print(change?.message ?? '');
    if (session.json && (options.detach || change?.serviceIds.length === 0)) session.printJson({ action, ...change });
    if (!change || options.detach || change.serviceIds.length === 0) return exitCodes.ok;
    const names = new Map(change.serviceIds.map((id, index) => [id, change.names[index] ?? id]));
    return await watchProgress(session, names, { revision: change.revision });
  });
}

/** As it is, to standard output. */
export function show(options: CommonOptions & { readonly version?: string }, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { data } = await session.call(methods.readConfig, { name, version: options.version ?? '' });
    if (session.json) session.printJson({ name, data: data.toString('base64') });
    else process.stdout.write(data);
    return exitCodes.ok;
  });
}

export function remove(options: CommonOptions, type: DocumentType, names: readonly string[]): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.removeDocument, { type, names: [...names] });
    if (session.json) session.printJson({ removed: response.names });
    else for (const name of response.names) session.print(name);
    return exitCodes.ok;
  });
}

function sizeOf(document: DocumentSummary['document']): number {
  return document?.versions.find(({ version }) => version === document.version)?.bytes ?? 0;
}

function short(version = ''): string {
  return version.slice(0, 8);
}

function json({ document, services }: DocumentSummary): object {
  return { ...document, services };
}
