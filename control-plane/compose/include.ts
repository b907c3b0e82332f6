/** `include:` other Compose applications as parts of this one. */
import { type Findings, refuse } from './diagnostic.ts';
import { type EnvFile, envFile, type Said } from './draft.ts';
import { fingerprint } from './merge.ts';
import { isNull, readKeys, readScalars, readText } from './read.ts';
import type { Entry, MapTree, Tree } from './tree.ts';

export interface Include {
  /** The first is the application, the others are laid over it. */
  readonly paths: readonly Said<string>[];
  /** Undefined: the directory of the first path. */
  readonly directory: string | undefined;
  /** Undefined: `.env` of the directory, where it is there. */
  readonly envFiles: readonly EnvFile[] | undefined;
}

/** What has a name in the whole application. */
const sections = ['services', 'networks', 'volumes', 'configs', 'secrets', 'models'];
/** What means nothing of a file that is included. */
const ofTheFile = ['include', 'name', 'version'];

/** Both syntaxes; the paths are seen from the project already. */
export function readIncludes(findings: Findings, tree: Tree | undefined): readonly Include[] {
  if (!tree || isNull(tree)) return [];
  if (tree.kind !== 'list') {
    refuse(findings, tree, 'include must be a list', 'write - other/compose.yaml');
    return [];
  }
  return tree.items.map((item) => {
    const include: { -readonly [Key in keyof Include]: Include[Key] } = {
      paths: [],
      directory: undefined,
      envFiles: undefined,
    };
    const texts = (value: Tree) =>
      readScalars(findings, value, { alone: true }).map((scalar) => ({ value: scalar.source, place: scalar }));
    if (item.kind === 'map')
      readKeys(findings, item, 'an include', include, {
        path: (include, value) => {
          include.paths = texts(value);
        },
        project_directory: (include, value) => {
          include.directory = readText(findings, value);
        },
        env_file: (include, value) => {
          include.envFiles = texts(value)
            .filter(({ value }) => value !== '/dev/null')
            .map(({ value, place }) => envFile(value, place));
        },
      });
    else if (item.kind === 'scalar') include.paths = texts(item);
    if (include.paths.length === 0) refuse(findings, item, 'this include has no path', 'add path: a Compose file');
    return include;
  });
}

/** The model with what the other has; a name that both have is an error, unless they say the same of it. */
export function importInto(findings: Findings, model: MapTree, other: MapTree): MapTree {
  const entries = new Map(model.entries);
  for (const [key, entry] of other.entries) {
    if (ofTheFile.includes(key)) continue;
    const ours = entries.get(key);
    if (!ours || !sections.includes(key) || isNull(ours.value)) entries.set(key, entry);
    else if (ours.value.kind === 'map' && entry.value.kind === 'map')
      entries.set(key, { ...ours, value: withNames(findings, key, ours.value, entry.value) });
  }
  return { ...model, entries };
}

function withNames(findings: Findings, section: string, ours: MapTree, theirs: MapTree): MapTree {
  const entries = new Map<string, Entry>(ours.entries);
  for (const [name, entry] of theirs.entries) {
    const own = entries.get(name);
    if (!own) entries.set(name, entry);
    else if (!name.startsWith('x-') && fingerprint(own.value) !== fingerprint(entry.value))
      refuse(
        findings,
        { at: own.keyAt, path: `${section}.${name}` },
        `${section}.${name} is in ${entry.keyAt.file}:${entry.keyAt.line} too, which is included`,
        'rename one of them, or name a file of changes as a second path: of the include',
      );
  }
  return { ...ours, entries };
}
