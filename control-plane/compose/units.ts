/** Compose's ways to write durations, sizes and shares of a processor. */

const durationUnits: Readonly<Record<string, number>> = {
  us: 0.001,
  µs: 0.001,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const byteUnits: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** `1m30s`, `500ms`, `0` in ms; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  if (!/^(?:\d+(?:\.\d+)?(?:us|µs|ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d)/g))
    total += Number(amount) * durationUnits[unit!]!;
  return Number.isSafeInteger(Math.round(total)) ? Math.round(total) : undefined;
}

/** `64M`, `1.5gb`, `1024` in bytes, binary units; undefined for anything else. */
export function parseBytes(text: string): number | undefined {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib|t|tb|tib|)$/i.exec(text) ?? [];
  if (amount === undefined) return undefined;
  const bytes = Math.round(Number(amount) * byteUnits[(unit ?? '').toLowerCase().slice(0, 1)]!);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** `0.5` cores in thousandths; undefined for anything else. */
export function parseCpus(text: string): number | undefined {
  if (!/^\d+(\.\d+)?$/.test(text)) return undefined;
  const millis = Math.round(Number(text) * 1_000);
  return millis <= 1_000_000 ? millis : undefined;
}

/** `0440`, `440` or `0o440` as the number that chmod takes; undefined for anything else. */
export function parseOctal(source: string): number | undefined {
  const [, digits] = /^(?:0o?)?([0-7]{1,4})$/.exec(source) ?? [];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

const bitUnits: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };

/** `500kbit`, `10mbit`, `1.5gbit` in bits per second, decimal as tc's; undefined for anything else, and outside 8 kbit to 32 gbit. */
export function parseBitRate(text: string): number | undefined {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(bit|kbit|mbit|gbit)$/i.exec(text) ?? [];
  if (amount === undefined || unit === undefined) return undefined;
  const bits = Math.round(Number(amount) * bitUnits[unit.toLowerCase()]!);
  return bits >= 8e3 && bits <= 32e9 ? bits : undefined;
}
