/** `.env` and `env_file` texts: lines of NAME=VALUE with quotes, comments and variables, or `raw` as Docker reads them. */
import { type Findings, type Position, refuse, warn } from './diagnostic.ts';
import { expand, parseTemplate, variablesOf } from './interpolation.ts';

/** One line's meaning. `value` undefined: a bare name, whose value the client's environment has. */
export interface DotenvEntry {
  readonly name: string;
  readonly value: string | undefined;
  /** Variables in `value` are to be expanded (not in single quotes, not in raw files). */
  readonly expands: boolean;
  readonly at: Position;
}

const linePattern = /^\s*(?:export\s+)?([A-Za-z0-9_.[\]-]+)\s*(?:[=:]\s*(.*))?$/s;

/** The entries of a file, in order. */
export function parseDotenv(
  file: string,
  text: string,
  format: '' | 'raw',
  findings: Findings,
): readonly DotenvEntry[] {
  const entries: DotenvEntry[] = [];
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  for (let index = 0; index < lines.length; index++) {
    const line = lines[index]!;
    const at = { file, line: index + 1, column: 1 };
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name, rest] = linePattern.exec(line) ?? [];
    if (name === undefined) {
      refuse(findings, { at, path: '' }, 'this line is not NAME=VALUE', 'correct it, or start it with #');
      continue;
    }
    if (rest === undefined) entries.push({ name, value: undefined, expands: false, at });
    else if (format === 'raw') entries.push({ name, value: line.slice(line.indexOf('=') + 1), expands: false, at });
    else {
      const quote = rest[0];
      if (quote !== '"' && quote !== "'") {
        entries.push({ name, value: rest.replace(/(^|\s+)#.*$/, '').trimEnd(), expands: true, at });
        continue;
      }
      let body = rest.slice(1);
      let end = closing(body, quote);
      while (end < 0 && index + 1 < lines.length) {
        body += `\n${lines[++index]!}`;
        end = closing(body, quote);
      }
      if (end < 0) {
        refuse(findings, { at, path: '' }, `the value of ${name} has no closing ${quote}`, 'close the quote');
        continue;
      }
      if (!/^\s*(#|$)/.test(body.slice(end + 1))) {
        refuse(findings, { at, path: '' }, `something follows the value of ${name}`, 'end the line after its quote');
        continue;
      }
      const value = body.slice(0, end);
      const text = quote === '"' ? unescaped(value) : value.replaceAll("\\'", "'");
      entries.push({ name, value: text, expands: quote === '"', at });
    }
  }
  return entries;
}

/** Variables that the entries ask for. */
export function dotenvVariables(entries: readonly DotenvEntry[]): string[] {
  return entries.flatMap((entry) => {
    if (entry.value === undefined) return [entry.name];
    const pieces = entry.expands ? parseTemplate(entry.value) : [];
    return 'message' in pieces ? [] : variablesOf(pieces);
  });
}

/** The entries' values; a later line sees those before it, the environment goes before both. */
export function evaluateDotenv(
  entries: readonly DotenvEntry[],
  lookup: (name: string) => string | undefined,
  findings: Findings,
): Map<string, string> {
  const values = new Map<string, string>();
  const seen = (name: string) => lookup(name) ?? values.get(name);
  for (const entry of entries) {
    const place = { at: entry.at, path: '' };
    if (entry.value === undefined) {
      const value = lookup(entry.name);
      if (value !== undefined) values.set(entry.name, value);
    } else if (!entry.expands) values.set(entry.name, entry.value);
    else {
      const pieces = parseTemplate(entry.value);
      if ('message' in pieces) {
        refuse(findings, place, pieces.message, 'write $$ for a dollar sign, or use single quotes');
        continue;
      }
      const { text, unset, failure } = expand(pieces, seen);
      if (failure !== undefined) refuse(findings, place, failure, 'set it');
      for (const name of unset)
        warn(findings, place, `variable ${name} is not set: it is empty here`, `set it, or write \${${name}:-}`);
      values.set(entry.name, text);
    }
  }
  return values;
}

const escapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

function closing(body: string, quote: string): number {
  for (let index = 0; index < body.length; index++) {
    if (body[index] === '\\' && (quote === '"' || body[index + 1] === quote)) index++;
    else if (body[index] === quote) return index;
  }
  return -1;
}

function unescaped(text: string): string {
  return text.replace(/\\([abfnrtv"\\$])/g, (_, character: string) => {
    if (character === '$') return '$$';
    return escapes[character] ?? character;
  });
}
