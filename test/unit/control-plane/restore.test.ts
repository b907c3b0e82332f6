/** What a restore tells before anything runs again, and what it leaves as it is. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { pendingRecords, pendingRestore, prepareRestore } from '#control-plane/restore.ts';
import { rootAfter, rootsIn } from '#control-plane/security/authority-files.ts';
import { adoptAuthority, identityFiles, initPki, placeIdentity } from '#control-plane/security/pki.ts';
import { sealer } from '#control-plane/security/seal.ts';
import { lineOf, recordLine, writeBackup } from '#proto/backup-file.ts';
import { holdDirectory } from '#proto/hold-directory.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import type { AuthorityState } from '#proto/model/authority.ts';
import { aService, aTask } from '#test/support/builders.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-restore-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

type Records = readonly (readonly [path: string, value: object])[];

const info = { clusterId: 'c', version: '0.1.0', createdAtMs: 1, revision: 9, epoch: 1 };
const inside = (name: string) => join(directory, name);
const requestFor = (file: string, name: string, force = false) => ({
  ...{ file, data: inside(name), force, passphrase: undefined, now: Date.now(), random: systemRandom },
});

/** A data directory with an identity of its own. `ageMs`: how long ago it was made. */
async function founded(name: string, ageMs = 0): Promise<string> {
  const data = inside(name);
  await initPki({ dataDir: data, name: 'm1', advertise: '127.0.0.1', now: () => Date.now() - ageMs });
  return data;
}

/** The file of a backup of the cluster whose identity lies in `data`. */
async function backedUp(data: string, records: Records): Promise<string> {
  const lines = [
    lineOf(['backup', info]),
    ...Object.entries(await identityFiles(data)).map(([name, text]) => lineOf(['identity', name, text])),
    ...records.map(([path, value]) => recordLine(path, JSON.stringify(value))),
    lineOf(['end', { records: records.length }]),
  ];
  const bytes: Buffer[] = [];
  const texts = (async function* () {
    for (const line of lines) yield Buffer.from(line);
  })();
  for await (const part of writeBackup(texts, { passphrase: undefined, random: systemRandom })) bytes.push(part);
  const file = `${data}.backup`;
  writeFileSync(file, Buffer.concat(bytes));
  return file;
}

async function recordsIn(data: string): Promise<Map<string, unknown>> {
  const found = new Map<string, unknown>();
  for await (const { path, value } of pendingRecords(data)) found.set(path, value);
  return found;
}

/** A cluster whose CA was rotated after its backup was made. */
async function rotated(name: string) {
  const data = await founded(name, 3_600_000);
  const before = await identityFiles(data);
  const record: AuthorityState = {
    ...{ phase: 'settled', roots: rootsIn(before['ca.pem']!), key: 'sealed', cross: '', rotatedAtMs: 0 },
    ...{ replicas: {}, operators: { laptop: { issuer: 'old', expiresAtMs: 1 } } },
  };
  const file = await backedUp(data, [['authority/ca', record]]);
  const made = await rootAfter({ certificate: before['ca.pem']!, key: before['ca.key']! }, systemRandom);
  await adoptAuthority(data, { trust: made.root.certificate, cross: made.cross, key: made.key });
  return { data, file, before, record, made };
}

test('a restore names the jobs that had not ended in the backup, and no others', async () => {
  const job = (name: string) => aService(name, { mode: 'replicated-job' });
  const [migrate, done, web] = [job('migrate'), job('done'), aService('web')];
  const records: Records = [
    ...[migrate, done, web].map((one) => [`service/${one.id}`, one] as const),
    ['task/a', aTask('a', { serviceId: migrate.id })],
    ['task/b', aTask('b', { serviceId: done.id, state: 'complete' })],
    ['task/c', aTask('c', { serviceId: web.id })],
  ];
  const request = requestFor(await backedUp(await founded('old'), records), 'new');
  const told = { info, records: 6, authority: 'backup', unfinishedJobs: ['demo/migrate'] };
  expect(await prepareRestore(request)).toEqual(told);
  expect(await pendingRestore(request.data)).toMatchObject({ info, force: false });
  expect([...(await recordsIn(request.data)).keys()]).toEqual(records.map(([path]) => path));
  expect(await prepareRestore(request)).toMatchObject({ authority: 'same' });
});

test('of a cluster whose CA was rotated since, the newer CA is kept: nodes trust no other', async () => {
  const { data, file, record, made } = await rotated('rotated');
  const held = await identityFiles(data);
  expect(await prepareRestore(requestFor(file, 'rotated', true))).toMatchObject({ authority: 'kept', records: 1 });
  expect(await identityFiles(data)).toEqual(held);
  expect(readdirSync(data).filter((name) => name.startsWith('pki'))).toEqual(['pki']);
  const ca = (await recordsIn(data)).get('authority/ca') as AuthorityState;
  expect(ca).toMatchObject({ phase: 'settled', roots: [made.root], cross: made.cross, operators: record.operators });
  expect(sealer([Buffer.from(held['seal.key']!, 'base64')], systemRandom).open(ca.key)).toBe(made.key);
});

test('a rotation that was under way goes on', async () => {
  const { data, file, before, made } = await rotated('rotating');
  const trust = made.root.certificate + before['ca.pem']!;
  await adoptAuthority(data, { trust, cross: made.cross, key: made.key });
  expect(await prepareRestore(requestFor(file, 'rotating'))).toMatchObject({ authority: 'kept' });
  expect((await recordsIn(data)).get('authority/ca')).toMatchObject({ phase: 'renewing', roots: rootsIn(trust) });
});

test('a CA whose key is not there yet is not kept', async () => {
  const { data, file, before, made } = await rotated('interrupted');
  await adoptAuthority(data, { trust: made.root.certificate + before['ca.pem']!, cross: '', key: before['ca.key']! });
  expect(await prepareRestore(requestFor(file, 'interrupted', true))).toMatchObject({ authority: 'backup' });
  expect(await identityFiles(data)).toEqual(before);
});

test('a CA of before the rotation makes way for that of the backup, with --force', async () => {
  const { data, before } = await rotated('ahead');
  const file = await backedUp(data, [['service/a', aService('a')]]);
  await placeIdentity(inside('behind'), before, undefined);
  await expect(prepareRestore(requestFor(file, 'behind'))).rejects.toThrow(
    'holds the identity of this cluster, with another CA',
  );
  expect(await prepareRestore(requestFor(file, 'behind', true))).toMatchObject({ authority: 'backup' });
  expect(await identityFiles(inside('behind'))).toEqual(await identityFiles(data));
});

test('another cluster is told from this one', async () => {
  const file = await backedUp(await founded('one'), [['service/a', aService('a')]]);
  await founded('two');
  await expect(prepareRestore(requestFor(file, 'two'))).rejects.toThrow('holds the identity of another cluster');
});

test('nothing is put beneath a control plane that runs, however long its path', async () => {
  const file = await backedUp(await founded('here'), [['service/a', aService('a')]]);
  const name = `running-${'x'.repeat(120)}`;
  await founded(name);
  const release = holdDirectory(inside(name), 'control-plane');
  const held = readdirSync(inside(name));
  await expect(prepareRestore(requestFor(file, name, true))).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('a control plane is at work in'),
  });
  expect(() => holdDirectory(inside(name), 'control-plane')).toThrow('a control plane is at work in');
  expect(readdirSync(inside(name))).toEqual(held);
  release();
  expect(await prepareRestore(requestFor(file, name, true))).toMatchObject({ authority: 'backup' });
});
