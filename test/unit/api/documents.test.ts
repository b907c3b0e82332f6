/** Configs and secrets in the store: new contents make new versions, services roll to them and back, and nothing is shown or lost. */
import { describe, expect, it } from 'vitest';
import { apply } from '#control-plane/api/apply.ts';
import { putDocument, readConfig, removeDocument } from '#control-plane/api/documents.ts';
import { inspect, list } from '#control-plane/api/list.ts';
import { rollback } from '#control-plane/api/services.ts';
import {
  ApplyRequest,
  InspectRequest,
  ListRequest,
  PutDocumentRequest,
  SourceFile,
} from '#proto/gen/gantry/v1/operator.ts';
import { contentKey } from '#proto/model/document.ts';
import { trashedName } from '#proto/model/trash.ts';
import { type OperatorLab, operatorLab } from '#test/support/operator.ts';
import { testSeal } from '#test/support/test-seal.ts';

const text =
  'services:\n  web:\n    image: nginx:1\n    secrets: [db]\n    configs: [app]\nsecrets: { db: { file: ./db.key } }\nconfigs: { app: { content: "${APP:-a=1}" } }\n';

function request(key: string, more: Partial<ApplyRequest> = {}): ApplyRequest {
  return ApplyRequest.create({
    files: [
      SourceFile.create({ path: 'compose.yaml', text }),
      SourceFile.create({ path: './db.key', hasData: true, data: Buffer.from(key), dataBytes: key.length }),
    ],
    composeFiles: 1,
    directory: 'shop',
    answered: true,
    ...more,
  });
}
const web = ({ store }: OperatorLab) => store.snapshot.serviceNamed('shop', 'web')!;
const opened = ({ store }: OperatorLab, type = 'secret') => {
  const mount = web({ store } as OperatorLab).spec.template.documents.find((one) => one.type === type)!;
  return Buffer.from(testSeal.open(store.snapshot.get('content', contentKey(mount))!.value).reveal()).toString();
};

describe('apply', () => {
  it('keeps contents sealed, and names them by what nobody can guess from', async () => {
    const lab = operatorLab();
    const response = await apply(lab.parts, request('hunter2'));
    expect(response.errors).toEqual([]);
    expect(response.documents).toEqual([
      { action: 'create', type: 'config', name: 'shop_app' },
      { action: 'create', type: 'secret', name: 'shop_db' },
    ]);
    expect(opened(lab)).toBe('hunter2');
    const records = (['document', 'content', 'service', 'revision'] as const).map((table) => [
      ...lab.store.snapshot.all(table),
    ]);
    const shown = JSON.stringify([records, response]);
    expect(shown).not.toContain('hunter2');
    expect(shown).not.toContain(Buffer.from('hunter2').toString('base64').slice(0, 8));
  });

  it('changes nothing where the contents are the same, and rolls where one is not; a rollback has the old one again', async () => {
    const lab = operatorLab();
    await apply(lab.parts, request('one'));
    expect((await apply(lab.parts, request('one'))).revision).toBe(0);
    const dry = await apply(lab.parts, request('two', { dryRun: true }));
    expect(dry.documents).toContainEqual({ action: 'update', type: 'secret', name: 'shop_db' });
    expect(dry.changes[0]).toMatchObject({
      action: 'update',
      details: ['secret shop_db at /run/secrets/db: another content'],
    });
    expect(opened(lab)).toBe('one');
    await apply(lab.parts, request('two'));
    expect(web(lab).revision).toBe(2);
    expect(opened(lab)).toBe('two');
    await rollback(lab.parts, { services: ['web'], toVersion: 0 });
    expect(web(lab).revision).toBe(1);
    expect(opened(lab)).toBe('one');
    const contents = lab.store.snapshot.count('content');
    await apply(lab.parts, request('two'));
    expect(opened(lab)).toBe('two');
    expect(lab.store.snapshot.count('content')).toBe(contents);
  });

  it('refuses what is external and not there, and a name that is somebody else’s', async () => {
    const lab = operatorLab();
    const external = 'services: { web: { image: a, secrets: [db] } }\nsecrets: { db: { external: true } }\n';
    const of = (text: string, project: string) =>
      apply(
        lab.parts,
        ApplyRequest.create({
          files: [SourceFile.create({ path: 'c.yaml', text })],
          composeFiles: 1,
          project,
          answered: true,
        }),
      );
    expect((await of(external, 'shop')).errors[0]).toMatchObject({
      path: 'secrets.db',
      line: 2,
      message: 'secret db is external, and there is none of that name',
      remedy: 'make it: gantry secret create db FILE',
    });
    const named = 'services: { web: { image: a, configs: [c] } }\nconfigs: { c: { content: x, name: common } }\n';
    await of(named, 'one');
    expect((await of(named, 'two')).errors[0]).toMatchObject({ message: 'config common belongs to project one' });
  });
});

