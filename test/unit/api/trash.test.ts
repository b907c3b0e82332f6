/** What is removed goes to the trash and comes back as it was, or says what is in its way. */
import { describe, expect, it } from 'vitest';
import { apply } from '#control-plane/api/apply.ts';
import { putDocument, removeDocument } from '#control-plane/api/documents.ts';
import { history } from '#control-plane/api/history.ts';
import { list } from '#control-plane/api/list.ts';
import { remove, rollback } from '#control-plane/api/services.ts';
import { emptyTrash, undo } from '#control-plane/api/trash.ts';
import { removeVolume } from '#control-plane/api/volumes.ts';
import { emptied } from '#control-plane/reconcilers/trash.ts';
import {
  ApplyRequest,
  ListRequest,
  PutDocumentRequest,
  RollbackRequest,
  ServiceRequest,
  SourceFile,
} from '#proto/gen/gantry/v1/operator.ts';
import { documentKey } from '#proto/model/document.ts';
import { idleRollout, type Service } from '#proto/model/service.ts';
import { aCluster, aNode, aTask } from '#test/support/builders.ts';
import { type OperatorLab, operatorLab } from '#test/support/operator.ts';

const of = (lab: OperatorLab, text: string, more: Partial<ApplyRequest> = {}) =>
  apply(
    lab.parts,
    ApplyRequest.create({
      files: [SourceFile.create({ path: 'compose.yaml', text })],
      composeFiles: 1,
      directory: 'shop',
      answered: true,
      ...more,
    }),
  );
const text =
  'services:\n  web:\n    image: nginx:1\n    ports: ["8080:80"]\n    configs: [app]\n  db:\n    image: db:1\nconfigs: { app: { content: x } }\n';
const rm = (lab: OperatorLab, ...services: string[]) => remove(lab.parts, ServiceRequest.create({ services }));
const named = ({ store }: OperatorLab, name: string) => store.snapshot.serviceNamed('shop', name);
const inTrash = (lab: OperatorLab) =>
  list(lab.parts, ListRequest.create({ kind: 'trash' })).trash.map(({ kind, name }) => `${kind} ${name}`);

/** As the controllers do when the last task has stopped; its history stays while it is in the trash. */
async function gone({ store }: OperatorLab, service: Service): Promise<void> {
  const { modRevision } = store.snapshot.get('service', service.id)!;
  await store.seen(await store.commit([{ table: 'service', key: service.id, value: undefined, expect: modRevision }]));
}

