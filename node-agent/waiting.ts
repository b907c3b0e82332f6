/** Those who wait for something to happen on this node: they look again whenever something has. */

export class Waiting {
  #looks: (() => void)[] = [];

  /** Resolves when the next thing has happened. Rejects with the signal's reason where that is first. */
  next(signal: AbortSignal): Promise<void> {
    return unlessAborted(new Promise<void>((resolve) => this.#looks.push(resolve)), signal);
  }

  happened(): void {
    for (const look of this.#looks.splice(0)) look();
  }
}

/** The promise, or the signal's reason, whichever is first. */
export function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, reject);
  });
}
