/** Compose files to the one tree they mean together: variables expanded, what they extend and include spread out. */
import { type Findings, type Place, refuse, startOf, warn } from './diagnostic.ts';
import { dotenvVariables, evaluateDotenv, parseDotenv } from './dotenv.ts';
import { type EnvFile, envFile } from './draft.ts';
import { extendServices } from './extends.ts';
import { type Include, importInto, readIncludes } from './include.ts';
import { expand, parseTemplate, variablesOf } from './interpolation.ts';
import { merge } from './merge.ts';
import { directoryOf, fromBase, normalizedPath, rebasePaths } from './paths.ts';
import type { Files, Scope } from './scope.ts';
import { child, type MapTree, mapScalars, parseTrees, type Tree, withoutKey, withoutResets } from './tree.ts';
import type { Lookup, Wanted } from './wanted.ts';

export class Loader implements Files {
  readonly findings: Findings;
  readonly wanted: Wanted;
  /** Scalars whose variables could not be expanded. */
  readonly holes: Place[] = [];
  readonly #parsed = new Map<string, readonly Tree[]>();

  constructor(findings: Findings, wanted: Wanted) {
    this.findings = findings;
    this.wanted = wanted;
  }

  /** The file's documents. */
  parse(path: string, text: string): readonly Tree[] {
    const known = this.#parsed.get(path);
    if (known) return known;
    const before = this.findings.errors.length;
    const trees = parseTrees(path, text, this.findings);
    this.#parsed.set(path, trees);
    if (trees.length === 0 && this.findings.errors.length === before)
      refuse(this.findings, startOf(path), 'the file is empty', 'declare services:');
    return trees;
  }

  file(path: string, place: Place): readonly Tree[] | undefined {
    if (path.includes('://'))
      return refuse(this.findings, place, `"${path}" is not a file of this machine`, 'download it, and name the copy');
    if (!this.wanted.askFile(path)) return undefined;
    const text = this.wanted.file(path);
    if (text === undefined)
      return refuse(this.findings, place, `${path} is not there`, 'correct the path, or create it');
    const trees = this.parse(path, text);
    return trees.length > 0 ? trees : undefined;
  }

  ask(trees: readonly Tree[]): boolean {
    return this.wanted.askVariables(trees.flatMap(templateVariables));
  }

  /** What these files set, for who does not set it already; undefined: not told yet. */
  environment(files: readonly EnvFile[], outer: Lookup): ReadonlyMap<string, string> | undefined {
    const { findings, wanted } = this;
    const values = new Map<string, string>();
    let told = true;
    for (const { path, required, format, place } of files) {
      if (!wanted.askFile(path)) {
        told = false;
        continue;
      }
      const text = wanted.file(path);
      if (text === undefined) {
        if (required) refuse(findings, place, `env_file ${path} is not there`, 'create it, or add required: false');
        continue;
      }
      const entries = parseDotenv(path, text, format, findings);
      if (!wanted.askVariables(dotenvVariables(entries))) told = false;
      else
        for (const [name, value] of evaluateDotenv(entries, (name) => outer(name) ?? values.get(name), findings))
          values.set(name, value);
    }
    return told ? values : undefined;
  }

  /** Documents laid over each other, with all that they extend and include. */
  model(trees: readonly Tree[], scope: Scope): MapTree | undefined {
    let model: MapTree | undefined;
    for (const tree of trees) {
      const own = this.prepared(tree, scope);
      if (own.kind !== 'map') {
        refuse(this.findings, own, 'a Compose file is a map', 'declare services:');
        continue;
      }
      const extended = extendServices(this, own, model, scope);
      model = model ? (merge(model, extended) as MapTree) : extended;
    }
    return model && this.#withIncludes(withoutResets(model) as MapTree, scope);
  }

  prepared(tree: Tree, { lookup, base }: Scope): Tree {
    return rebasePaths(this.#interpolated(tree, lookup), base);
  }

  #withIncludes(file: MapTree, scope: Scope): MapTree {
    const includes = readIncludes(this.findings, child(file, 'include'));
    let model = withoutKey(file, 'include');
    for (const include of includes) {
      const other = this.#included(include, scope);
      if (other) model = importInto(this.findings, model, other);
    }
    return model;
  }

  #included({ paths, directory, envFiles }: Include, { lookup, including }: Scope): MapTree | undefined {
    const [first] = paths;
    if (!first) return undefined;
    const name = normalizedPath(first.value);
    if (including.includes(name))
      return refuse(
        this.findings,
        first.place,
        `this includes itself: ${[...including.slice(including.indexOf(name)), name].join(' → ')}`,
        'take one of these includes away',
      );
    const files = paths.map(({ value, place }) => this.file(value, place));
    const trees = files.flatMap((file) => file ?? []);
    const base = directory ?? directoryOf(first.value);
    const beside = envFile(fromBase(base, '.env'), first.place, false);
    const environment = this.environment(envFiles ?? [beside], lookup);
    if (!this.ask(trees) || !environment || files.includes(undefined)) return undefined;
    return this.model(trees, {
      base,
      lookup: (name) => lookup(name) ?? environment.get(name),
      including: [...including, name],
    });
  }

  #interpolated(tree: Tree, lookup: Lookup): Tree {
    const { findings } = this;
    return mapScalars(withoutExtensions(tree), (scalar) => {
      if (typeof scalar.value !== 'string' || !scalar.value.includes('$')) return scalar;
      const pieces = parseTemplate(scalar.value);
      const expansion = 'message' in pieces ? undefined : expand(pieces, lookup);
      if ('message' in pieces) refuse(findings, scalar, pieces.message, 'write $$ for a dollar sign');
      if (expansion?.failure !== undefined)
        refuse(findings, scalar, expansion.failure, 'set it in the environment or in .env');
      if (!expansion || expansion.failure !== undefined) {
        this.holes.push(scalar);
        return scalar;
      }
      for (const name of new Set(expansion.unset))
        warn(findings, scalar, `variable ${name} is not set: it is empty here`, `set it, or write \${${name}:-}`);
      return { ...scalar, value: expansion.text, source: expansion.text };
    });
  }
}

function templateVariables(tree: Tree): string[] {
  const names: string[] = [];
  mapScalars(withoutExtensions(tree), (scalar) => {
    const pieces = typeof scalar.value === 'string' ? parseTemplate(scalar.value) : [];
    if (!('message' in pieces)) names.push(...variablesOf(pieces));
    return scalar;
  });
  return names;
}

/** Extensions at the top are templates for anchors: their variables count where they are used. */
function withoutExtensions(tree: Tree): Tree {
  if (tree.kind !== 'map') return tree;
  return { ...tree, entries: new Map([...tree.entries].filter(([key]) => !key.startsWith('x-'))) };
}