describe('a service', () => {
  it('comes back with its spec, its network and what a rollback returns to; the last removal as a whole', async () => {
    const lab = operatorLab();
    await of(lab, text);
    await of(lab, text.replace('nginx:1', 'nginx:2'));
    const before = named(lab, 'web')!;
    await rm(lab, 'web', 'db');
    expect(inTrash(lab)).toEqual(['service shop/db', 'service shop/web']);
    for (const name of ['web', 'db']) await gone(lab, named(lab, name)!);
    const { modRevision } = lab.store.snapshot.get('network', 'shop_default')!;
    await lab.store.seen(
      await lab.store.commit([{ table: 'network', key: 'shop_default', value: undefined, expect: modRevision }]),
    );
    const { names, serviceIds, message } = await undo(lab.parts, { name: '' });
    expect(names.sort()).toEqual(['shop/db', 'shop/web']);
    expect(message).toBe('brought back service shop/db, service shop/web');
    const after = named(lab, 'web')!;
    expect(serviceIds).toContain(after.id);
    expect(after).toEqual({ ...before, updatedAtMs: after.updatedAtMs, rollout: idleRollout, removing: false });
    expect(history(lab.parts, { service: 'web' }).entries.map(({ version }) => version)).toEqual([2, 1]);
    await rollback(lab.parts, RollbackRequest.create({ services: ['web'], toVersion: 1 }));
    expect(named(lab, 'web')!.spec.template.container.image).toBe('nginx:1');
    expect(lab.store.snapshot.get('network', 'shop_default')).toBeDefined();
    expect(inTrash(lab)).toEqual([]);
    await expect(undo(lab.parts, { name: '' })).rejects.toMatchObject({
      code: 'not-found',
      message: 'the trash is empty',
    });
  });

  it('that is still stopping goes on as the same service', async () => {
    const lab = operatorLab();
    await of(lab, text);
    const before = named(lab, 'web')!;
    await rm(lab, 'web');
    expect(named(lab, 'web')!.removing).toBe(true);
    await undo(lab.parts, { name: 'web' });
    expect(named(lab, 'web')).toMatchObject({ id: before.id, removing: false, spec: before.spec });
  });

  it('does not come back where its name or port is somebody’s by now', async () => {
    const lab = operatorLab();
    await of(lab, text);
    await rm(lab, 'web');
    await gone(lab, named(lab, 'web')!);
    await of(lab, 'services: { other: { image: a, ports: ["8080:80"] } }', { project: 'tools' });
    await expect(undo(lab.parts, { name: 'web' })).rejects.toMatchObject({
      code: 'conflict',
      message: 'port 8080/tcp of service shop/web is published by tools/other now',
    });
    await rm(lab, 'tools/other');
    await of(lab, text);
    await expect(undo(lab.parts, { name: 'web' })).rejects.toMatchObject({
      code: 'exists',
      message: 'service shop/web is there again',
    });
    expect(inTrash(lab)).toContain('service shop/web');
  });

  it('is chosen by its name, its project, or the removal', async () => {
    const lab = operatorLab();
    await of(lab, text);
    await of(lab, 'services: { web: { image: a } }', { project: 'tools' });
    await rm(lab, 'shop/web', 'db');
    await rm(lab, 'tools/web');
    await expect(undo(lab.parts, { name: 'web' })).rejects.toMatchObject({
      code: 'invalid',
      message: '"web" may mean service tools/web or service shop/web',
    });
    const [removal] = list(lab.parts, ListRequest.create({ kind: 'trash' })).trash;
    expect((await undo(lab.parts, { name: removal!.removal.slice(0, 8) })).names).toEqual(['tools/web']);
    expect((await undo(lab.parts, { name: 'shop' })).names.sort()).toEqual(['shop/db', 'shop/web']);
    await rm(lab, 'db');
    await expect(undo(lab.parts, { name: 'none' })).rejects.toMatchObject({ code: 'not-found' });
  });

  it('that was pruned comes back too', async () => {
    const lab = operatorLab();
    await of(lab, text);
    await of(lab, 'services: { web: { image: nginx:1 } }', { prune: true });
    expect(inTrash(lab)).toEqual(['service shop/db']);
    expect((await undo(lab.parts, { name: 'db' })).names).toEqual(['shop/db']);
  });

  it('goes at once where the cluster keeps no trash, and for good where it is emptied', async () => {
    const lab = operatorLab();
    await lab.put('cluster', { ...aCluster(), trashMs: 0 });
    await of(lab, text);
    await rm(lab, 'web');
    expect(inTrash(lab)).toEqual([]);
    await lab.put('cluster', aCluster());
    await rm(lab, 'db');
    await expect(emptyTrash(lab.parts, { names: ['none'] })).rejects.toMatchObject({ code: 'not-found' });
    expect((await emptyTrash(lab.parts, { names: [] })).message).toBe('gone for good: service shop/db');
    expect([...lab.store.snapshot.all('trash')].every(({ dueAtMs }) => dueAtMs <= lab.parts.clock.now())).toBe(true);
  });
});

describe('a protected service', () => {
  const guarded = text.replace('  db:\n', '  db:\n    x-protected: true\n');

  it('is removed and pruned only where it is named', async () => {
    const lab = operatorLab();
    await of(lab, guarded);
    await expect(rm(lab, 'web', 'db')).rejects.toMatchObject({
      code: 'precondition',
      message: 'service shop/db is protected',
      remedy: 'add --yes-remove-protected shop/db, where that is meant',
    });
    expect(named(lab, 'web')!.removing).toBe(false);
    const smaller = 'services: { web: { image: nginx:1 } }';
    expect((await of(lab, smaller, { prune: true })).errors[0]).toMatchObject({
      file: 'compose.yaml',
      message: 'service shop/db is protected',
    });
    await of(lab, smaller, { prune: true, confirmed: ['shop/db'] });
    expect(named(lab, 'db')!.removing).toBe(true);
  });

  it('is one no more once it is applied without that', async () => {
    const lab = operatorLab();
    await of(lab, guarded);
    const response = await of(lab, text);
    expect(response.changes.find(({ name }) => name === 'shop/db')).toMatchObject({
      action: 'update',
      details: ['protected: true → false'],
    });
    expect(named(lab, 'db')!.revision).toBe(1);
    await rm(lab, 'db');
  });
});

