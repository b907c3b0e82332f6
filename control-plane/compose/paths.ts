/** Relative paths of a file that lies elsewhere than the project, as the project sees them. */
import { mapEntry, mapItems, mapScalars, type ScalarTree, type Tree } from './tree.ts';

/** `path`, which is relative to `base`, from the project's directory; an empty base is that directory. */
export function fromBase(base: string, path: string): string {
  if (base === '' || path.startsWith('/') || path.startsWith('~') || path.includes('://')) return path;
  return normalizedPath(`${base}/${path}`);
}

/** Without `.`, empty parts and the `..` that can be told. */
export function normalizedPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    const last = parts.at(-1);
    if (part === '' || part === '.') continue;
    if (part === '..' && last !== undefined && last !== '..') parts.pop();
    else if (part !== '..' || !path.startsWith('/')) parts.push(part);
  }
  return (path.startsWith('/') ? '/' : '') + parts.join('/');
}

/** The directory of a file; empty: the project's. */
export function directoryOf(path: string): string {
  const cut = path.lastIndexOf('/');
  return cut < 0 ? '' : cut === 0 ? '/' : normalizedPath(path.slice(0, cut));
}

/** The file's tree with every relative path seen from the project. */
export function rebasePaths(file: Tree, base: string): Tree {
  if (base === '') return file;
  const path = (scalar: ScalarTree) => withText(scalar, fromBase(base, scalar.source));
  const every = (tree: Tree) => mapScalars(tree, path);
  const pathsOf =
    (...keys: readonly string[]) =>
    (tree: Tree) =>
      keys.reduce((tree, key) => mapEntry(tree, key, every), tree);
  const files = (tree: Tree) => mapItems(tree, (item) => mapEntry(item, 'file', every));
  const service = (tree: Tree) => {
    const own = pathsOf('label_file')(tree);
    const extended = mapEntry(own, 'extends', (value) =>
      value.kind === 'map' ? mapEntry(value, 'file', every) : value,
    );
    const env = mapEntry(extended, 'env_file', (value) =>
      mapItems(value, (item) => (item.kind === 'map' ? mapEntry(item, 'path', every) : every(item))),
    );
    const build = mapEntry(env, 'build', (value) => (value.kind === 'map' ? pathsOf('context')(value) : every(value)));
    const security = mapEntry(build, 'security_opt', (value) => mapItems(value, (item) => rebaseOption(item, base)));
    return mapEntry(security, 'volumes', (value) => mapItems(value, (item) => rebaseMount(item, base)));
  };
  const include = mapEntry(file, 'include', (value) =>
    mapItems(value, (item) =>
      item.kind === 'map' ? pathsOf('path', 'project_directory', 'env_file')(item) : every(item),
    ),
  );
  const services = mapEntry(include, 'services', (value) => mapItems(value, service));
  return mapEntry(mapEntry(services, 'configs', files), 'secrets', files);
}

/** A seccomp profile is a file, unless it is one of the words for those that have none. */
function rebaseOption(item: Tree, base: string): Tree {
  if (item.kind !== 'scalar') return item;
  const [, name, path] = /^(seccomp[:=])(?!unconfined$|builtin$)(.+)$/.exec(item.source) ?? [];
  return name === undefined || path === undefined ? item : withText(item, name + fromBase(base, path));
}

/** Only what is written as a path is one: anything else names a volume. */
function rebaseMount(item: Tree, base: string): Tree {
  if (item.kind === 'scalar') {
    const [source = '', ...rest] = item.source.split(':');
    return rest.length > 0 && source.startsWith('.')
      ? withText(item, [pathLike(fromBase(base, source)), ...rest].join(':'))
      : item;
  }
  return mapEntry(item, 'source', (source) =>
    source.kind === 'scalar' && source.source.startsWith('.')
      ? withText(source, pathLike(fromBase(base, source.source)))
      : source,
  );
}

function pathLike(path: string): string {
  return path.startsWith('/') || path.startsWith('.') ? path : `./${path}`;
}

function withText(scalar: ScalarTree, text: string): ScalarTree {
  return scalar.value === null ? scalar : { ...scalar, value: text, source: text };
}
