/** `configs:` and `secrets:`, of the file and of its services: where the contents come from, and what files they become. */
import { Concealed } from '#proto/model/concealed.ts';
import {
  type DocumentMount,
  type DocumentType,
  documentKey,
  isDocumentName,
  largestBytes,
} from '#proto/model/document.ts';
import { type Findings, type Place, refuse, suggestion } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { refuseBesideExternal } from './external.ts';
import { isMountTarget, readMode } from './mounts.ts';
import { isNull, type KeyReader, readExternal, readKeys, readRecord, readText } from './read.ts';
import type { Tree } from './tree.ts';

/** A document of the file, before its content is known. */
export interface DeclaredDocument {
  readonly type: DocumentType;
  readonly name: string;
  readonly project: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly place: Place;
  /** undefined: it must be there already. */
  readonly source: DocumentSource | undefined;
}

/** What is said of the content, and where. */
export interface DocumentSource {
  readonly from: 'file' | 'content' | 'environment';
  readonly text: string;
  readonly place: Place;
}

/** By their keys in the file. */
export type DeclaredDocuments = Readonly<Record<DocumentType, ReadonlyMap<string, DeclaredDocument>>>;

/** A document that a service uses. */
export interface ResolvedDocument extends Omit<DeclaredDocument, 'source'> {
  /** undefined: it must be there already. */
  readonly content: Concealed | undefined;
}

/** A file's bytes, or only how many there are where that is too many. */
export interface SuppliedData {
  readonly data: Concealed;
  readonly bytes: number;
}

/** Contents that one apply may bring: what one commit holds when they are sealed, beside its services. */
export const mostContentBytes = 4 * 1024 * 1024;
const sourcesOf: Readonly<Record<DocumentType, readonly DocumentSource['from'][]>> = {
  config: ['file', 'content', 'environment'],
  secret: ['file', 'environment'],
};

/** The top-level `configs:` or `secrets:`. */
export function readDocuments(
  findings: Findings,
  tree: Tree | undefined,
  type: DocumentType,
  project: string,
): ReadonlyMap<string, DeclaredDocument> {
  const declared = new Map<string, DeclaredDocument>();
  if (!tree || isNull(tree)) return declared;
  if (tree.kind !== 'map') {
    refuse(findings, tree, `${type}s must be a map`, `write ${type}s: { NAME: { file: ./FILE } }`);
    return declared;
  }
  const owners = new Map<string, string>();
  for (const [key, { keyAt, value }] of tree.entries) {
    if (key.startsWith('x-') || value.tag === 'reset') continue;
    const place = { at: keyAt, path: `${type}s.${key}` };
    const document = readDocument(findings, value, { type, key, project, place });
    const owner = owners.get(document.name);
    if (owner !== undefined)
      refuse(findings, place, `${type}s.${owner} is called "${document.name}" too`, 'give one of them another name:');
    owners.set(document.name, key);
    declared.set(key, document);
  }
  return declared;
}

interface DocumentDraft {
  name: string;
  external: boolean;
  labels: Record<string, string>;
  readonly sources: DocumentSource[];
}

