/** What the leader takes away by itself: contents that nothing refers to, and what is in the trash when its time is up. */
import { afterEach, describe, expect, it } from 'vitest';
import { DocumentReaper } from '#control-plane/controllers/document-reaper.ts';
import { TrashReaper } from '#control-plane/controllers/trash-reaper.ts';
import { discardDocuments, discardServices, emptyTrash } from '#control-plane/reconcilers/trash.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { contentKey } from '#proto/model/document.ts';
import { aCluster, aRevision, aSecret, aService, aTemplate } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const dayMs = 24 * 3_600_000;
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

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
    const parts = { store, clock, log: silentLog };
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
  it('keeps what a removed service refers to until its time is up, whoever leads by then', async () => {
    const { clock, store, lead, context, commit } = await cluster(...put(secret, 'demo'), ...ofService);
    await commit(discardServices(context(), [store.snapshot.service(service.id)!]));
    await commit(
      (['service', 'revision'] as const).map((table): Change => {
        const key = table === 'service' ? service.id : `${service.id}/1`;
        return { table, key, value: undefined, expect: store.snapshot.get(table, key)!.modRevision };
      }),
    );
    await clock.pass(dayMs / 2);
    expect(store.snapshot.count('content')).toBe(1);
    const leading = lead();
    await clock.pass(10);
    await leading;
    await clock.pass(dayMs / 2 - 60_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('content')]).toEqual([1, 1]);
    await clock.pass(61_000);
    expect([store.snapshot.count('trash'), store.snapshot.count('content')]).toEqual([0, 0]);
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
