/** In what a file is read, and what may be asked for while it is. */
import type { Findings, Place } from './diagnostic.ts';
import type { Tree } from './tree.ts';
import type { Lookup, Wanted } from './wanted.ts';

export interface Scope {
  /** The directory of the file's relative paths, seen from the project's; empty: that one. */
  readonly base: string;
  readonly lookup: Lookup;
  /** The files that led here by `include`. */
  readonly including: readonly string[];
}

/** The files of one request. While the client has still to be asked, nothing that is returned is whole. */
export interface Files {
  readonly findings: Findings;
  readonly wanted: Wanted;
  /** The documents of a file that is named at `place`; undefined: it is not there, says nothing, or is not told yet. */
  file(path: string, place: Place): readonly Tree[] | undefined;
  /** Asks for the variables of these trees; false: some are not told yet. */
  ask(trees: readonly Tree[]): boolean;
  /** The tree with its variables expanded and its paths seen from the project. */
  prepared(tree: Tree, scope: Scope): Tree;
}
