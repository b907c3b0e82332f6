/** What is wrong, where, and what to do about it: the only way this room says no. */

/** A place in a file; lines and columns count from 1. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface Diagnostic extends Position {
  /** As people write it: `services.web.ports[0]`. */
  readonly path: string;
  readonly message: string;
  /** What the user can do; may be empty. */
  readonly remedy: string;
}

/** A value's place, in the file and in the tree. */
export interface Place {
  readonly at: Position;
  readonly path: string;
}

/** Where something is said of a file as a whole. */
export function startOf(file: string): Place {
  return { at: { file, line: 1, column: 1 }, path: '' };
}

/** Collects what a pass over the tree finds. */
export interface Findings {
  readonly errors: Diagnostic[];
  readonly warnings: Diagnostic[];
}

export function refuse(findings: Findings, place: Place, message: string, remedy = ''): undefined {
  findings.errors.push({ ...place.at, path: place.path, message, remedy });
}

export function warn(findings: Findings, place: Place, message: string, remedy = ''): void {
  findings.warnings.push({ ...place.at, path: place.path, message, remedy });
}

/** The candidate that `word` was probably meant to be, within two slips of the finger. */
export function suggestion(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(2, Math.floor(word.length / 2)) + 0.5;
  for (const candidate of candidates) {
    const distance = slips(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Edits between two words, a swap of neighbours being one (optimal string alignment). */
function slips(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, beforeLast[j - 2]! + 1);
      row.push(least);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
