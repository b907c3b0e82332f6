/** `gantry cluster backup` and `restore`: the whole cluster in one file. */
import { createReadStream, existsSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { createColors } from 'picocolors';
import { type BackupInfo, readBackup, writeBackup } from '#proto/backup-file.ts';
import type { BackupPart } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { readPassphrase } from '#proto/passphrase.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, coloured, withSession } from './session.ts';
import { table } from './words.ts';

interface BackupOptions extends CommonOptions {
  readonly passphraseFile?: string;
  readonly check?: true;
}

/** The file is whole, proven and on disk, or it is not there. */
export async function backup(options: BackupOptions, path: string): Promise<number> {
  const { passphraseFile, check, json } = options;
  const passphrase = passphraseFile === undefined ? undefined : readPassphrase(passphraseFile);
  if (!check) {
    if (passphrase === undefined)
      process.stderr.write(
        `${createColors(coloured(process.stderr)).yellow(`warning: without --passphrase-file everybody who can read ${path} has the keys and secrets of this cluster`)}\n`,
      );
    await withSession(options, async ({ client, stream }) => {
      const lines = linesOf(stream<BackupPart>(client.backup({})));
      await writeWhole(path, writeBackup(lines, { passphrase, random: systemRandom }));
    });
  } else if (!existsSync(path)) throw new Fault('not-found', `there is no file ${path}`);
  // Read back what is on the disk: nobody wants to learn at the restore that it cannot be read.
  const { info, counts } = await proven(path, passphrase);
  const records = [...counts.values()].reduce((sum, count) => sum + count, 0);
  if (json) {
    const tables = Object.fromEntries(counts);
    process.stdout.write(
      `${JSON.stringify({ path, ...info, encrypted: passphrase !== undefined, records, tables })}\n`,
    );
    return exitCodes.ok;
  }
  const rows = [...counts].map(([name, count]) => [name, String(count)]);
  process.stdout.write(
    `${path} is whole: cluster ${info.clusterId} at ${new Date(info.createdAtMs).toISOString()}, ${records} records\n${table(['TABLE', 'RECORDS'], rows)}\n`,
  );
  return exitCodes.ok;
}

interface RestoreOptions extends CommonOptions {
  readonly passphraseFile?: string;
  readonly data?: string;
  readonly name?: string;
  readonly advertise?: string;
  readonly config?: string;
  readonly force?: true;
}

/** The control plane's own main does it: nobody answers yet. */
export async function restore(options: RestoreOptions, path: string): Promise<number> {
  const { passphraseFile, data, name, advertise, config, force } = options;
  const given = { 'passphrase-file': passphraseFile, data, name, advertise, config };
  const flags = Object.entries(given).flatMap(([flag, value]) => (value === undefined ? [] : [`--${flag}`, value]));
  const { runMain } = await import('./processes.ts');
  return runMain(new URL('../main.ts', import.meta.url), ['restore', path, ...flags, ...(force ? ['--force'] : [])]);
}

async function* linesOf(parts: AsyncIterable<BackupPart>): AsyncGenerator<Uint8Array> {
  for await (const { lines } of parts) yield lines;
}

async function proven(path: string, passphrase: string | undefined) {
  const counts = new Map<string, number>();
  let info: BackupInfo | undefined;
  for await (const entry of readBackup(createReadStream(path), passphrase)) {
    if (entry[0] === 'backup') info = entry[1];
    if (entry[0] !== 'record') continue;
    const kind = entry[1].slice(0, entry[1].indexOf('/'));
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  if (!info) throw new Fault('corrupt', `${path} does not say what it is a backup of`);
  return { info, counts };
}

/** For its owner alone, and whole or not at all. */
async function writeWhole(path: string, parts: AsyncIterable<Uint8Array>): Promise<void> {
  const partial = `${path}.partial`;
  const file = await open(partial, 'w', 0o600).catch((error) => {
    throw new Fault('invalid', `${path} cannot be written: ${(error as NodeJS.ErrnoException).code}`, { cause: error });
  });
  try {
    await file.chmod(0o600);
    for await (const part of parts) await file.writeFile(part);
    await file.sync();
    await file.close();
    await rename(partial, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(partial, { force: true });
    throw error;
  }
}
