/** Names the code that the agent is started from: a watchdog that lives on from another one is replaced, be it of the same version by name. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** What a watchdog is made of, and more: what it imports is not followed. */
const parts = ['node-agent', 'proto', 'package-lock.json'];
const directory = resolve(import.meta.dirname, '../..');

/** The version, and a hash of every program file below `root` (this one's, unless another is meant); some 10 ms. */
export function ownCode(version: string, root = directory): string {
  const hash = createHash('sha256').update(process.version);
  for (const part of parts)
    for (const path of filesIn(root, part)) hash.update(`\0${path}\0`).update(readFileSync(join(root, path)));
  return `${version} ${hash.digest('base64url').slice(0, 16)}`;
}

function filesIn(root: string, part: string): string[] {
  if (part.includes('.')) return [part];
  const found = readdirSync(join(root, part), { recursive: true, encoding: 'utf8' });
  return found
    .filter((path) => path.endsWith('.ts') || path.endsWith('.sh'))
    .map((path) => join(part, path))
    .sort();
}
