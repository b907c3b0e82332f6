/** What a section of the bench hands back, and how it is shown to people. */

/** One measured number beside what it is to be compared with. */
export interface Figure {
  /** The letter of the issue, a to f; net: the network. */
  readonly section: string;
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The same by hand, or by a peer, in the same run. `what` is a column's worth of words. */
  readonly beside?: { readonly what: string; readonly value: number; readonly samples?: readonly number[] };
  readonly target?: { readonly bound: 'at most' | 'at least'; readonly value: number };
  /** Each sample or round, for the JSON. */
  readonly samples?: readonly number[];
}

/** True where the target is met; undefined where there is none. */
export function met({ value, target }: Figure): boolean | undefined {
  if (!target) return undefined;
  return target.bound === 'at most' ? value <= target.value : value >= target.value;
}

/** The value as a share of what it stands beside. */
export function ratio({ value, beside }: Figure): number | undefined {
  return beside && beside.value > 0 ? value / beside.value : undefined;
}

/** An aligned table; numbers to the right. */
export function table(figures: readonly Figure[]): string {
  const head = ['', 'FIGURE', 'VALUE', 'BESIDE', '', 'RATIO', 'TARGET', ''];
  const rows = figures.map((figure) => {
    const { section, name, value, unit, beside, target } = figure;
    const share = ratio(figure);
    const reached = met(figure);
    return [
      section,
      name,
      `${short(value)} ${unit}`,
      beside ? `${short(beside.value)} ${unit}` : '',
      beside?.what ?? '',
      share === undefined ? '' : `${share.toFixed(2)}x`,
      target ? `${target.bound} ${short(target.value)}` : '',
      reached === undefined ? '' : reached ? 'ok' : 'MISSED',
    ];
  });
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]!.length)));
  const right = new Set([2, 3, 5]);
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (right.has(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map(line).join('\n');
}

function short(value: number): string {
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
}
