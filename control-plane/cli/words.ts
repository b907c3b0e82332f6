/** Tables, times and sizes for people, and what they write as NAME=VALUE. */
import { Fault } from '#proto/kernel/errors.ts';

const escapes = /\x1b\[[0-9;]*m/g;

/** Columns that a text takes on a terminal. */
export function width(text: string): number {
  let columns = 0;
  for (const character of text.replace(escapes, '')) {
    const point = character.codePointAt(0)!;
    if (point < 0x20 || (point >= 0x300 && point <= 0x36f) || point === 0x200d || (point >= 0xfe00 && point <= 0xfe0f))
      continue;
    columns += isWide(point) ? 2 : 1;
  }
  return columns;
}

function isWide(point: number): boolean {
  return (
    (point >= 0x1100 && point <= 0x115f) ||
    (point >= 0x2e80 && point <= 0xa4cf) ||
    (point >= 0xac00 && point <= 0xd7a3) ||
    (point >= 0xf900 && point <= 0xfaff) ||
    (point >= 0xfe30 && point <= 0xfe6f) ||
    (point >= 0xff00 && point <= 0xff60) ||
    (point >= 0xffe0 && point <= 0xffe6) ||
    (point >= 0x1f300 && point <= 0x1faff) ||
    (point >= 0x20000 && point <= 0x3fffd)
  );
}

/** What is left of a text of several lines, in columns: it tells what it is, and `inspect` tells the rest. */
const severalLinesColumns = 120;
const controls = /\x1b(?!\[[0-9;]*m)|[\x00-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029]/;

/** Others' words on one line: of several, as of a page that a health check was answered with, the beginning. Colours stay. */
export function oneLine(text: string): string {
  if (!controls.test(text)) return text;
  const folded = text.replace(new RegExp(`(?:\\s|${controls.source})+`, 'g'), ' ').trim();
  if (width(folded) <= severalLinesColumns) return folded;
  let kept = '';
  for (const [part] of folded.matchAll(/\x1b\[[0-9;]*m|./gu)) {
    const isColour = part.startsWith('\x1b[');
    if (!isColour && width(kept + part) >= severalLinesColumns) break;
    kept += part;
  }
  const [ending = ''] = /(?:\x1b\[[0-9;]*m)*$/.exec(folded) ?? [];
  return `${kept.trimEnd()}…${ending}`;
}

/** Aligned columns under their heads; the last one is not padded. Every cell is one line. */
export function table(
  heads: readonly string[],
  cells: readonly (readonly string[])[],
  bold: (text: string) => string = (text) => text,
): string {
  const rows = cells.map((row) => row.map(oneLine));
  const widths = heads.map((head, column) => Math.max(width(head), ...rows.map((row) => width(row[column] ?? ''))));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (column === cells.length - 1 ? cell : cell + ' '.repeat(widths[column]! - width(cell))))
      .join('   ')
      .trimEnd();
  return [bold(line(heads)), ...rows.map(line)].join('\n');
}

/** `12 seconds`, `3 minutes`, `2 hours`, `5 days`. */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  const count = (amount: number, unit: string) => `${amount} ${unit}${amount === 1 ? '' : 's'}`;
  if (seconds < 120) return count(seconds, 'second');
  if (seconds < 7_200) return count(Math.floor(seconds / 60), 'minute');
  if (seconds < 172_800) return count(Math.floor(seconds / 3_600), 'hour');
  return count(Math.floor(seconds / 86_400), 'day');
}

/** `3 minutes ago`; empty for 0. */
export function ago(atMs: number, nowMs: number): string {
  if (atMs === 0) return '';
  return nowMs - atMs < 1_000 ? 'just now' : `${span(nowMs - atMs)} ago`;
}

/** `64 MiB`. */
export function bytes(amount: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = amount;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `0.25` cores of thousandths. */
export function cores(millis: number): string {
  return String(millis / 1_000);
}

/** Local time to the second. */
export function clockTime(ms: number): string {
  const date = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19).replace('T', ' ');
}

/** NAME=VALUE each; `what` they are called. Faults: `invalid`. */
export function pairs(texts: readonly string[], what: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const text of texts) {
    const cut = text.indexOf('=');
    const key = cut < 0 ? text : text.slice(0, cut);
    if (key === '') throw new Fault('invalid', `"${text}" is not a ${what}`, { remedy: 'write NAME=VALUE' });
    found[key] = cut < 0 ? '' : text.slice(cut + 1);
  }
  return found;
}
