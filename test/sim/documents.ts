/** Secrets in the stories: what a spec names is in the store with it, a task has it before it begins, and what nobody names goes. */
import { DocumentWish, type WantedDocument } from '#control-plane/reconcilers/document-changes.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { assert } from '#proto/kernel/errors.ts';
import { Concealed } from '#proto/model/concealed.ts';
import {
  contentKey,
  contentsOf,
  type DocumentMount,
  type DocumentRef,
  type DocumentType,
  documentKey,
} from '#proto/model/document.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { aDocument, aSecret } from '#test/support/builders.ts';
import { testSeal } from '#test/support/test-seal.ts';
import type { Invariant } from './invariants.ts';

/** All that documents ever say. */
export const texts = [0, 1, 2].map((content) => `the ${content}. text`);

/** Of the service's own secret, in one of three contents; none where the number says so. */
export function randomSecrets(service: string, number: number): DocumentMount[] {
  return number % 3 === 0 ? [] : [aSecret(`demo_${service}`, texts[number % texts.length]).mount];
}

/** `changes`, with the secrets that the spec names. */
export function withSecrets(context: WishContext, spec: ServiceSpec, changes: readonly Change[]): Change[] {
  const wish = new DocumentWish(context);
  for (const mount of spec.template.documents) {
    const { type, name } = mount;
    const known = context.snapshot.get('document', documentKey(mount))?.value;
    if (known?.project !== '') wish.apply(wanted(type, name, expectedText(mount)!, spec.project));
    wish.refer(mount);
  }
  return [...wish.changes, ...changes];
}

/** As somebody brings it; `project` empty: by hand. */
export function wanted(type: DocumentType, name: string, text: string, project: string): WantedDocument {
  const { ref, content } = aDocument(type, name, text);
  return { ...ref, project, labels: {}, bytes: 1, seal: () => content };
}

/** What a version holds; undefined: none of the stories writes it. */
export function expectedText(ref: DocumentRef): string | undefined {
  return texts.find((text) => testSeal.version(ref, new Concealed(Buffer.from(text))) === ref.version);
}

export const contentsAreKept: Invariant = {
  name: 'contents are there as long as something refers to them, and no longer',
  step({ changes }, { truth }) {
    const gone = changes.flatMap((change) => (change.table === 'content' && !change.after ? [change.key] : []));
    if (gone.length === 0) return;
    const referred = referredIn(truth);
    for (const key of gone) assert(!referred.has(key), `${key} is gone, and referred to`);
  },
  calm({ truth }) {
    const referred = referredIn(truth);
    for (const key of referred) assert(truth.get('content', key) !== undefined, `${key} is referred to, and not there`);
    for (const document of truth.all('document')) referred.add(contentKey(document));
    for (const content of truth.all('content'))
      assert(referred.has(contentKey(content)), `nobody needs ${contentKey(content)}`);
  },
};

/** By a walk over everything. */
function referredIn(truth: Snapshot): Set<string> {
  const templates = [...truth.all('revision')].map(({ template }) => template);
  const specs: Pick<Service, 'spec' | 'previous'>[] = [...truth.all('service')];
  for (const { spec } of truth.all('version')) specs.push({ spec, previous: undefined });
  const kept: DocumentRef[] = [];
  for (const { item } of truth.all('trash')) {
    if (item.kind === 'service') specs.push(item);
    if (item.kind !== 'document') continue;
    const { type, name, versions } = item.document;
    kept.push(...versions.map(({ version }) => ({ type, name, version })));
  }
  for (const { spec, previous } of specs) templates.push(spec.template, ...(previous ? [previous.template] : []));
  return new Set([...kept.map(contentKey), ...templates.flatMap((template) => [...contentsOf(template).keys()])]);
}
