/** What the leader takes away by itself: contents that nothing refers to, and what is in the trash when its time is up. */
import { afterEach, describe, expect, it } from 'vitest';
import { DocumentReaper } from '#control-plane/controllers/document-reaper.ts';
import { TrashReaper } from '#control-plane/controllers/trash-reaper.ts';
import { applyService } from '#control-plane/reconcilers/service-changes.ts';
import {
  discardDocuments,
  discardServices,
  discardVolumes,
  emptyTrash,
  undo,
} from '#control-plane/reconcilers/trash.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { contentKey } from '#proto/model/document.ts';
import { containerSpec, emptyMount } from '#proto/model/service.ts';
import { aCluster, aNode, aRevision, aSecret, aService, aTemplate } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const dayMs = 24 * 3_600_000;
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
  removed = [];
  refusal = undefined;
  answer = undefined;
});

let removed: string[] = [];
let refusal: Fault | undefined;
/** The node's; undefined: it comes at once. */
let answer: Promise<void> | undefined;
const removeVolume = async (node: string, name: string) => {
  if (refusal) throw refusal;
  removed.push(`${name} of ${node}`);
  await answer;
};

async function cluster(...changes: Change[]) {
  const clock = new FakeClock();
  const etcd = new MemoryEtcd({ clock, commitMs: 1, deliverMs: 1 });
  const store = etcd.open();
  etcd.commit([{ table: 'cluster', key: 'config', value: aCluster(), expect: 0 }, ...changes], undefined);
  let epoch = 0;
  let stop = () => {};
  const random = seededRandom(1);
  const lead = async () => {
    stop();
    await store.takeLeadership(store.leadership, { epoch: ++epoch, replica: `m${epoch}`, address: '' });
    const parts = { store, clock, log: silentLog, removeVolume };
    const reapers = [DocumentReaper, TrashReaper].map((Reaper) => new Reaper(parts, epoch));
    const unsubscribe = store.subscribe((delta) => {
      for (const reaper of reapers) reaper.onDelta(delta);
    });
    stop = () => {
      unsubscribe();
      for (const reaper of reapers) reaper.stop();
    };
  };
  ends.push(() => stop());
  const leading = lead();
  await clock.pass(10);
  await leading;
  const context = () => ({ snapshot: store.snapshot, now: clock.now(), newId: () => newId(random) });
  const commit = async (changes: readonly Change[]) => {
    const committed = store.commit(changes);
    await clock.pass(10);
    await committed;
  };
  return { clock, store, lead, context, commit };
}
const put = (secret: ReturnType<typeof aSecret>, project = ''): Change[] => [
  { table: 'document', key: `secret/${secret.ref.name}`, value: { ...secret.document, project }, expect: 0 },
  { table: 'content', key: contentKey(secret.ref), value: secret.content, expect: 0 },
];
const secret = aSecret('db');
const service = aService('web', { template: aTemplate({ documents: [secret.mount] }) });
const ofService: Change[] = [
  { table: 'service', key: service.id, value: service, expect: 0 },
  { table: 'revision', key: `${service.id}/1`, value: aRevision(service), expect: 0 },
];

describe('the trash', () => {
  it('keeps the history of a removed service, and what it refers to, until its time is up, whoever leads by then', async () => {
    const { clock, store, lead, context, commit } = await cluster(...put(secret, 'demo'), ...ofService);
    await commit(discardServices(context(), [store.snapshot.service(service.id)!]));
    const modRevision = store.snapshot.get('service', service.id)!.modRevision;
    await commit([{ table: 'service', key: service.id, value: undefined, expect: modRevision }]);
    await clock.pass(dayMs / 2);
    expect(store.snapshot.count('content')).toBe(1);
    const leading = lead();
    await clock.pass(10);
    await leading;
    await clock.pass(dayMs / 2 - 60_000);
    const left = () => (['trash', 'content', 'revision'] as const).map((table) => store.snapshot.count(table));
    expect(left()).toEqual([1, 1, 1]);
    await clock.pass(61_000);
    expect(left()).toEqual([0, 0, 0]);
    expect(store.snapshot.count('document')).toBe(0);
  });

  it('is emptied at once where that is asked for', async () => {
    const { clock, store, context, commit } = await cluster(...put(secret));
    await commit(discardDocuments(context(), 'secret', ['db']));
    await clock.pass(1_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('content')]).toEqual([1, 1]);
    await commit(emptyTrash(context(), []).changes);
    await clock.pass(1_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('content')]).toEqual([0, 0]);
  });
});

