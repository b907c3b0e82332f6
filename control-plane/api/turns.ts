/** One wish after another: of many at once each is decided on what the one before has made, instead of all but one in vain. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `action` when all that came before have ended, well or not. */
  take<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(action, action);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
