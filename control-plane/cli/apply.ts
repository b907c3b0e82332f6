/** `gantry apply` and `gantry plan`: reads what the control plane asks for, and nothing else. */
import type { ApplyRequest, ApplyResponse, Diagnostic, Plan, PlannedChange } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { answerNeeds, composeRequest, type FileOptions, seenFromHere } from './compose-files.ts';
import { exitCodes } from './failure.ts';
import { fates } from './fates.ts';
import { readPlan, writePlan } from './plan-file.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';

interface ApplyOptions extends CommonOptions, FileOptions {
  readonly prune?: true;
  readonly yesRemoveProtected?: readonly string[];
  readonly detach?: true;
  /** What `plan --out` wrote. */
  readonly plan?: string;
  readonly out?: string;
}

type Printed = Pick<PlannedChange, 'action' | 'name' | 'details' | 'tasks'> & { readonly disruption?: string };

interface Sent {
  readonly request: ApplyRequest;
  readonly response: ApplyResponse;
}

/** Answers may bring new questions, a few for each level of includes, but not for ever. */
const mostRounds = 100;

export function apply(said: ApplyOptions): Promise<number> {
  return withSession(said, async (session) => {
    const kept = said.plan === undefined ? undefined : await readPlan(said.plan, said);
    const options = kept ? { ...said, ...kept.options } : said;
    const sent = await send(session, options, false, kept?.plan);
    const { response } = sent;
    const refused = complain(session, sent) ?? differs(session, response, kept?.unsettled ?? []);
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
    const sent = await send(session, options, true);
    const { response } = sent;
    const refused = complain(session, sent);
    if (refused !== undefined) return refused;
    if (options.out !== undefined) await writePlan(options.out, sent.request, response);
    if (session.json) session.printJson(response);
    else {
      printChanges(session, response);
      const changed = response.changes.filter(({ action }) => action !== 'unchanged').length;
      const others = [...response.networks, ...response.documents].filter(
        ({ action }) => action !== 'unchanged',
      ).length;
      for (const service of response.unsettled) session.print(session.colours.yellow(`! not settled yet: ${service}`));
      if (response.unsettled.length > 0 && options.out !== undefined)
        session.print(
          '  Its tasks may come to be elsewhere than this plan takes them to be: plan again when it has settled.',
        );
      session.print(
        changed + others === 0
          ? 'Nothing would change.'
          : `${changed} of ${response.changes.length} services would change. Nothing was changed.`,
      );
    }
    return exitCodes.ok;
  });
}

async function send(session: Session, options: ApplyOptions, dryRun: boolean, expected?: Plan): Promise<Sent> {
  const confirmed = [...(options.yesRemoveProtected ?? [])];
  const request = { ...composeRequest(options), dryRun, prune: options.prune === true, confirmed, expected };
  for (let round = 0; round < mostRounds; round++) {
    const response = await session.call(methods.apply, request);
    const { needsFiles, needsVariables, needsData } = response;
    if (needsFiles.length + needsVariables.length + needsData.length === 0) return { request, response };
    answerNeeds(request, response);
  }
  throw new Fault('internal', 'the control plane asks for more and more files and variables');
}

/** Prints what is wrong; the exit code where something is. */
function complain(session: Session, { request, response }: Sent): number | undefined {
  const { errors, warnings } = response;
  const place = ({ file, line, column }: Diagnostic) => `${seenFromHere(request, file)}:${line}:${column}`;
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

/** Prints in what the cluster has come to differ from the plan; the exit code where it has. */
function differs(session: Session, response: ApplyResponse, unsettledThen: readonly string[]): number | undefined {
  const { differences, unsettled } = response;
  if (differences.length === 0) return undefined;
  if (session.json) session.printJson(response);
  else {
    for (const line of differences) session.print(line);
    const lines = [
      'gantry: this is not what the plan says (- then, + now); nothing was changed',
      ...unsettledThen.map((service) => `  not settled when it was planned: ${service}`),
      ...unsettled.map((service) => `  not settled yet: ${service}`),
      unsettled.length > 0
        ? `→ wait until it has settled (gantry rollout status ${nameIn(unsettled[0]!)}), then plan again: gantry plan --out FILE`
        : '→ look at it, and plan again: gantry plan --out FILE',
    ];
    process.stderr.write(`${lines.join('\n')}\n`);
  }
  return exitCodes.failed;
}

/** `shop/web` of `shop/web: 1/3, …`. */
function nameIn(unsettled: string): string {
  return unsettled.split(':')[0]!;
}

function words({ message, remedy }: Diagnostic): string {
  return remedy ? `${message} (${remedy})` : message;
}

/** Networks, configs and secrets that stay as they are are nothing to tell. */
function printChanges(session: Session, { networks, documents, changes }: ApplyResponse): void {
  for (const { action, type, name } of documents)
    if (action !== 'unchanged') printChange(session, { action, name: `${type} ${name}`, details: [], tasks: [] });
  for (const { action, name, details } of networks)
    if (action !== 'unchanged') printChange(session, { action, name: `network ${name}`, details, tasks: [] });
  for (const change of changes) printChange(session, change);
}

function printChange({ colours, print }: Session, { action, name, details, tasks, disruption = '' }: Printed): void {
  const mark =
    { create: colours.green('+ create'), update: colours.yellow('~ update'), remove: colours.red('- remove') }[
      action
    ] ?? colours.dim(`= ${action}`);
  print(`${mark} ${name}`);
  for (const detail of details) print(`    ${detail}`);
  for (const { text, reason } of fates(name, tasks)) print(`    ${text}${reason ? colours.dim(`  ${reason}`) : ''}`);
  if (disruption) print(`    ${colours.yellow(`! ${disruption}`)}`);
}
