/** `profiles:` which services of a file take part. */
import { type Findings, refuse, startOf, suggestion, warn } from './diagnostic.ts';
import { readScalars } from './read.ts';
import { child, type MapTree, type Tree } from './tree.ts';

/** Services that no enabled profile has, with those they have. */
export type Inactive = ReadonlyMap<string, readonly string[]>;

export function readProfiles(findings: Findings, tree: Tree): readonly string[] {
  return readScalars(findings, tree).flatMap((item) => {
    if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(item.source)) return [item.source];
    refuse(findings, item, `"${item.source}" cannot name a profile`, 'use letters, digits, ., - and _');
    return [];
  });
}

/** Some service of the file has profiles. */
export function hasProfiles(file: MapTree): boolean {
  return [...profilesOf(file).values()].some((tree) => tree !== undefined);
}

function profilesOf(file: MapTree): ReadonlyMap<string, Tree | undefined> {
  const services = child(file, 'services');
  if (services?.kind !== 'map') return new Map();
  return new Map([...services.entries].map(([name, { value }]) => [name, child(value, 'profiles')]));
}

/** The file without the services that take no part; `*` enables all. */
export function withProfiles(
  findings: Findings,
  file: MapTree,
  enabled: readonly string[],
): { readonly file: MapTree; readonly inactive: Inactive } {
  const inactive = new Map<string, readonly string[]>();
  const known = new Set<string>();
  for (const [name, tree] of profilesOf(file)) {
    const profiles = tree ? readProfiles({ errors: [], warnings: [] }, tree) : [];
    for (const profile of profiles) known.add(profile);
    if (profiles.length > 0 && !enabled.includes('*') && !profiles.some((one) => enabled.includes(one)))
      inactive.set(name, profiles);
  }
  for (const profile of enabled)
    if (profile !== '*' && !known.has(profile)) {
      const guess = suggestion(profile, known);
      warn(
        findings,
        startOf(file.at.file),
        `no service has the profile "${profile}"`,
        guess && `did you mean "${guess}"?`,
      );
    }
  const services = file.entries.get('services');
  if (inactive.size === 0 || services?.value.kind !== 'map') return { file, inactive };
  const entries = new Map([...services.value.entries].filter(([name]) => !inactive.has(name)));
  const value = { ...services.value, entries };
  return { file: { ...file, entries: new Map(file.entries).set('services', { ...services, value }) }, inactive };
}