describe('what is made by hand', () => {
  const put = (lab: OperatorLab, data: string, fields: Partial<PutDocumentRequest> = {}) =>
    putDocument(
      lab.parts,
      PutDocumentRequest.create({ type: 'secret', name: 'db', data: Buffer.from(data), ...fields }),
    );
  const external = (lab: OperatorLab) =>
    apply(
      lab.parts,
      ApplyRequest.create({
        files: [
          SourceFile.create({
            path: 'c.yaml',
            text: 'services: { web: { image: a, secrets: [db] } }\nsecrets: { db: { external: true } }\n',
          }),
        ],
        composeFiles: 1,
        project: 'shop',
        answered: true,
      }),
    );

  it('can be given another content, to which its services roll at once', async () => {
    const lab = operatorLab();
    expect((await put(lab, 'one')).action).toBe('create');
    await external(lab);
    expect(opened(lab)).toBe('one');
    const { action, change } = await put(lab, 'two');
    expect(action).toBe('update');
    expect(change).toMatchObject({
      names: ['shop/web'],
      serviceIds: [web(lab).id],
      message: 'changed secret db; shop/web rolls to it',
    });
    expect(opened(lab)).toBe('two');
    expect(web(lab).revision).toBe(2);
    expect((await put(lab, 'two')).change?.revision).toBe(0);
    await rollback(lab.parts, { services: ['web'], toVersion: 0 });
    expect(opened(lab)).toBe('one');
  });

  it('is listed with who uses it, and removed only when nobody does', async () => {
    const lab = operatorLab();
    await put(lab, 'one');
    await put(lab, 'idle', { name: 'idle' });
    await external(lab);
    const { documents } = list(lab.parts, ListRequest.create({ kind: 'secret' }));
    expect(documents.map(({ document, services }) => [document?.name, services])).toEqual([
      ['db', ['shop/web']],
      ['idle', []],
    ]);
    expect(inspect(lab.parts, InspectRequest.create({ kind: 'secret', name: 'db' })).object).toMatchObject({
      $case: 'document',
      value: { services: ['shop/web'] },
    });
    const remove = (...names: string[]) => removeDocument(lab.parts, { type: 'secret', names });
    await expect(remove('idle', 'db')).rejects.toMatchObject({
      code: 'conflict',
      message: 'secret db is in use by shop/web',
    });
    await expect(remove('none')).rejects.toMatchObject({ code: 'not-found' });
    await remove('idle');
    expect([...lab.store.snapshot.all('document')].map(({ name }) => name)).toEqual(['db']);
    // What the removed one held stays for as long as it can be brought back.
    expect([...lab.store.snapshot.all('trash')].map(({ item }) => trashedName(item))).toEqual(['idle']);
    expect(lab.store.snapshot.count('content')).toBe(2);
  });

  it('is shown where it is a config, in any version that is kept; a secret never', async () => {
    const lab = operatorLab();
    const config = { type: 'config', name: 'motd' };
    await put(lab, 'one', config);
    const { version } = lab.store.snapshot.get('document', 'config/motd')!.value;
    await put(lab, 'two', config);
    expect(readConfig(lab.parts, { name: 'motd', version: '' }).data.toString()).toBe('two');
    expect(readConfig(lab.parts, { name: 'motd', version: version.slice(0, 8) }).data.toString()).toBe('one');
    expect(() => readConfig(lab.parts, { name: 'motd', version: 'zz' })).toThrow('config motd has no version zz');
    await put(lab, 'hush');
    expect(() => readConfig(lab.parts, { name: 'db', version: '' })).toThrow('there is no config db');
  });

  it('has a name, and fits', async () => {
    const lab = operatorLab();
    await expect(put(lab, 'x', { name: '../x' })).rejects.toMatchObject({ code: 'invalid' });
    await expect(put(lab, 'x', { type: 'volume' })).rejects.toMatchObject({ code: 'invalid' });
    await expect(put(lab, 'x'.repeat(512 * 1024 + 1))).rejects.toMatchObject({ code: 'invalid' });
  });
});
