/** Every key of a Compose file and what becomes of it, told by the readers themselves: they run over a file that has all keys in all shapes. */
import { fileNotes, serviceNotes } from './key-notes.ts';
import { readFile } from './resolve.ts';
import type { Entry, ListTree, MapTree } from './tree.ts';

export interface KeyRow {
  /** `services.*.ports.target`: `*` is a name that the user chooses; what the items of a list have stands below the list. */
  readonly path: string;
  readonly honoured: boolean;
  /** What the key means here, or what to do instead; undefined where nobody wrote it down. */
  readonly note: string | undefined;
}

const at = { file: '', line: 1, column: 1 };
/** What the maps have in which users, or the kernel, choose the keys. */
const freeNames = ['default', 'nofile'];
const servicePath = 'services.*.';

/** By path. */
export function keyTable(): readonly KeyRow[] {
  const rows = new Map<string, KeyRow>();
  const add = (path: string, honoured: boolean, note: string | undefined) => {
    if (!rows.get(path)?.honoured) rows.set(path, { path, honoured, note });
  };
  const anyMap = (path: string): MapTree => ({
    kind: 'map',
    at,
    path,
    tag: '',
    entries: new AnyEntries(path, anyMap),
    everyKey: (known, later) => {
      for (const key of known) add(below(path, key), true, noteOf(below(path, key)));
      for (const [key, remedy] of Object.entries(later)) add(below(path, key), false, remedy);
      return known.flatMap((key) => {
        const map = anyMap(below(path, key));
        const list: ListTree = { kind: 'list', at, path: map.path, tag: '', items: [map] };
        return [map, list].map((value): [string, Entry] => [key, { keyAt: at, value }]);
      });
    },
  });
  readFile({ errors: [], warnings: [] }, anyMap(''), 'any');
  return [...rows.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Has whatever it is asked for; who looks at all of it sees the free names. */
class AnyEntries extends Map<string, Entry> {
  readonly #path: string;
  readonly #anyMap: (path: string) => MapTree;

  constructor(path: string, anyMap: (path: string) => MapTree) {
    const entry = {
      keyAt: at,
      get value() {
        return anyMap(below(path, '*'));
      },
    };
    super(freeNames.map((name) => [name, entry]));
    this.#path = path;
    this.#anyMap = anyMap;
  }
  override get(key: string): Entry {
    return { keyAt: at, value: this.#anyMap(below(this.#path, key)) };
  }
}

function below(path: string, key: string): string {
  return path ? `${path}.${key}` : key;
}

function noteOf(path: string): string | undefined {
  return path.startsWith(servicePath) ? serviceNotes[path.slice(servicePath.length)] : fileNotes[path];
}

/** Notes on keys that nobody reads. */
export function idleNotes(): string[] {
  const read = new Set(keyTable().flatMap(({ path, honoured }) => (honoured ? [path] : [])));
  const notes = [...Object.keys(fileNotes), ...Object.keys(serviceNotes).map((key) => servicePath + key)];
  return notes.filter((path) => !read.has(path));
}
