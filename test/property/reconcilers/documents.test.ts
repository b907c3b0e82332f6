/** What is kept of configs and secrets is what something refers to, whatever comes and goes: against a walk over all records. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { DocumentWish, reapDocument } from '#control-plane/reconcilers/document-changes.ts';
import { DocumentUse } from '#control-plane/reconcilers/document-usage.ts';
import { applyService, rollbackService, type WishContext } from '#control-plane/reconcilers/service-changes.ts';
import { discardDocuments, discardServices, emptied, undo } from '#control-plane/reconcilers/trash.ts';
import type { Applied, Change } from '#control-plane/store/records.ts';
import { LiveSnapshot, revisionKey } from '#control-plane/store/snapshot.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { contentKey, type DocumentRef, documentKey } from '#proto/model/document.ts';
import type { Service } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';

const names = ['a', 'b'] as const;
const step = fc.oneof(
  fc.record({
    do: fc.constant('apply' as const),
    service: fc.nat(2),
    uses: fc.array(fc.record({ name: fc.constantFrom(...names), content: fc.nat(2) }), { maxLength: 2 }),
  }),
  fc.record({
    do: fc.constantFrom('rollback' as const, 'remove' as const, 'forget' as const, 'gone' as const),
    service: fc.nat(2),
  }),
  fc.record({
    do: fc.constantFrom(
      'undo' as const,
      'undo services' as const,
      'empty' as const,
      'empty documents' as const,
      'remove by hand' as const,
    ),
  }),
  fc.record({ do: fc.constant('by hand' as const), content: fc.nat(2) }),
  fc.record({ do: fc.constant('reap' as const) }),
  fc.record({ do: fc.constant('new leader' as const) }),
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A cluster's records, and the reaper's memory beside them. */
class Model {
  readonly snapshot = new LiveSnapshot();
  use = DocumentUse.of(this.snapshot);
  readonly left = new Set<string>();
  #mod = 0;
  #ids = 0;

