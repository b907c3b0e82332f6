/** Files beside the Compose file whose content becomes part of a service: labels, seccomp profiles. */
import { limits } from '#proto/model/validate.ts';
import { type Findings, refuse } from './diagnostic.ts';
import { dotenvVariables, evaluateDotenv, parseDotenv } from './dotenv.ts';
import type { Draft, Said } from './draft.ts';
import type { Lookup, Wanted } from './wanted.ts';

/** Takes the files that the draft names into it; nothing while the client is still to be asked. */
export function takeFiles(draft: Draft, lookup: Lookup, wanted: Wanted): void {
  const labels = labelsOf(draft, lookup, wanted);
  const profile = draft.seccompFile && textOf(draft, draft.seccompFile, 'seccomp profile', wanted);
  if (wanted.any) return;
  if (draft.labelFiles.length > 0) draft.container.labels = { ...labels, ...draft.container.labels };
  if (profile !== undefined) draft.container.seccompProfile = checkedProfile(draft, draft.seccompFile!, profile);
}

/** Of several files the later go before. */
function labelsOf({ labelFiles, findings, ...draft }: Draft, lookup: Lookup, wanted: Wanted): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const file of labelFiles) {
    const text = textOf({ findings, ...draft } as Draft, file, 'label_file', wanted);
    if (text === undefined) continue;
    const silent: Findings = { errors: [], warnings: [] };
    const entries = parseDotenv(file.value, text, '', silent);
    if (!wanted.askVariables(dotenvVariables(entries))) continue;
    findings.errors.push(...silent.errors);
    for (const [name, value] of evaluateDotenv(entries, lookup, findings)) labels[name] = value;
  }
  return labels;
}

function textOf(draft: Draft, { value, place }: Said<string>, what: string, wanted: Wanted): string | undefined {
  if (!wanted.askFile(value)) return undefined;
  const text = wanted.file(value);
  if (text === undefined) refuse(draft.findings, place, `${what} ${value} is not there`, 'create it');
  return text;
}

function checkedProfile(draft: Draft, { value, place }: Said<string>, text: string): string {
  const { findings } = draft;
  if (text.length > limits.seccompBytes)
    refuse(findings, place, `${value} has ${text.length} bytes`, `at most ${limits.seccompBytes} fit`);
  try {
    const profile = JSON.parse(text) as { defaultAction?: unknown; syscalls?: unknown };
    if (typeof profile.defaultAction === 'string' && Array.isArray(profile.syscalls ?? []))
      return JSON.stringify(profile);
  } catch {
    // Said below.
  }
  refuse(
    findings,
    place,
    `${value} is not a seccomp profile`,
    'write JSON with defaultAction and syscalls, as Docker’s',
  );
  return '';
}
