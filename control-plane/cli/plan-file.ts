/** A plan on disk: which files it is of and what is to follow from them; nothing of what they say, which may be secret. */
import { readFile, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type ApplyRequest, type ApplyResponse, Plan } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { FileOptions } from './compose-files.ts';

interface PlanOptions extends FileOptions {
  readonly prune?: true;
  readonly yesRemoveProtected?: readonly string[];
}

interface Kept {
  readonly options: PlanOptions;
  readonly plan: Plan;
  /** What was still on its way when this was planned, in words. */
  readonly unsettled: readonly string[];
}

const format = 'gantry-plan-1';

/** Faults: `invalid` (of standard input there is nothing to read again). */
export async function writePlan(path: string, request: ApplyRequest, response: ApplyResponse): Promise<void> {
  const { digest, changes, networks, documents, unsettled } = response;
  const kept = { format, options: optionsOf(request), plan: { digest, changes, networks, documents }, unsettled };
  await writeFile(path, `${JSON.stringify(kept, undefined, 2)}\n`);
}

/** Faults: `invalid`. `said`: what else is on the command line. */
export async function readPlan(path: string, said: FileOptions): Promise<Kept> {
  if (said.file || said.project || said.profile || said.envFile || said.projectDirectory)
    throw new Fault('invalid', 'a plan says itself which files it is of', { remedy: 'leave out -f, -p and the like' });
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Fault('invalid', `${path}: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`, {
      remedy: 'make it: gantry plan --out FILE',
    });
  });
  const kept = parsed(text);
  if (kept?.format !== format)
    throw new Fault('invalid', `${path} is no plan that this gantry reads`, {
      remedy: 'make one: gantry plan --out FILE',
    });
  return { options: kept.options, plan: Plan.fromPartial(kept.plan), unsettled: kept.unsettled ?? [] };
}

function parsed(text: string): (Kept & { readonly format: string }) | undefined {
  try {
    return JSON.parse(text) as Kept & { readonly format: string };
  } catch {
    return undefined;
  }
}

/** With absolute paths: a plan is applied from anywhere. */
function optionsOf({
  files,
  composeFiles,
  root,
  project,
  profiles,
  envFiles,
  prune,
  confirmed,
}: ApplyRequest): PlanOptions {
  const paths = files.slice(0, composeFiles).map(({ path }) => path);
  if (paths.includes('-'))
    throw new Fault('invalid', 'a plan of standard input cannot be applied later', { remedy: 'name a file with -f' });
  return {
    file: paths.map((path) => resolve(path)),
    projectDirectory: root,
    ...(project && { project }),
    ...(profiles.length > 0 && { profile: profiles }),
    ...(envFiles.length > 0 && { envFile: envFiles.map((path) => resolve(root, path)) }),
    ...(prune && { prune }),
    ...(confirmed.length > 0 && { yesRemoveProtected: confirmed }),
  };
}
