/** The repository read as text: which files there are, what each imports, and what its code says without comments and strings. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';

export const repository = join(import.meta.dirname, '../..');
export const rooms = ['proto', 'control-plane', 'node-agent', 'net', 'test'] as const;

/** One import: `target` is a path in the repository where the file is ours, else the package's or module's name. */
export interface Import {
  readonly target: string;
  readonly specifier: string;
  readonly ours: boolean;
  readonly typeOnly: boolean;
  readonly line: number;
}

export interface SourceFile {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly text: string;
  /** The text with comments and the insides of strings blanked, its lines where they were. */
  readonly code: string;
  readonly imports: readonly Import[];
}

/** Every hand-written TypeScript file of the rooms, in order of path. */
export function sourceFiles(): SourceFile[] {
  return rooms
    .flatMap((room) => filesBelow(join(repository, room)))
    .map((file) => relative(repository, file))
    .filter((path) => path.endsWith('.ts') && !path.startsWith('proto/gen/'))
    .sort()
    .map((path) => {
      const text = readFileSync(join(repository, path), 'utf8');
      return { path, text, code: blank(text), imports: importsOf(path, text) };
    });
}

/** Imports and re-exports of a file, static and dynamic. */
export function importsOf(path: string, text: string): Import[] {
  const bare = withoutComments(text);
  const found: Import[] = [];
  const statement = /(?:^|[;\n])[ \t]*(import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s*)?['"]([^'"]+)['"]/g;
  for (const match of bare.matchAll(statement)) {
    found.push(importAt(path, bare, match.index + match[0].length, match[3] ?? '', match[2] !== undefined));
  }
  for (const match of bare.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) {
    found.push(importAt(path, bare, match.index, match[1] ?? '', false));
  }
  return found;
}

function importAt(path: string, text: string, index: number, specifier: string, typeOnly: boolean): Import {
  const line = text.slice(0, index).split('\n').length;
  const ours = specifier.startsWith('.') || specifier.startsWith('#');
  const target = specifier.startsWith('#')
    ? specifier.slice(1)
    : specifier.startsWith('.')
      ? posix.normalize(posix.join(dirname(path), specifier))
      : specifier;
  return { target, specifier, ours, typeOnly, line };
}

/** Comments as blanks; strings stay. */
export function withoutComments(text: string): string {
  return scan(text, false);
}

function blank(text: string): string {
  return scan(text, true);
}

/** Walks strings, templates, regular expressions and comments just well enough to tell them from code. */
function scan(text: string, blankStrings: boolean): string {
  const token =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`|(?<=[=(,:!&|?{};\n]\s*)\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+\/[a-z]*/g;
  return text.replace(token, (part) => {
    const isComment = part.startsWith('//') || part.startsWith('/*');
    if (!isComment && !blankStrings) return part;
    if (part.startsWith('`')) return blankTemplate(part);
    return part.replace(/[^\n]/g, ' ');
  });
}

/** The text of a template literal goes, its `${…}` stay: they are code. */
function blankTemplate(part: string): string {
  let depth = 0;
  let result = '';
  for (let index = 0; index < part.length; index++) {
    const char = part[index] as string;
    if (depth === 0 && char === '$' && part[index + 1] === '{') {
      depth = 1;
      index++;
      result += '  ';
    } else if (depth > 0) {
      if (char === '{') depth++;
      if (char === '}') depth--;
      result += depth === 0 ? ' ' : char;
    } else {
      result += char === '\n' ? '\n' : ' ';
    }
  }
  return result;
}

/** Each match of `pattern` in a file's code, as `path:line what`. */
export function occurrences(file: SourceFile, pattern: RegExp): string[] {
  return file.code.split('\n').flatMap((line, index) => {
    const match = pattern.exec(line);
    return match ? [`${file.path}:${index + 1} ${match[0].trim()}`] : [];
  });
}

export function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === 'node_modules' || entry.name.startsWith('.')) return [];
    const path = join(dir, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}