describe('a named volume', () => {
  const mounting = 'services: { db: { image: db:1, volumes: ["data:/data"] } }\nvolumes: { data: {} }\n';
  const volume = { name: 'shop_data', nodeId: aNode('h1').id, nodeName: 'h1', createdAtMs: 0 };
  const prepared = async (lab: OperatorLab) => {
    await lab.put('volume', volume, { ...volume, name: 'shop_idle' });
    await of(lab, mounting);
  };
  const rmVolume = (lab: OperatorLab, ...names: string[]) => removeVolume(lab.parts, { names });
  const listed = ({ parts }: OperatorLab) =>
    list(parts, ListRequest.create({ kind: 'volume' })).volumes.map(
      ({ volume, services, trashedUntilMs }) => `${volume?.name}: ${trashedUntilMs > 0 ? 'trash' : services.join()}`,
    );

  it('stays where it is when its service is removed', async () => {
    const lab = operatorLab();
    await prepared(lab);
    await rm(lab, 'db');
    expect(inTrash(lab)).toEqual(['service shop/db']);
    expect(lab.store.snapshot.count('volume')).toBe(2);
  });

  it('goes to the trash when nobody mounts it, and nobody may mount it there', async () => {
    const lab = operatorLab();
    await prepared(lab);
    expect(listed(lab)).toEqual(['shop_data: shop/db', 'shop_idle: ']);
    await expect(rmVolume(lab, 'shop_idle', 'shop_data')).rejects.toMatchObject({
      code: 'conflict',
      message: 'volume shop_data is in use by shop/db',
    });
    await expect(rmVolume(lab, 'none')).rejects.toMatchObject({ code: 'not-found' });
    await rm(lab, 'db');
    await gone(lab, named(lab, 'db')!);
    await rmVolume(lab, 'shop_data', 'shop_idle');
    await expect(rmVolume(lab, 'shop_data')).rejects.toMatchObject({ code: 'exists' });
    expect(listed(lab)).toEqual(['shop_data: trash', 'shop_idle: trash']);
    expect((await of(lab, mounting)).errors[0]).toMatchObject({
      path: 'services.db',
      message: 'volume shop_data is in the trash',
      remedy: 'gantry undo shop_data brings it back with its data, gantry trash empty shop_data deletes that',
    });
    // The service brings what it mounts.
    expect((await undo(lab.parts, { name: 'db' })).message).toBe('brought back service shop/db, volume shop_data');
    expect(listed(lab)).toEqual(['shop_data: shop/db', 'shop_idle: trash']);
    await undo(lab.parts, { name: 'shop_idle' });
    expect(inTrash(lab)).toEqual([]);
  });

  it('that was deleted is missed when its service comes back, and that is said', async () => {
    const lab = operatorLab();
    await prepared(lab);
    await rm(lab, 'db');
    await gone(lab, named(lab, 'db')!);
    const { modRevision } = lab.store.snapshot.get('volume', 'shop_data')!;
    await lab.store.seen(
      await lab.store.commit([{ table: 'volume', key: 'shop_data', value: undefined, expect: modRevision }]),
    );
    expect((await undo(lab.parts, { name: 'db' })).message).toBe(
      'brought back service shop/db; the data of volume shop_data was deleted meanwhile: it begins with an empty one',
    );
  });

  it('of a global service is listed for each node that it has run on', async () => {
    const lab = operatorLab();
    await of(lab, `${mounting.replace('image: db:1', 'image: db:1, deploy: { mode: global }')}`);
    const { id } = named(lab, 'db')!;
    const on = (name: string, startedAtMs: number) =>
      aTask(name, { serviceId: id, slot: 0, nodeId: aNode(name).id, nodeName: name, startedAtMs });
    await lab.put('task', on('h2', 1), on('h1', 1), on('h3', 0));
    const { volumes } = list(lab.parts, ListRequest.create({ kind: 'volume' }));
    expect(volumes.map(({ volume, services }) => `${volume?.name} ${volume?.nodeName} ${services}`)).toEqual([
      'shop_data h1 shop/db',
      'shop_data h2 shop/db',
    ]);
  });

  it('goes with its service where that is asked for, unless another one mounts it, and comes back with it', async () => {
    const lab = operatorLab();
    await prepared(lab);
    await of(lab, mounting.replace('db:', 'other:').replace('data: {}', 'data: { name: shop_data }'), { project: 'b' });
    const withVolumes = (service: string) =>
      remove(lab.parts, ServiceRequest.create({ services: [service], volumes: true }));
    await withVolumes('db');
    expect(inTrash(lab)).toEqual(['service shop/db']);
    await withVolumes('other');
    expect(inTrash(lab)).toEqual(['service b/other', 'volume shop_data', 'service shop/db']);
    await undo(lab.parts, { name: '' });
    expect(listed(lab)[0]).toBe('shop_data: b/other,shop/db');
    await lab.put('cluster', { ...aCluster(), trashMs: 0 });
    await expect(withVolumes('other')).rejects.toMatchObject({ code: 'precondition' });
  });
});

