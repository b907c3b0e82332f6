/** `gantry apply` and `gantry plan`: reads what the control plane asks for, and nothing else. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import {
  type ApplyRequest,
  type ApplyResponse,
  type Diagnostic,
  type PlannedChange,
  ApplyRequest as Request,
} from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

interface ApplyOptions extends CommonOptions {
  readonly file?: readonly string[];
  readonly project?: string;
  readonly prune?: true;
  readonly detach?: true;
}

const usualNames = ['compose.yaml', 'compose.yml', 'docker-compose.yaml', 'docker-compose.yml'];
/** Answers may bring new questions, but not for ever. */
const mostRounds = 10;
const projectVariable = 'COMPOSE_PROJECT_NAME';

export function apply(options: ApplyOptions): Promise<number> {
  return withSession(options, async (session) => {
    const response = await send(session, options, false);
    const refused = complain(session, response);
    if (refused !== undefined) return refused;
    const waiting = response.changes.filter(({ action, details }) => action !== 'unchanged' || details.length === 0);
    if (session.json && options.detach) session.printJson(response);
    if (!session.json) printChanges(session, response);
    if (options.detach) return exitCodes.ok;
    const names = new Map(waiting.map(({ serviceId, name }) => [serviceId, name]));
    return await watchProgress(session, names, { revision: response.revision });
  });
}

export function plan(options: ApplyOptions): Promise<number> {
  return withSession(options, async (session) => {
    const response = await send(session, options, true);
    const refused = complain(session, response);
    if (refused !== undefined) return refused;
    if (session.json) session.printJson(response);
    else {
      printChanges(session, response);
      const changed = response.changes.filter(({ action }) => action !== 'unchanged').length;
      const networks = response.networks.filter(({ action }) => action !== 'unchanged').length;
      session.print(
        changed + networks === 0
          ? 'Nothing would change.'
          : `${changed} of ${response.changes.length} services would change. Nothing was changed.`,
      );
    }
    return exitCodes.ok;
  });
}

async function send(session: Session, options: ApplyOptions, dryRun: boolean): Promise<ApplyResponse> {
  const paths = options.file ?? [usualFile()];
  const directory = resolve(paths[0] === '-' ? '.' : dirname(paths[0]!));
  const files = paths.map((path) => ({ path, text: readSource(path), missing: false }));
  const request: ApplyRequest = Request.create({
    files,
    composeFiles: files.length,
    project: options.project ?? '',
    directory: basename(directory),
    root: directory,
    dryRun,
    prune: options.prune === true,
  });
  for (let round = 0; round < mostRounds; round++) {
    const response = await session.call(methods.apply, request);
    if (response.needsFiles.length + response.needsVariables.length === 0) return response;
    for (const path of response.needsFiles) {
      if (!isMentioned(request, path) && !isInside(directory, path)) throw prying(`the file ${path}`);
      request.files.push(answer(path, directory));
    }
    for (const name of response.needsVariables) {
      if (!isMentioned(request, name) && name !== projectVariable) throw prying(`the variable ${name}`);
      const value = process.env[name];
      if (value === undefined) request.unsetVariables.push(name);
      else request.variables[name] = value;
    }
  }
  throw new Fault('internal', 'the control plane asks for more and more files and variables');
}

function usualFile(): string {
  const found = usualNames.find((name) => existsSync(name));
  if (!found)
    throw new Fault('not-found', 'there is no Compose file here', {
      remedy: `name one with -f, or write ${usualNames[0]}`,
    });
  return found;
}

function readSource(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'is not there' : code === 'EISDIR' ? 'is a directory' : `cannot be read: ${code}`;
    throw new Fault('not-found', `${path} ${why}`, { remedy: 'name a Compose file with -f' });
  }
}

function answer(path: string, directory: string) {
  const place = isAbsolute(path) ? path : join(directory, path);
  return existsSync(place) ? { path, text: readSource(place), missing: false } : { path, text: '', missing: true };
}

/** What the files themselves name, or what lies beside them: anything else is none of a control plane's business. */
function isMentioned(request: ApplyRequest, name: string): boolean {
  return request.files.some(({ text }) => text.includes(name));
}

function isInside(directory: string, path: string): boolean {
  return resolve(directory, path).startsWith(`${directory}/`);
}

function prying(what: string): Fault {
  return new Fault('forbidden', `the control plane asks for ${what}, which no file here names`, {
    remedy: 'make sure that it is the one you mean: gantry info',
  });
}

/** Prints what is wrong; the exit code where something is. */
function complain(session: Session, response: ApplyResponse): number | undefined {
  const { errors, warnings } = response;
  if (session.json && errors.length > 0) session.printJson(response);
  if (!session.json)
    for (const warning of warnings) process.stderr.write(`${place(warning)} warning: ${words(warning)}\n`);
  if (errors.length === 0) return undefined;
  if (!session.json) {
    for (const error of errors)
      process.stderr.write(`${place(error)} ${error.path ? `${error.path}: ` : ''}${words(error)}\n`);
    process.stderr.write(
      `gantry: ${errors.length === 1 ? 'one error' : `${errors.length} errors`}; nothing was changed\n`,
    );
  }
  return exitCodes.usage;
}

function place({ file, line, column }: Diagnostic): string {
  return `${file}:${line}:${column}`;
}

function words({ message, remedy }: Diagnostic): string {
  return remedy ? `${message} (${remedy})` : message;
}

/** Networks that stay as they are are nothing to tell. */
function printChanges(session: Session, { networks, changes }: ApplyResponse): void {
  for (const { action, name, details } of networks)
    if (action !== 'unchanged')
      printChange(session, { action, name: `network ${name}`, details, tasks: [], serviceId: '' });
  for (const change of changes) printChange(session, change);
}

function printChange({ colours, print }: Session, { action, name, details, tasks }: PlannedChange): void {
  const mark =
    { create: colours.green('+ create'), update: colours.yellow('~ update'), remove: colours.red('- remove') }[
      action
    ] ?? colours.dim(`= ${action}`);
  print(`${mark} ${name}`);
  for (const detail of details) print(`    ${detail}`);
  for (const task of tasks) {
    const seat = task.slot > 0 ? `${name}.${task.slot}` : name;
    print(
      `    ${task.action} ${seat}${task.node ? ` on ${task.node}` : ''}${task.reason ? colours.dim(`  ${task.reason}`) : ''}`,
    );
  }
}
