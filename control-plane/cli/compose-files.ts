/** The Compose files of a command: which they are, and what else of this machine they may make the control plane ask for. */
import { existsSync, statSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { ApplyRequest, type ApplyResponse, SourceFile } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { largestBytes } from '#proto/model/document.ts';
import { readBytes } from './read-bytes.ts';

export interface FileOptions {
  readonly file?: readonly string[];
  readonly project?: string;
  readonly profile?: readonly string[];
  readonly envFile?: readonly string[];
  readonly projectDirectory?: string;
}

const usualNames = ['compose.yaml', 'compose.yml', 'docker-compose.yml', 'docker-compose.yaml'];
const overrideNames = usualNames.map((name) => name.replace('compose.', 'compose.override.'));
/** What Compose itself takes from the environment; the files need not name it. */
const ownVariables = ['COMPOSE_PROJECT_NAME', 'COMPOSE_PROFILES'];

/** The first request: the files themselves. */
export function composeRequest(options: FileOptions): ApplyRequest {
  const envFiles = (options.envFile ?? list(process.env.COMPOSE_ENV_FILES, ',')).map((path) => resolve(path));
  const paths = options.file ?? filesOfEnvironment(options, envFiles) ?? usualFiles(options.projectDirectory ?? '.');
  const directory = resolve(options.projectDirectory ?? (paths[0] === '-' ? '.' : dirname(paths[0]!)));
  const files = paths.map((path) => SourceFile.create({ path, text: readSource(path) }));
  return ApplyRequest.create({
    files,
    composeFiles: files.length,
    project: options.project ?? '',
    directory: basename(directory),
    root: directory,
    profiles: [...(options.profile ?? [])],
    envFiles: envFiles.map((path) => relative(directory, path)),
  });
}

/** Answers the control plane's questions, unless nothing that it was told before names what it asks for. */
export function answerNeeds(request: ApplyRequest, { needsFiles, needsVariables, needsData }: ApplyResponse): void {
  const told = new Told(request);
  for (const path of [...needsFiles, ...needsData]) if (!told.names(path)) throw prying(`the file ${path}`);
  for (const name of needsVariables)
    if (!ownVariables.includes(name) && !request.files.some(({ text }) => text.includes(name)))
      throw prying(`the variable ${name}`);
  for (const path of needsFiles) {
    const place = resolve(request.root, path);
    request.files.push(
      SourceFile.create(existsSync(place) ? { path, text: readSource(place) } : { path, missing: true }),
    );
  }
  for (const path of needsData) request.files.push(dataAnswer(request.root, path));
  for (const name of needsVariables) {
    const value = process.env[name];
    if (value === undefined) request.unsetVariables.push(name);
    else request.variables[name] = value;
  }
}

/** The bytes for a config or secret; of more than any can have only how many there are. */
function dataAnswer(root: string, path: string): SourceFile {
  const place = resolve(root, path);
  if (!existsSync(place)) return SourceFile.create({ path, missing: true });
  const { size } = statSync(place);
  const data = size > largestBytes.config ? Buffer.alloc(0) : readBytes(place);
  return SourceFile.create({ path, hasData: true, dataBytes: size, data });
}

/** A file of a diagnostic as it is seen from here. */
export function seenFromHere({ root, files, composeFiles }: ApplyRequest, file: string): string {
  if (file === '' || files.slice(0, composeFiles).some(({ path }) => path === file)) return file;
  return relative('.', resolve(root, file));
}

/** What a request has told the control plane so far. */
class Told {
  readonly #request: ApplyRequest;
  readonly #texts: readonly string[];
  readonly #directories: Set<string>;

  constructor(request: ApplyRequest) {
    const { root, files, composeFiles } = request;
    const values = new Map(Object.entries(request.variables));
    for (const { text } of files)
      for (const [, name, value] of text.matchAll(/^\s*(?:export\s+)?(\w+)\s*[=:]\s*["']?([^"'\n]*)/gm))
        if (!values.has(name!)) values.set(name!, value!.trim());
    const expanded = (text: string) =>
      text.replace(/\$\{(\w+)(?::?-([^}]*))?[^}]*\}|\$(\w+)/g, (whole, braced, otherwise, plain) => {
        return values.get(braced ?? plain) ?? otherwise ?? whole;
      });
    this.#request = request;
    this.#texts = files.map(({ text }) => expanded(text));
    const beside = files.flatMap(({ path, missing }, index) =>
      missing || path === '-' ? [] : [dirname(index < composeFiles ? resolve(path) : resolve(root, path))],
    );
    const directories = new Set([root, ...beside]);
    for (const base of [...directories])
      for (const text of this.#texts)
        for (const [, named] of text.matchAll(/project_directory:\s*["']?([^\s"',}]+)/g))
          directories.add(resolve(base, named!));
    this.#directories = directories;
  }

  /** The files name this one, or it is of the project, or the `.env` beside one of them: anything else is none of a control plane's business. */
  names(path: string): boolean {
    const { root, envFiles } = this.#request;
    const place = resolve(root, path);
    const beside = (directory: string) =>
      place === join(directory, '.env') || this.#mention(relative(directory, place));
    const named =
      place.startsWith(`${root}/`) ||
      envFiles.includes(path) ||
      this.#mention(place) ||
      [...this.#directories].some(beside);
    if (named) this.#directories.add(dirname(place));
    return named;
  }

  #mention(path: string): boolean {
    return this.#texts.some((text) => text.includes(path));
  }
}

function prying(what: string): Fault {
  return new Fault('forbidden', `the control plane asks for ${what}, which no file here names`, {
    remedy: 'make sure that it is the one you mean: gantry info',
  });
}

/** COMPOSE_FILE, of the environment or of the env files. */
function filesOfEnvironment(options: FileOptions, envFiles: readonly string[]): readonly string[] | undefined {
  const named = envFiles.length > 0 ? envFiles : [join(options.projectDirectory ?? '.', '.env')];
  const texts = named.filter((path) => existsSync(path)).map(readSource);
  const setting = (name: string): string | undefined => {
    const line = new RegExp(`^\\s*(?:export\\s+)?${name}\\s*=\\s*["']?([^"'\\s#]+)`, 'm');
    return process.env[name] ?? texts.map((text) => line.exec(text)?.[1]).findLast((value) => value !== undefined);
  };
  const files = list(setting('COMPOSE_FILE'), setting('COMPOSE_PATH_SEPARATOR') ?? ':');
  return files.length > 0 ? files : undefined;
}

function list(text: string | undefined, separator: string): readonly string[] {
  return (text ?? '')
    .split(separator)
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** The usual file of this directory, or of the nearest one above it that has one, with what is to be laid over it. */
function usualFiles(directory: string): readonly string[] {
  for (let at = resolve(directory); ; at = dirname(at)) {
    const there = (names: readonly string[]) => names.filter((name) => existsSync(join(at, name)));
    const [main, ...more] = there(usualNames);
    if (main !== undefined) {
      if (more.length > 0) process.stderr.write(`gantry: ${main} is taken, ${more.join(' and ')} is not\n`);
      return [main, ...there(overrideNames).slice(0, 1)].map((name) => relative('.', join(at, name)));
    }
    if (at === dirname(at)) break;
  }
  throw new Fault('not-found', 'there is no Compose file here', {
    remedy: `name one with -f, or write ${usualNames[0]}`,
  });
}

function readSource(path: string): string {
  return readBytes(path, 'name a Compose file with -f').toString();
}
