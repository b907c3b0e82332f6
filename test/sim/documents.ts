/** Secrets in the stories: what a spec names is in the store with it, a task has it before it begins, and what nobody names goes. */
import { DocumentWish } from '#control-plane/reconcilers/document-changes.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Mounts } from '#node-agent/task/steps.ts';
import { assert } from '#proto/kernel/errors.ts';
import { contentKey, contentsOf, type DocumentMount } from '#proto/model/document.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { aSecret } from '#test/support/builders.ts';
import type { Invariant } from './invariants.ts';

const texts = [0, 1, 2].map((content) => `the ${content}. text`);

/** Of the service's own secret, in one of three contents; none where the number says so. */
export function randomSecrets(service: string, number: number): DocumentMount[] {
  return number % 3 === 0 ? [] : [aSecret(`demo_${service}`, texts[number % texts.length]).mount];
}

/** `changes`, with the secrets that the spec names. */
export function withSecrets(context: WishContext, spec: ServiceSpec, changes: readonly Change[]): Change[] {
  const wish = new DocumentWish(context);
  for (const mount of spec.template.documents) {
    const { ref, content } = texts
      .map((text) => aSecret(mount.name, text))
      .find(({ ref }) => ref.version === mount.version)!;
    wish.apply({ ...ref, project: spec.project, labels: {}, bytes: 1, seal: () => content });
    wish.refer(ref);
  }
  return [...wish.changes, ...changes];
}

/** An agent's mounts: nothing is mounted, but what is to be must be there. */
export const checkedMounts: Mounts = {
  async prepare({ wanted, contents }) {
    const given = new Map(contents.map((content) => [contentKey(content), content.data]));
    for (const [key, { name }] of contentsOf(wanted.template)) {
      const text = Buffer.from(given.get(key)?.reveal() ?? '').toString();
      const expected = texts.find((text) => contentKey(aSecret(name, text).ref) === key);
      assert(text === expected, `task ${wanted.task.id} has "${text}" as ${key}, not "${expected}"`);
    }
    return [];
  },
  release: async () => {},
  held: async () => [],
};

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
  for (const { item } of truth.all('trash')) if (item.kind === 'service') specs.push(item);
  for (const { spec, previous } of specs) templates.push(spec.template, ...(previous ? [previous.template] : []));
  return new Set(templates.flatMap((template) => [...contentsOf(template).keys()]));
}
