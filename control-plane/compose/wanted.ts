/** What the client has told of its files and variables, and what it is still to be asked for. */

export interface Told {
  /** Files that were asked for; undefined: there is none. Keyed as asked for. */
  readonly supplied: ReadonlyMap<string, string | undefined>;
  /** Variables that were asked for; undefined: not set. */
  readonly variables: ReadonlyMap<string, string | undefined>;
  /** Nothing more will be supplied: what is not there is not set. */
  readonly answered: boolean;
}

export type Lookup = (name: string) => string | undefined;

export class Wanted {
  readonly #told: Told;
  readonly #files = new Set<string>();
  readonly #variables = new Set<string>();

  constructor(told: Told) {
    this.#told = told;
  }
  get any(): boolean {
    return this.#files.size + this.#variables.size > 0;
  }
  /** Asks for variables; false: some are not told yet. */
  askVariables(names: Iterable<string>): boolean {
    let told = true;
    for (const name of names)
      if (!this.#told.answered && !this.#told.variables.has(name)) {
        this.#variables.add(name);
        told = false;
      }
    return told;
  }
  /** Asks for a file; false: it is not told yet. */
  askFile(path: string): boolean {
    if (this.#told.answered || this.#told.supplied.has(path)) return true;
    this.#files.add(path);
    return false;
  }
  /** What the client's environment has; undefined: not set, or not told. */
  variable(name: string): string | undefined {
    return this.#told.variables.get(name);
  }
  /** The file's text; undefined: there is none, or it is not told. */
  file(path: string): string | undefined {
    return this.#told.supplied.get(path);
  }
  needs(): { readonly kind: 'needs'; readonly files: readonly string[]; readonly variables: readonly string[] } {
    return { kind: 'needs', files: [...this.#files], variables: [...this.#variables].sort() };
  }
}
