/** The file of a backup: read back as it was written, and every way of being wrong told from every other. */
import { beforeAll, describe, expect, test } from 'vitest';
import { type BackupEntry, lineOf, readBackup, recordLine, writeBackup } from '#proto/backup-file.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { systemRandom } from '#proto/kernel/random.ts';

const passphrase = 'correct horse';
const info = { clusterId: 'c1', version: '1.0.0', createdAtMs: 5, revision: 7, epoch: 3 };
const count = 3_000;

async function* lines(end = count): AsyncGenerator<Buffer> {
  yield Buffer.from(lineOf(['backup', info]));
  yield Buffer.from(lineOf(['identity', 'ca.key', 'secret key']));
  for (let one = 0; one < count; one++) {
    // Not to be compressed to nothing, and with what splits lines elsewhere.
    const noise = Buffer.from(systemRandom.bytes(60)).toString('base64');
    yield Buffer.from(recordLine(`task/${one}`, JSON.stringify({ noise, text: 'a\u2028b\nç' })));
  }
  yield Buffer.from(lineOf(['end', { records: end }]));
}

async function fileOf(source: AsyncIterable<Buffer>, phrase: string | undefined = passphrase): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of writeBackup(source, { passphrase: phrase, random: systemRandom })) parts.push(part);
  return Buffer.concat(parts);
}

/** In pieces of odd sizes, as disks and pipes hand them out. */
async function* pieces(file: Buffer, size = 10_007): AsyncGenerator<Buffer> {
  for (let at = 0; at < file.length; at += size) yield file.subarray(at, at + size);
}

async function read(file: Buffer, phrase: string | undefined = passphrase): Promise<BackupEntry[]> {
  const entries: BackupEntry[] = [];
  for await (const entry of readBackup(pieces(file), phrase)) entries.push(entry);
  return entries;
}

let file: Buffer;
beforeAll(async () => {
  file = await fileOf(lines());
});

describe('a backup file', () => {
  test('is read back as it was written, line by line', async () => {
    const entries = await read(file);
    expect(entries.length).toBe(count + 3);
    expect(entries[0]).toEqual(['backup', info]);
    expect(entries[1]).toEqual(['identity', 'ca.key', 'secret key']);
    expect(entries[2]).toEqual(['record', 'task/0', { noise: expect.any(String), text: 'a\u2028b\nç' }]);
    expect(entries.at(-1)).toEqual(['end', { records: count }]);
  });

  test('shows nothing of what it holds to who has no passphrase, and is not the same twice', async () => {
    expect(file.includes('secret key')).toBe(false);
    expect((await fileOf(lines())).subarray(0, 300).equals(file.subarray(0, 300))).toBe(false);
    await expect(read(file, 'wrong horse')).rejects.toMatchObject({
      code: 'forbidden',
      remedy: expect.stringContaining('--passphrase-file'),
    });
    const unasked = (async () => {
      for await (const _ of readBackup(pieces(file), undefined));
    })();
    await expect(unasked).rejects.toMatchObject({ code: 'invalid', message: 'this backup is encrypted' });
  });

  test('in the clear needs no passphrase, and is proven all the same', async () => {
    const parts: Buffer[] = [];
    for await (const part of writeBackup(lines(), { passphrase: undefined, random: systemRandom })) parts.push(part);
    const open = Buffer.concat(parts);
    expect((await read(open)).length).toBe(count + 3);
    open[open.length - 40]! ^= 1;
    await expect(read(open)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('that lost its end says so, wherever it was cut', async () => {
    const cuts = [file.length - 1, file.length - 20, Math.floor(file.length / 2), 400];
    for (const cut of cuts)
      await expect(read(file.subarray(0, cut))).rejects.toMatchObject({
        code: 'corrupt',
        message: expect.stringMatching(/ends early.*not copied whole/),
      });
    // At the border of a chunk: what is left is whole chunks.
    const first = file.indexOf(10) + 1;
    const border = first + 4 + file.readUInt32BE(first);
    expect(border).toBeLessThan(file.length);
    await expect(read(file.subarray(0, border))).rejects.toMatchObject({
      message: expect.stringContaining('ends early'),
    });
  });

  test('of which one bit was changed is refused, wherever it is', async () => {
    const first = file.indexOf(10) + 1;
    for (const at of [first + 1, first + 100, file.length - 1, Math.floor(file.length / 3)]) {
      const changed = Buffer.from(file);
      changed[at]! ^= 4;
      await expect(read(changed)).rejects.toMatchObject({ code: 'corrupt' });
    }
    const changed = Buffer.from(file);
    changed[first - 3] = 120;
    await expect(read(changed)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('first line'),
    });
  });

  test('to which something was added, or that holds less than it says, is refused', async () => {
    await expect(read(Buffer.concat([file, Buffer.from('x')]))).rejects.toMatchObject({ code: 'corrupt' });
    await expect(read(await fileOf(lines(count + 1)))).rejects.toMatchObject({
      message: expect.stringContaining(`${count + 1} records, not ${count}`),
    });
  });

  test('of a newer form, or that is none, is told by its first line', async () => {
    const newer = Buffer.from(file.toString('latin1').replace('gantry-backup/1', 'gantry-backup/2'), 'latin1');
    await expect(read(newer)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('form 2'),
    });
    for (const other of [Buffer.from('PK\x03\x04 whatever\n'), Buffer.alloc(10_000), Buffer.alloc(0)])
      await expect(read(other)).rejects.toMatchObject({
        code: 'invalid',
        message: expect.stringContaining('not a backup'),
      });
  });

  test('whose source fails fails with the same fault', async () => {
    async function* broken(): AsyncGenerator<Buffer> {
      yield Buffer.from(lineOf(['backup', info]));
      throw new Fault('unavailable', 'the line is cut');
    }
    await expect(fileOf(broken())).rejects.toMatchObject({ code: 'unavailable', message: 'the line is cut' });
  });
});
