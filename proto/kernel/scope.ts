/** A lifetime: what is opened in it is closed with it, in reverse order, once. */
export class Scope {
  readonly #controller = new AbortController();
  readonly #cleanups: (() => void | Promise<void>)[] = [];
  #closed: Promise<void> | undefined;

  /** Aborts when the scope begins to close. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get closing(): boolean {
    return this.#closed !== undefined;
  }

  /** Runs `cleanup` when the scope closes; at once if it already does. */
  defer(cleanup: () => void | Promise<void>): void {
    if (this.#closed) void cleanup();
    else this.#cleanups.push(cleanup);
  }

  /** A scope that closes with this one, or earlier. */
  child(): Scope {
    const child = new Scope();
    this.defer(() => child.close());
    return child;
  }

  /** Closes it; every cleanup runs, and the first failure is thrown after the last one. */
  close(): Promise<void> {
    this.#closed ??= this.#run();
    return this.#closed;
  }

  async #run(): Promise<void> {
    this.#controller.abort(new Error('the scope is closed'));
    let failure: { error: unknown } | undefined;
    for (let cleanup = this.#cleanups.pop(); cleanup; cleanup = this.#cleanups.pop()) {
      try {
        await cleanup();
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure) throw failure.error;
  }
}
