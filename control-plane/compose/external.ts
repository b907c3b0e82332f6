/** `external: true`: what was made elsewhere is as it was made. */
import { type Findings, refuse } from './diagnostic.ts';
import { isNull } from './read.ts';
import type { MapTree } from './tree.ts';

/** All but its name is refused. */
export function refuseBesideExternal(findings: Findings, tree: MapTree): void {
  for (const [key, { keyAt, value }] of tree.entries)
    if (key !== 'external' && key !== 'name' && !key.startsWith('x-') && !isNull(value))
      refuse(
        findings,
        { at: keyAt, path: `${tree.path}.${key}` },
        `what is external is as it was made: it has no ${key}: here`,
        'remove it, or remove external:',
      );
}
