/** Writes log files as conmon does, rotation on request included. */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';

export class LogWriter {
  readonly path: string;
  #fd: number;
  #count = 0;
  #atUs: number;

  constructor(path: string, startUs: number) {
    this.path = path;
    this.#atUs = startUs;
    this.#fd = openSync(path, 'a');
  }

  /** One record, a microsecond after the one before. */
  line(text: string, stream: 'stdout' | 'stderr' = 'stdout', tag: 'F' | 'P' = 'F'): void {
    this.#atUs++;
    writeSync(this.#fd, `${stamp(this.#atUs)} ${stream} ${tag} ${text}\n`);
  }

  /** `count` lines that are numbered on and on: `line 0`, `line 1` … */
  lines(count: number): void {
    for (let index = 0; index < count; index++) this.line(`line ${this.#count++}`);
  }

  /** What conmon does when it is told to reopen: close, a new file beside, renamed into place. */
  reopen(): void {
    closeSync(this.#fd);
    this.#fd = openSync(`${this.path}.tmp`, 'w');
    renameSync(`${this.path}.tmp`, this.path);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** As conmon prints it. */
export function stamp(atUs: number): string {
  const ms = Math.floor(atUs / 1000);
  return `${new Date(ms).toISOString().slice(0, 19)}.${String(atUs % 1_000_000).padStart(6, '0')}789+00:00`;
}