describe('a volume in the trash', () => {
  const node = aNode('h1');
  const volume = { name: 'demo_data', nodeId: node.id, nodeName: 'h1', createdAtMs: 0 };
  const records: Change[] = [
    { table: 'node', key: node.id, value: node, expect: 0 },
    { table: 'volume', key: volume.name, value: volume, expect: 0 },
  ];

  it('is deleted by its node when its time is up, as soon as that is there', async () => {
    const { clock, store, context, commit } = await cluster(...records);
    await commit(discardVolumes(context(), ['demo_data']));
    await clock.pass(dayMs - 60_000);
    expect(removed).toEqual([]);
    refusal = new Fault('unavailable', 'it is away');
    await clock.pass(120_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('volume')]).toEqual([1, 1]);
    refusal = undefined;
    await clock.pass(20_000);
    expect(removed).toEqual([`demo_data of ${node.id}`]);
    expect([store.snapshot.count('trash'), store.snapshot.count('volume')]).toEqual([0, 0]);
  });

  it('comes back until its node is asked to delete it, and not from then on: nobody is given half of it', async () => {
    const { clock, store, context, commit } = await cluster(...records);
    await commit(discardVolumes(context(), ['demo_data']));
    const at = store.snapshot.get('node', node.id)!;
    await commit([{ table: 'node', key: node.id, value: { ...node, state: 'down' }, expect: at.modRevision }]);
    await commit(emptyTrash(context(), []).changes);
    await clock.pass(20_000);
    expect(undo(context(), 'demo_data')).toMatchObject({ lost: [], items: [{ item: { kind: 'volume' } }] });
    let done = () => {};
    answer = new Promise<void>((resolve) => {
      done = resolve;
    });
    const { modRevision } = store.snapshot.get('node', node.id)!;
    await commit([{ table: 'node', key: node.id, value: node, expect: modRevision }]);
    await clock.pass(20_000);
    expect(removed).toEqual([`demo_data of ${node.id}`]);
    const refused = expect.objectContaining({ code: 'conflict', message: expect.stringContaining('being deleted') });
    expect(() => undo(context(), 'demo_data')).toThrow(refused);
    const mounts = [emptyMount('volume', 'demo_data', '/data')];
    const { spec } = aService('web', { template: aTemplate({ container: containerSpec('web:1', { mounts }) }) });
    expect(() => applyService(context(), spec)).toThrow(refused);
    done();
    await clock.pass(1_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('volume')]).toEqual([0, 0]);
    expect(applyService(context(), spec)).not.toEqual([]);
  });

  it('stays where somebody mounts it after all, waits for who is stopping, and is forgotten with its node', async () => {
    const mounts = [emptyMount('volume', 'demo_data', '/data')];
    const template = aTemplate({ container: containerSpec('web:1', { mounts }) });
    const user = aService('web', { template });
    const { clock, store, context, commit } = await cluster(...records);
    await commit(discardVolumes(context(), ['demo_data']));
    await commit([{ table: 'service', key: user.id, value: { ...user, removing: true }, expect: 0 }]);
    await commit(emptyTrash(context(), []).changes);
    await clock.pass(5_000);
    expect([store.snapshot.count('trash'), removed]).toEqual([1, []]);
    const expect1 = store.snapshot.get('service', user.id)!.modRevision;
    await commit([{ table: 'service', key: user.id, value: user, expect: expect1 }]);
    await clock.pass(20_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('volume'), removed]).toEqual([0, 1, []]);
    const gone = (table: 'service' | 'node', key: string): Change => {
      return { table, key, value: undefined, expect: store.snapshot.get(table, key)!.modRevision };
    };
    await commit([gone('service', user.id)]);
    await commit(discardVolumes(context(), ['demo_data']));
    await commit([gone('node', node.id)]);
    await commit(emptyTrash(context(), ['demo_data']).changes);
    await clock.pass(1_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('volume'), removed]).toEqual([0, 0, []]);
  });
});

it('a content that nothing refers to goes, and one that was left by an earlier leader too', async () => {
  const other = aSecret('db', 'another text');
  const orphan = aSecret('orphan');
  const { clock, store } = await cluster(
    ...put(secret),
    { table: 'content', key: contentKey(other.ref), value: other.content, expect: 0 },
    { table: 'content', key: contentKey(orphan.ref), value: orphan.content, expect: 0 },
  );
  await clock.pass(1_000);
  expect([...store.snapshot.all('content')].map(contentKey)).toEqual([contentKey(secret.ref)]);
});