function readDocument(
  findings: Findings,
  tree: Tree,
  { type, key, project, place }: { type: DocumentType; key: string; project: string; place: Place },
): DeclaredDocument {
  const draft: DocumentDraft = { name: '', external: false, labels: {}, sources: [] };
  const source = (from: DocumentSource['from']) => (draft: DocumentDraft, value: Tree) => {
    const text = readText(findings, value);
    if (text !== undefined) draft.sources.push({ from, text, place: value });
  };
  const readers: Record<string, KeyReader<DocumentDraft>> = {
    name: (draft, value) => {
      draft.name = readText(findings, value) ?? '';
    },
    external: (draft, value) => {
      const { external, name } = readExternal(findings, value);
      draft.external = external;
      draft.name ||= name ?? '';
    },
    labels: (draft, value) => {
      draft.labels = readRecord(findings, value);
    },
  };
  for (const from of sourcesOf[type]) readers[from] = source(from);
  readKeys(findings, tree, `a ${type}`, draft, readers, {
    ...(type === 'secret' && {
      content: 'a secret does not belong in the file: use file: or environment:',
      driver: 'remove it: secrets are sealed in the cluster itself',
      driver_opts: 'remove it',
    }),
    template_driver: 'write what differs as ${VARIABLE} under content: of a config',
  });
  const { external, labels, sources } = draft;
  const name = draft.name || (external ? key : `${project}_${key}`);
  if (!isDocumentName(name))
    refuse(findings, place, `"${name}" cannot name a ${type}`, 'use letters, digits, ., - and _, at most 128');
  const words = sourcesOf[type].map((from) => `${from}:`).join(' or ');
  if (external && tree.kind === 'map') refuseBesideExternal(findings, tree);
  else if (sources.length === 0)
    refuse(findings, place, `this ${type} has no content`, `add ${words}, or external: true`);
  else if (sources.length > 1)
    refuse(findings, sources[1]!.place, `this ${type} has two contents`, `keep one of ${words}`);
  return { type, name, project: external ? '' : project, labels, place, source: external ? undefined : sources[0] };
}

/** `configs:` or `secrets:` of a service, both syntaxes. */
export function readServiceDocuments(
  draft: Draft,
  tree: Tree,
  type: DocumentType,
  declared: ReadonlyMap<string, DeclaredDocument>,
): void {
  const { findings } = draft;
  if (tree.kind !== 'list') {
    refuse(findings, tree, `${type}s must be a list`, 'write - NAME');
    return;
  }
  for (const item of tree.items) {
    const before = findings.errors.length;
    const said = { source: '', target: '', uid: 0, gid: 0, mode: 0o444 };
    if (item.kind === 'map')
      readKeys(findings, item, `a ${type} of a service`, said, {
        source: (said, value) => {
          said.source = readText(findings, value) ?? '';
        },
        target: (said, value) => {
          said.target = readText(findings, value) ?? '';
        },
        uid: (said, value) => {
          said.uid = readId(findings, value) ?? 0;
        },
        gid: (said, value) => {
          said.gid = readId(findings, value) ?? 0;
        },
        mode: (said, value) => {
          const mode = readMode(findings, value) ?? 0;
          if (mode > 0o777) refuse(findings, value, 'a file like this has no special bits', 'write 0400 or 0444');
          said.mode = mode;
        },
      });
    else said.source = readText(findings, item, 'a name, or a map') ?? '';
    if (findings.errors.length > before) continue;
    const document = declared.get(said.source);
    const target = targetOf(type, said.target || said.source);
    if (said.source === '') refuse(findings, item, `this ${type} has no source`, `add source: the name of a ${type}`);
    else if (!document) refuseUndeclared(findings, item, type, said.source, declared);
    else if (!isMountTarget(target) || target.endsWith('/'))
      refuse(findings, item, `"${target}" is not a place for a file`, 'write a path in the container');
    else {
      const { uid, gid, mode } = said;
      const mount: DocumentMount = { type, name: document.name, version: '', target, uid, gid, mode };
      draft.documents.push({ value: mount, place: item });
    }
  }
}

/** As with Docker: a secret's target that is no path is a name in /run/secrets, a config's one in /. */
function targetOf(type: DocumentType, target: string): string {
  if (target.startsWith('/')) return target;
  return type === 'secret' ? `/run/secrets/${target}` : `/${target}`;
}

function refuseUndeclared(
  findings: Findings,
  place: Place,
  type: DocumentType,
  name: string,
  declared: ReadonlyMap<string, DeclaredDocument>,
): void {
  const guess = suggestion(name, declared.keys());
  const remedy = guess ? `did you mean "${guess}"?` : `add it under the top-level ${type}s:`;
  refuse(findings, place, `${type} "${name}" is not declared`, remedy);
}

