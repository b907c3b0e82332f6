/** Configs and secrets as files of real containers: who may read them, that nobody may write them, and that no disk has them. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PreparedMount, Runtime } from '#node-agent/runtime/runtime.ts';
import { type TaskDocuments, taskDocuments } from '#node-agent/volumes/task-documents.ts';
import { Concealed } from '#proto/model/concealed.ts';
import type { DocumentContent, DocumentMount } from '#proto/model/document.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import { type ContainerLab, containerLab, newTaskId, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';

/** Another one in each test. */
let secret: string;
const content = (name: string, text: string | Uint8Array, type: DocumentMount['type'] = 'secret'): DocumentContent => ({
  type,
  name,
  version: 'v1',
  data: new Concealed(typeof text === 'string' ? Buffer.from(text) : text),
});
const mountOf = (fields: Partial<DocumentMount>): DocumentMount => ({
  type: 'secret',
  name: 'shop_db',
  version: 'v1',
  target: '/run/secrets/db',
  uid: 0,
  gid: 0,
  mode: 0o444,
  ...fields,
});

let lab: ContainerLab;
let runtime: Runtime;
let documents: TaskDocuments;
let id: TaskId;
beforeAll(async () => {
  lab = await containerLab();
  mkdirSync(lab.logs, { recursive: true });
  runtime = await lab.open();
});
beforeEach(() => {
  documents = taskDocuments(join(lab.directory, 'run'));
  id = newTaskId();
  secret = `hunter2-${id}`;
});
afterEach(async () => {
  await runtime.delete(id);
  documents.release(id);
  documents.release(id);
  expect(documents.held()).toEqual([]);
  expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain('gantry-documents');
});
afterAll(() => lab.close());

/** What `script` prints in a container that has these mounts. */
async function printed(
  script: string,
  mounts: readonly PreparedMount[],
  container: Partial<ContainerSpec> = {},
): Promise<string> {
  const request = shellRequest(lab, `${script}; echo the end`, container, { id, mounts });
  await runtime.create(request);
  await runtime.start(id);
  const text = () =>
    readFileSync(request.logPath, 'utf8')
      .replaceAll(/^\S+ std\w+ F (.*\n)/gm, '$1')
      .replaceAll(/\S+ std\w+ P (.*)\n/g, '$1');
  await eventually(() => existsSync(request.logPath) && text().includes('the end'));
  return text().replace(/the end\n$/, '');
}

describe('a document', () => {
  it('is a file with the owner and mode asked for, on a tmpfs, also where the root is read-only', async () => {
    const mounts = [
      mountOf({}),
      mountOf({ target: '/run/secrets/mine', uid: 1234, gid: 2000, mode: 0o400 }),
      mountOf({ type: 'config', name: 'shop_conf', target: '/etc/app/app.conf', mode: 0o640 }),
    ];
    const contents = [content('shop_db', secret), content('shop_conf', 'debug=1\n', 'config')];
    const text = await printed(
      [
        'stat -c "%n %u:%g %a %s" /run/secrets/db /run/secrets/mine /etc/app/app.conf',
        'cat /run/secrets/db; echo; cat /etc/app/app.conf',
        'cat /proc/mounts | grep -E "secrets|app.conf"',
      ].join('; '),
      documents.prepare(id, mounts, contents),
      { readOnly: true },
    );
    expect(text).toContain(`/run/secrets/db 0:0 444 ${secret.length}\n`);
    expect(text).toContain(`/run/secrets/mine 1234:2000 400 ${secret.length}\n`);
    expect(text).toContain('/etc/app/app.conf 0:0 640 8\n');
    expect(text).toContain(`${secret}\ndebug=1\n`);
    const table = text.split('\n').filter((line) => line.startsWith('gantry-documents '));
    expect(table).toHaveLength(3);
    for (const line of table) expect(line).toMatch(/ tmpfs ro,nosuid,nodev/);
  });

  it('cannot be written, changed in mode, or given set-user-id by whoever is root in the container', async () => {
    const text = await printed(
      'for act in "echo x > F" "chmod 777 F" "rm F" "chown 5 F"; do sh -c "${act/F//run/secrets/db}" 2>/dev/null && echo did; done; cat /run/secrets/db',
      documents.prepare(id, [mountOf({})], [content('shop_db', secret)]),
    );
    expect(text).toBe(secret);
  });

  it('holds any bytes', async () => {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index & 0xff);
    const text = await printed(
      'sha256sum < /run/secrets/db; echo; stat -c %s /run/secrets/db',
      documents.prepare(id, [mountOf({})], [content('shop_db', bytes)]),
    );
    const expected = execFileSync('sha256sum', { input: Buffer.from(bytes), encoding: 'utf8' });
    expect(text).toBe(`${expected}\n70000\n`);
  });

  it('stays inside of the root filesystem where a symlink of the image leads out of it', async () => {
    const outside = join(lab.directory, 'outside');
    mkdirSync(outside, { recursive: true });
    rmSync(join(lab.rootfs, 'run'), { recursive: true, force: true });
    symlinkSync(`../../../../../..${outside}`, join(lab.rootfs, 'run'));
    try {
      const prepared = documents.prepare(id, [mountOf({})], [content('shop_db', secret)]);
      expect(await printed('cat /run/secrets/db', prepared)).toBe(secret);
      expect(execFileSync('find', [outside], { encoding: 'utf8' }).trim()).toBe(outside);
    } finally {
      rmSync(join(lab.rootfs, 'run'), { force: true });
    }
  });

  it('is on no disk: neither of the agent, nor in the layer of the container, nor in its log', async () => {
    await printed('test -s /run/secrets/db', documents.prepare(id, [mountOf({})], [content('shop_db', secret)]));
    const grep = () => execFileSync('grep', ['-rlF', '--devices=skip', secret, lab.directory], { encoding: 'utf8' });
    // The one place is the tmpfs.
    expect(grep().trim()).toBe(join(lab.directory, 'run', 'documents', id, '0'));
    await runtime.delete(id);
    documents.release(id);
    expect(grep).toThrow();
  });
});

it('preparing again gives what is wanted now, and a second agent finds what the first has made', async () => {
  documents.prepare(id, [mountOf({})], [content('shop_db', 'one')]);
  const again = taskDocuments(join(lab.directory, 'run'));
  expect(again.held()).toEqual([id]);
  const [made] = again.prepare(id, [mountOf({})], [content('shop_db', 'two')]);
  expect(readFileSync(made!.source, 'utf8')).toBe('two');
});

it('says what is not there instead of mounting an empty file', () => {
  expect(() => documents.prepare(id, [mountOf({})], [])).toThrow('secret shop_db is not on this node');
});

it('a content shows itself to nobody who did not ask', () => {
  const one = content('shop_db', secret);
  expect(`${one.data} ${JSON.stringify(one)}`).not.toContain(secret);
  expect(Buffer.from(one.data.reveal()).toString()).toBe(secret);
});
