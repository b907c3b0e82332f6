/** Shorthand for tests of the Compose resolver: one file in, specs or error lines out. */
import { type Resolution, type ResolveInput, resolve } from '#control-plane/compose/resolve.ts';
import type { ServiceSpec } from '#proto/model/service.ts';

/** One file `compose.yaml` of a client in `/srv/shop` that has nothing more to tell. */
export function resolveInput(text: string, more: Partial<ResolveInput> = {}): ResolveInput {
  return {
    files: [{ path: 'compose.yaml', text }],
    supplied: new Map(),
    variables: new Map(),
    data: new Map(),
    project: '',
    directory: 'shop',
    root: '/srv/shop',
    answered: true,
    profiles: [],
    envFiles: [],
    ...more,
  };
}

/** Throws where there are none, showing why. */
export function specsOf(resolution: Resolution): readonly ServiceSpec[] {
  if (resolution.kind !== 'specs') throw new Error(JSON.stringify(resolution, null, 1));
  return resolution.services.map((service) => service.spec);
}

/** The one service `web` with these lines. */
export function web(lines: string, more: Partial<ResolveInput> = {}): ServiceSpec {
  const text = `services:\n  web:\n    image: nginx\n${lines.replace(/^(?=.)/gm, '    ')}\n`;
  return specsOf(resolve(resolveInput(text, more)))[0]!;
}

/** Files by their paths, of which the first `count` are given with -f and the others are there to be asked for. */
export function resolveFiles(
  texts: Readonly<Record<string, string>>,
  more: Partial<ResolveInput> & { readonly count?: number } = {},
): Resolution {
  const { count = 1, ...rest } = more;
  const files = Object.entries(texts).map(([path, text]) => ({ path, text }));
  const supplied = new Map(files.slice(count).map(({ path, text }) => [path, text]));
  return resolve(resolveInput('', { files: files.slice(0, count), supplied, ...rest }));
}

/** `file:line:column path: message → remedy` of each error; throws where the input is accepted. */
export function errorsOf(text: string, more: Partial<ResolveInput> = {}): string[] {
  return errorLines(resolve(resolveInput(text, more)));
}

export function errorLines(resolution: Resolution): string[] {
  if (resolution.kind !== 'errors') throw new Error(`accepted: ${JSON.stringify(resolution)}`);
  return resolution.errors.map(
    ({ file, line, column, path, message, remedy }) => `${file}:${line}:${column} ${path}: ${message} → ${remedy}`,
  );
}

/** The errors of a service `web` with these lines, the first of which is line 4. */
export const bad = (lines: string) =>
  errorsOf(`services:\n  web:\n    image: nginx\n${lines.replace(/^(?=.)/gm, '    ')}\n`);