/** A number: what a name means differs from image to image. */
function readId(findings: Findings, tree: Tree): number | undefined {
  const text = tree.kind === 'scalar' ? tree.source : '';
  if (/^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1) return Number(text);
  return refuse(findings, tree, `"${text}" is not the number of a user or group`, 'write the number, such as "1000"');
}

/** Those that services use, in the order of the file. */
export function usedDocuments(declared: DeclaredDocuments, drafts: readonly Draft[]): readonly DeclaredDocument[] {
  const used = new Set(drafts.flatMap(({ documents }) => documents.map(({ value }) => documentKey(value))));
  return [...declared.config.values(), ...declared.secret.values()].filter((document) =>
    used.delete(documentKey(document)),
  );
}

/** What of their contents the client has still to be asked for. */
export function contentsToAsk(
  used: readonly DeclaredDocument[],
  told: { readonly data: ReadonlyMap<string, unknown>; readonly variables: ReadonlyMap<string, unknown> },
): { readonly data: readonly string[]; readonly variables: readonly string[] } {
  const of = (from: DocumentSource['from'], known: ReadonlyMap<string, unknown>) => {
    const texts = used.flatMap(({ source }) => (source?.from === from ? [source.text] : []));
    return [...new Set(texts)].filter((text) => !known.has(text)).sort();
  };
  return { data: of('file', told.data), variables: of('environment', told.variables) };
}

/** With their contents, as far as there are any: what is wrong with them is refused at its place. */
export function withContents(
  findings: Findings,
  used: readonly DeclaredDocument[],
  data: ReadonlyMap<string, SuppliedData | undefined>,
  lookup: (name: string) => string | undefined,
): readonly ResolvedDocument[] {
  let total = 0;
  return used.map(({ source, ...document }) => {
    if (!source) return { ...document, content: undefined };
    const content = contentOf(findings, document.type, source, data, lookup);
    const bytes = content?.bytes ?? 0;
    const most = largestBytes[document.type];
    total += bytes;
    if (bytes > most)
      refuse(findings, source.place, `this ${document.type} has ${bytes} bytes`, `at most ${most} fit: use a volume`);
    else if (total > mostContentBytes && total - bytes <= mostContentBytes)
      refuse(
        findings,
        source.place,
        'with this, the configs and secrets of the file are too large for one apply',
        `at most ${mostContentBytes} bytes fit: put some into a project of their own, and write external: true here`,
      );
    return { ...document, content: content?.data };
  });
}

function contentOf(
  findings: Findings,
  type: DocumentType,
  { from, text, place }: DocumentSource,
  data: ReadonlyMap<string, SuppliedData | undefined>,
  lookup: (name: string) => string | undefined,
): SuppliedData | undefined {
  if (from === 'file')
    return (
      data.get(text) ??
      refuse(findings, place, `the file ${text} of this ${type} is not there`, 'create it, or correct the path')
    );
  const value = from === 'content' ? text : lookup(text);
  if (value === undefined)
    return refuse(
      findings,
      place,
      `variable ${text}, which holds this ${type}, is not set`,
      'set it in the environment or in .env',
    );
  const bytes = new TextEncoder().encode(value);
  return { data: new Concealed(bytes), bytes: bytes.length };
}

/** The first problem of files at one place: two of them, or one where a volume is. */
export function refuseSharedTargets({ findings, documents, mounts }: Draft): void {
  const taken = new Map<string, string>(mounts.map(({ value }) => [value.target, 'a volume']));
  for (const { value, place } of documents) {
    const owner = taken.get(value.target);
    if (owner !== undefined)
      refuse(findings, place, `${owner} has the target ${value.target} too`, 'give one of them another target:');
    taken.set(value.target, `${value.type} ${value.name}`);
  }
}
