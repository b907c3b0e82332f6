/** Configs and secrets that are rotated under the services that have them: who began with a version keeps it, who begins gets that of its revision, and nothing is left of what nobody names. */
import { putDocument } from '#control-plane/reconcilers/document-changes.ts';
import { applyService, rollbackService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { discardDocuments, discardServices, undo } from '#control-plane/reconcilers/trash.ts';
import { contentKey, contentsOf, type DocumentType } from '#proto/model/document.ts';
import { containerSpec, type ServiceSpec } from '#proto/model/service.ts';
import { aDocument, aSpec, aTemplate } from '#test/support/builders.ts';
import { texts, wanted, withSecrets } from '../documents.ts';
import { nameOf } from '../named.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

/** Made by hand, and used by all; and one that is nobody's. */
const byHand: readonly (readonly [DocumentType, string])[] = [
  ['secret', 'key'],
  ['config', 'motd'],
  ['secret', 'spare'],
];
const names = ['gate', 'desk-clerk', 'porter'];

/** `number` says which of its own config, and what it names of those made by hand. */
function specOf({ truth }: World, name: string, number: number): ServiceSpec {
  const own = aDocument('config', `demo_${name}`, texts[number % texts.length]).mount;
  const others = byHand.slice(0, number % 3).map(([type, document]) => {
    const version = truth.get('document', `${type}/${document}`)?.value.version;
    return texts.map((text) => aDocument(type, document, text).mount).find((mount) => mount.version === version);
  });
  return aSpec(name, {
    replicas: 1 + (number % 3),
    mode: name === 'porter' ? 'global' : 'replicated',
    // So that twenty nodes have gone over before the story's patience ends.
    update: { ...aSpec(name).update, parallelism: 3, monitorMs: 1_000 },
    template: aTemplate({
      container: containerSpec(`reader:${number}`),
      documents: [own, ...others.flatMap((mount) => mount ?? [])],
    }),
  });
}

const textOf = ({ random }: World) => texts[random.int(texts.length)]!;

const wishes: readonly Wish[] = [
  {
    name: 'rotate a document',
    make(world) {
      const [type, name] = byHand[world.random.int(byHand.length)]!;
      const text = textOf(world);
      world.wish(`${type} set ${name}`, (context) => [...putDocument(context, wanted(type, name, text, '')).changes]);
    },
  },
  {
    name: 'rotate one twice at once',
    make(world) {
      const [type, name] = byHand[world.random.int(2)]!;
      for (const afterMs of [0, world.random.int(400), 400 + world.random.int(800)]) {
        const text = textOf(world);
        world.clock.after(afterMs, () =>
          world.wish(`${type} set ${name}`, (context) => [
            ...putDocument(context, wanted(type, name, text, '')).changes,
          ]),
        );
      }
    },
  },
  {
    name: 'another config of its own',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const next = specOf(world, spec.name, world.random.int(100));
        world.wish(`update ${spec.name}`, (context) =>
          withSecrets(context, next, updateService(context, id, { ...next, mode: spec.mode })),
        );
      }),
  },
  {
    name: 'back to the contents of before',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) =>
        world.wish(`rollback ${spec.name}`, (context) => rollbackService(context, id)),
      ),
  },
  {
    name: 'remove a reader, and take it back or not',
    make: (world) =>
      withNamed(world, names, ({ spec }) => {
        world.wish(`rm ${spec.name}`, (context) => {
          const service = context.snapshot.serviceNamed(spec.project, spec.name);
          return service ? discardServices(context, [service]) : [];
        });
        const back = world.random.int(2) === 0;
        const number = world.random.int(100);
        world.clock.after(500 + world.random.int(5_000), () => {
          if (back) world.wish(`undo ${spec.name}`, (context) => [...undo(context, spec.name).changes]);
          world.clock.after(1_000, () => apply(world, spec.name, number));
        });
      }),
  },
  {
    name: 'remove a document, and take it back or not',
    make(world) {
      const [type, name] = byHand[world.random.int(byHand.length)]!;
      world.wish(`${type} rm ${name}`, (context) => discardDocuments(context, type, [name]));
      const text = textOf(world);
      if (world.random.int(2) === 0)
        world.clock.after(world.random.int(2_000), () =>
          world.wish(`undo ${name}`, (context) => [...undo(context, name).changes]),
        );
      else
        world.clock.after(world.random.int(2_000), () =>
          world.wish(`${type} create ${name}`, (context) => [
            ...putDocument(context, wanted(type, name, text, '')).changes,
          ]),
        );
    },
  },
];

function apply(world: World, name: string, number: number): void {
  if (world.truth.serviceNamed('demo', name)) return;
  const spec = specOf(world, name, number);
  world.wish(`apply ${name}`, (context) => withSecrets(context, spec, applyService(context, spec)));
}

/** What processes began with is what their revision names; nothing of others is left. */
function unlikeTemplates({ hosts, truth }: World): string {
  for (const host of hosts)
    for (const { id } of host.live()) {
      const task = truth.task(id);
      const template = task && truth.revisionOf(task.serviceId, task.revision)?.template;
      const [has, named] = [host.mounts.contentsOf(id), template ? [...contentsOf(template).keys()] : []];
      if (has.join() !== named.join()) return `${task ? nameOf(task) : id} has ${has}, not ${named}`;
    }
  for (const document of truth.all('document'))
    if (document.project === '' && !truth.get('content', contentKey(document)))
      return `${contentKey(document)} is not there`;
  return '';
}

export const documents: Chapter = {
  name: 'documents',
  wishes,
  begin(world) {
    for (const [type, name] of byHand)
      world.wish(`${type} create ${name}`, (context) => [
        ...putDocument(context, wanted(type, name, texts[0]!, '')).changes,
      ]);
    world.clock.after(500, () => {
      for (const [index, name] of names.entries()) apply(world, name, index + 2);
    });
  },
  unsettled: unlikeTemplates,
};
