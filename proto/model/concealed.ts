/** Bytes that show themselves to nobody who did not ask: not to a log, not as JSON, not to an inspector. */

const shown = '[concealed]';

export class Concealed {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** The bytes themselves; they are not to be changed, nor put anywhere but where they are for. */
  reveal(): Uint8Array {
    return this.#bytes;
  }

  toString(): string {
    return shown;
  }
  toJSON(): string {
    return shown;
  }
  /** What `util.inspect` and a failed assertion print. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return shown;
  }
}