  get context(): WishContext {
    return { snapshot: this.snapshot, now: this.#mod, newId: () => `id${this.#ids++}`.padEnd(25, '0') };
  }

  commit(changes: readonly Change[]): void {
    this.#mod++;
    const applied: Applied[] = [];
    for (const { table, key, value, expect: guard } of changes) {
      expect(this.snapshot.get(table, key)?.modRevision ?? 0).toBe(guard);
      const change = this.snapshot.apply(table, key, value as never, this.#mod);
      if (change) applied.push(change);
    }
    for (const key of this.use.apply({ revision: this.#mod, changes: applied })) this.left.add(key);
  }

  reap(): void {
    const keys = [...this.left];
    this.left.clear();
    for (const key of keys) this.commit(reapDocument(this.snapshot, this.use, key));
  }

  service(number: number): Service | undefined {
    return this.snapshot.serviceNamed('demo', `s${number}`);
  }

  put(wish: DocumentWish, name: string, content: number, project: string): DocumentRef {
    const ref = { type: 'secret', name, version: `v${content}` } as const;
    wish.apply({ ...ref, project, labels: {}, bytes: 1, seal: () => ({ ...ref, sealed: 'sealed' }) });
    return ref;
  }

  /** All that something refers to, by looking at everything. */
  referred(): Set<string> {
    const templates = [...this.snapshot.all('revision')].map(({ template }) => template);
    const refs: DocumentRef[] = [];
    const specs: Pick<Service, 'spec' | 'previous'>[] = [...this.snapshot.all('service')];
    for (const { spec } of this.snapshot.all('version')) specs.push({ spec, previous: undefined });
    for (const { item } of this.snapshot.all('trash')) {
      if (item.kind === 'service') specs.push(item);
      else if (item.kind === 'document')
        refs.push(...item.document.versions.map(({ version }) => ({ ...item.document, version })));
    }
    for (const { spec, previous } of specs) templates.push(spec.template, ...(previous ? [previous.template] : []));
    return new Set([...refs, ...templates.flatMap(({ documents }) => documents)].map(contentKey));
  }
}

function run(model: Model, step: Step): void {
  switch (step.do) {
    case 'reap':
      model.reap();
      break;
    case 'new leader':
      model.use = DocumentUse.of(model.snapshot);
      for (const document of model.snapshot.all('document')) model.left.add(documentKey(document));
      break;
    case 'by hand': {
      const wish = new DocumentWish(model.context);
      model.put(wish, 'hand', step.content, '');
      model.commit(wish.changes);
      break;
    }
    case 'apply':
      model.commit(attempt(() => applied(model, step)));
      break;
    case 'undo':
      model.commit(attempt(() => undo(model.context, '').changes));
      break;
    case 'undo services':
      model.commit(attempt(() => undo(model.context, 'demo').changes));
      break;
    case 'empty':
      model.commit([...model.snapshot.all('trash')].flatMap((trashed) => emptied(model.snapshot, trashed)));
      break;
    case 'empty documents': {
      const documents = [...model.snapshot.all('trash')].filter(({ item }) => item.kind === 'document');
      model.commit(documents.flatMap((trashed) => emptied(model.snapshot, trashed)));
      break;
    }
    case 'remove by hand':
      model.commit(attempt(() => discardDocuments(model.context, 'secret', ['hand'])));
      break;
    default: {
      const service = model.service(step.service);
      if (service) model.commit(ended(model, service, step.do));
    }
  }
}

function applied(model: Model, { service, uses }: Extract<Step, { do: 'apply' }>): readonly Change[] {
  const { snapshot, context } = model;
  const wish = new DocumentWish(context);
  const refs = [...new Map(uses.map(({ name, content }) => [name, content]))].map(([name, content]) =>
    model.put(wish, name, content, 'demo'),
  );
  const hand = snapshot.get('document', 'secret/hand')?.value;
  if (hand) refs.push({ type: 'secret', name: 'hand', version: hand.version });
  for (const ref of refs) wish.refer(ref);
  const documents = refs.map((ref) => ({ ...ref, target: `/${ref.name}`, uid: 0, gid: 0, mode: 0 }));
  const spec = aSpec(`s${service}`, { template: aTemplate({ documents }) });
  return [...wish.changes, ...applyService(context, spec)];
}

/** Back to the spec before, without its old history, to the trash, or gone with all of it. */
function ended(
  { snapshot, context }: Model,
  service: Service,
  how: 'rollback' | 'forget' | 'remove' | 'gone',
): readonly Change[] {
  if (how === 'rollback') return attempt(() => rollbackService(context, service.id));
  if (how === 'remove') return discardServices(context, [service]);
  if (how === 'gone' && !service.removing) return [];
  const gone = (table: 'revision' | 'version' | 'service', key: string): Change => {
    return { table, key, value: undefined, expect: snapshot.get(table, key)!.modRevision };
  };
  const old = ({ number }: { readonly number: number }) => how === 'gone' || number < service.previousRevision;
  const keyOf = ({ number }: { readonly number: number }) => revisionKey(service.id, number);
  const changes = [
    ...[...snapshot.revisionsOfService(service.id)].filter(old).map((one) => gone('revision', keyOf(one))),
    ...[...snapshot.versionsOfService(service.id)].filter(old).map((one) => gone('version', keyOf(one))),
  ];
  return how === 'gone' ? [...changes, gone('service', service.id)] : changes;
}

/** Nothing where it is refused. */
function attempt(decide: () => readonly Change[]): readonly Change[] {
  try {
    return decide();
  } catch (error) {
    if (!isFault(error, 'not-found', 'conflict', 'exists', 'precondition')) throw error;
    return [];
  }
}

const steps = fc.array(step, { maxLength: 60 });

/** Too rare among random ones: a service comes back after its secret has gone to the trash as well. */
const withItsSecret: Step[] = [
  { do: 'by hand', content: 0 },
  { do: 'apply', service: 0, uses: [] },
  { do: 'remove', service: 0 },
  { do: 'gone', service: 0 },
  { do: 'remove by hand' },
  { do: 'undo services' },
];

it('keeps every content that is referred to, listed where a service has it, and after a look no other', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const model = new Model();
      for (const step of steps) {
        run(model, step);
        for (const key of model.referred()) expect(model.snapshot.get('content', key)).toBeDefined();
        for (const { spec, removing } of model.snapshot.all('service'))
          for (const ref of removing ? [] : spec.template.documents)
            expect(model.snapshot.get('document', documentKey(ref))).toBeDefined();
      }
      model.reap();
      const kept = model.referred();
      for (const { type, name, project, version, versions } of model.snapshot.all('document')) {
        const used = versions.some((one) => model.referred().has(contentKey({ type, name, version: one.version })));
        // What was made by hand stays without a user.
        expect(used || project === '').toBe(true);
        // The current version stays with its document, whoever refers to another one.
        kept.add(contentKey({ type, name, version }));
      }
      expect([...model.snapshot.all('content')].map(contentKey).sort()).toEqual([...kept].sort());
    }),
    { examples: [[withItsSecret]] },
  );
});
