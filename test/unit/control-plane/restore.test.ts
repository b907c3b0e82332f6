/** What a restore tells before anything runs again. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { pendingRecords, pendingRestore, prepareRestore } from '#control-plane/restore.ts';
import { identityFiles, initPki } from '#control-plane/security/pki.ts';
import { lineOf, recordLine, writeBackup } from '#proto/backup-file.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { aService, aTask } from '#test/support/builders.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-restore-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('a restore names the jobs that had not ended in the backup, and no others', async () => {
  const old = join(directory, 'old');
  await initPki({ dataDir: old, name: 'm1', advertise: '127.0.0.1' });
  const job = (name: string) => aService(name, { mode: 'replicated-job' });
  const [migrate, done, web] = [job('migrate'), job('done'), aService('web')];
  const records: [string, object][] = [
    ...[migrate, done, web].map((one): [string, object] => [`service/${one.id}`, one]),
    ['task/a', aTask('a', { serviceId: migrate.id })],
    ['task/b', aTask('b', { serviceId: done.id, state: 'complete' })],
    ['task/c', aTask('c', { serviceId: web.id })],
  ];
  const info = { clusterId: 'c', version: '0.1.0', createdAtMs: 1, revision: 9, epoch: 1 };
  const lines = [
    lineOf(['backup', info]),
    ...Object.entries(await identityFiles(old)).map(([name, text]) => lineOf(['identity', name, text])),
    ...records.map(([path, value]) => recordLine(path, JSON.stringify(value))),
    lineOf(['end', { records: records.length }]),
  ];
  const bytes: Buffer[] = [];
  const texts = (async function* () {
    for (const line of lines) yield Buffer.from(line);
  })();
  for await (const part of writeBackup(texts, { passphrase: undefined, random: systemRandom })) bytes.push(part);
  const file = join(directory, 'cluster.backup');
  writeFileSync(file, Buffer.concat(bytes));
  const data = join(directory, 'new');
  const request = { file, passphrase: undefined, data, force: false, now: 1_000, random: systemRandom };
  expect(await prepareRestore(request)).toEqual({ info, records: 6, unfinishedJobs: ['demo/migrate'] });
  expect(await pendingRestore(data)).toMatchObject({ info, force: false });
  const paths: string[] = [];
  for await (const { path } of pendingRecords(data)) paths.push(path);
  expect(paths).toEqual(records.map(([path]) => path));
});
