/** Whether this version can read what is on the node's disk: a newer one may have written it, and a node may be taken back to an older one. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';

/**
 * Of all that lies in the data directory. Raised where an older version would take what we write for something else, or miss it:
 * new kinds of records, and fields that may be left out, are no reason.
 */
export const dataForm = 1;

/** Where it is written: the form, and the version that raised it. */
export function formPath(data: string): string {
  return join(data, 'form');
}

/** Before anything else is read there. Faults: `unsupported`, what a newer version has written. */
export function claimForm(data: string, version: string): void {
  const path = formPath(data);
  const [form = 0, by = ''] = readForm(path);
  if (form > dataForm)
    throw new Fault(
      'unsupported',
      `agent ${by} has written ${data} in form ${form}; this is ${version}, which reads forms up to ${dataForm}`,
      {
        remedy: `start ${by} or a newer one; to go back all the same, drain the node, remove it (gantry node rm), take all of it off this machine (gantry agent reset --purge), and join anew`,
      },
    );
  if (form === dataForm) return;
  writeFileSync(`${path}.next`, `${dataForm} ${version}\n`, { mode: 0o600 });
  renameSync(`${path}.next`, path);
}

function readForm(path: string): [number, string] | [] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []; // Older than this file.
    throw error;
  }
  const [form = '', by = ''] = text.trim().split(' ');
  return /^\d+$/.test(form) ? [Number(form), by] : [];
}