it('a secret made by hand comes back with its content, unless there is another one of its name', async () => {
  const lab = operatorLab();
  const put = (data: string) =>
    putDocument(lab.parts, PutDocumentRequest.create({ type: 'secret', name: 'db', data: Buffer.from(data) }));
  await put('one');
  const before = lab.store.snapshot.get('document', 'secret/db')!.value;
  await removeDocument(lab.parts, { type: 'secret', names: ['db'] });
  expect(inTrash(lab)).toEqual(['secret db']);
  expect(lab.store.snapshot.count('document')).toBe(0);
  expect(lab.store.snapshot.count('content')).toBe(1);
  await put('two');
  await expect(undo(lab.parts, { name: 'db' })).rejects.toMatchObject({ code: 'exists' });
  await removeDocument(lab.parts, { type: 'secret', names: ['db'] });
  // The last one that was called so.
  await undo(lab.parts, { name: 'db' });
  expect(lab.store.snapshot.get('document', 'secret/db')!.value.version).not.toBe(before.version);
  expect(inTrash(lab)).toEqual(['secret db']);
});

describe('a service whose secrets and configs were made by hand', () => {
  const using =
    'services: { e: { image: a, secrets: [tok], configs: [cfg] } }\nsecrets: { tok: { external: true } }\nconfigs: { cfg: { external: true } }\n';
  const put = (lab: OperatorLab, type: string, name: string, data: string) =>
    putDocument(lab.parts, PutDocumentRequest.create({ type, name, data: Buffer.from(data) }));
  const prepared = async () => {
    const lab = operatorLab();
    await put(lab, 'secret', 'tok', 'one');
    await put(lab, 'config', 'cfg', 'one');
    await of(lab, using);
    await rm(lab, 'e');
    await gone(lab, named(lab, 'e')!);
    await removeDocument(lab.parts, { type: 'secret', names: ['tok'] });
    await removeDocument(lab.parts, { type: 'config', names: ['cfg'] });
    return lab;
  };
  const listed = ({ store }: OperatorLab) => [...store.snapshot.all('document')].map(documentKey).sort();

  it('brings those that are in the trash, the last of a name', async () => {
    const lab = await prepared();
    await put(lab, 'secret', 'tok', 'another');
    await removeDocument(lab.parts, { type: 'secret', names: ['tok'] });
    expect(inTrash(lab)).toHaveLength(4);
    expect((await undo(lab.parts, { name: 'e' })).message).toBe('brought back config cfg, secret tok, service shop/e');
    expect(listed(lab)).toEqual(['config/cfg', 'secret/tok']);
    const [mounted] = named(lab, 'e')!.spec.template.documents.filter(({ type }) => type === 'secret');
    expect(lab.store.snapshot.get('document', 'secret/tok')!.value.version).toBe(mounted!.version);
    // The other one of that name was never its.
    expect(inTrash(lab)).toEqual(['secret tok']);
  });

  it('does not come back without one that is gone for good', async () => {
    const lab = await prepared();
    for (const trashed of lab.store.snapshot.all('trash'))
      if (trashed.item.kind === 'document')
        await lab.store.seen(await lab.store.commit(emptied(lab.store.snapshot, trashed)));
    await expect(undo(lab.parts, { name: 'e' })).rejects.toMatchObject({
      code: 'precondition',
      message: 'secret tok, which service shop/e used, is gone',
    });
    expect(listed(lab)).toEqual([]);
  });
});
