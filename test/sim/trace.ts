/** Everything that happens in a world, one line each: hashed, so that two runs can be compared, and the last of it kept for people. */
import { createHash } from 'node:crypto';
import { describe } from '#proto/kernel/errors.ts';
import type { Log, LogFields } from '#proto/kernel/log.ts';

/** Lines shown when a world breaks. */
const keptLines = 60;
const hashedAtOnce = 2 ** 16;

export class Trace {
  readonly #hash = createHash('sha256');
  readonly #last: string[] = [];
  readonly #now: () => number;
  readonly #print: ((line: string) => void) | undefined;
  #frozen = false;
  /** Noted, and not hashed yet: many small pieces cost more than one large. */
  #unhashed = '';
  /** When something was noted last, simulated ms. */
  notedAtMs = 0;

  /** `now`: simulated ms since the begin; `print` gets every line. */
  constructor(now: () => number, print?: (line: string) => void) {
    this.#now = now;
    this.#print = print;
  }

  /** `detail` is hashed, but not shown. */
  note(text: string, detail = ''): void {
    if (this.#frozen) return;
    this.notedAtMs = this.#now();
    const line = `${this.notedAtMs.toFixed(0).padStart(7)} ${text}`;
    this.#unhashed += `${line}${detail}\n`;
    if (this.#unhashed.length > hashedAtOnce) this.#rehash();
    this.#print?.(line);
    this.#last.push(line);
    if (this.#last.length > 2 * keptLines) this.#last.splice(0, keptLines);
  }

  /** Something broke: what follows is of no interest. */
  freeze(): void {
    this.#frozen = true;
  }

  #rehash(): void {
    this.#hash.update(this.#unhashed);
    this.#unhashed = '';
  }

  get hash(): string {
    this.#rehash();
    return this.#hash.copy().digest('hex');
  }
  get last(): string {
    return this.#last.slice(-keptLines).join('\n');
  }

  /** What a process of the world logs is part of what happens. */
  log(part: string): Log {
    const say = (level: string) => (message: string, fields?: LogFields) =>
      this.note(`${part} ${level} ${message}${wordsOf(fields)}`);
    return {
      debug() {},
      info: say('info'),
      warn: say('warn'),
      error: say('error'),
      with: (name) => this.log(part === '' ? name : `${part}/${name}`),
    };
  }
}

function wordsOf(fields: LogFields = {}): string {
  let words = '';
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined || value === '') continue;
    const text = key === 'error' ? describe(value) : String(value);
    words += ` ${key}=${text.length > 60 ? `${text.slice(0, 60)}…` : text}`;
  }
  return words;
}
