/**
 * A backup on its way into a new control plane: `restore` proves the file, lays the cluster's identity down and keeps the
 * records beside it, sealed by the cluster's own key; the next `run` puts them into an empty etcd before it does anything else.
 */
import { createReadStream, existsSync } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type BackupEntry, type BackupInfo, lineOf, readBackup, recordLine, writeBackup } from '#proto/backup-file.ts';
import { holdDirectory } from '#proto/hold-directory.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { AuthorityState } from '#proto/model/authority.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import { isJob } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import { isTerminal, type Task } from '#proto/model/task.ts';
import { rootsIn } from './security/authority-files.ts';
import { isIdentityFile, placeIdentity, rotatedSince } from './security/pki.ts';
import { sealer } from './security/seal.ts';

export interface RestoreRequest {
  readonly file: string;
  readonly passphrase: string | undefined;
  /** The control plane's data directory. */
  readonly data: string;
  /** Another identity there makes way, and what etcd holds when the control plane starts is deleted. */
  readonly force: boolean;
  /** Wall clock, ms. */
  readonly now: number;
  readonly random: Random;
}

export interface Prepared {
  readonly info: BackupInfo;
  readonly records: number;
  /**
   * Where the cluster's CA comes from: `backup`: whoever has seen a rotation since does not trust it; `kept`: that of the data
   * directory, which is newer; `same`: both have the same.
   */
  readonly authority: 'backup' | 'kept' | 'same';
  /** Jobs, `project/name`, with a task that had not ended when the backup was made: what has ended since runs again where its node does not tell of it. */
  readonly unfinishedJobs: readonly string[];
}

/** What waits for the next start. */
export interface PendingRestore {
  /** Of this restore: an interrupted one is gone on with. */
  readonly id: string;
  readonly force: boolean;
  readonly atMs: number;
  readonly info: BackupInfo;
}

const recordsFile = (data: string) => join(data, 'restore.backup');
const pendingFile = (data: string) => join(data, 'restore.json');
const sealFile = (data: string) => join(data, 'pki', 'seal.key');

/**
 * Reads the whole file before it changes anything. Faults: those of `readBackup`; `precondition` where another identity
 * lies there and `force` is not given; `conflict` where a control plane runs on it; `not-found`.
 */
export async function prepareRestore(request: RestoreRequest): Promise<Prepared> {
  if (!existsSync(request.file)) throw new Fault('not-found', `there is no file ${request.file}`);
  const release = holdDirectory(request.data, 'control-plane');
  try {
    return await layDown(request);
  } finally {
    release();
  }
}

async function layDown(request: RestoreRequest): Promise<Prepared> {
  const { file, passphrase, data, force, now, random } = request;
  const entries = readBackup(createReadStream(file), passphrase);
  const { info, identity, rest } = await headOf(entries);
  const seen: Seen = { records: 0, jobs: new Map(), unfinished: new Set() };
  const kept = await rotatedSince(data, identity);
  const records = recordsOnly(info, kept ? withAuthority(rest, kept, request) : rest, seen);
  const sealed = writeBackup(records, { passphrase: identity['seal.key']!, random });
  await writeWhole(recordsFile(data), sealed);
  const placed = !kept && (await placeIdentity(data, identity, force ? now : undefined));
  const pending: PendingRestore = { id: newId(random), force, atMs: now, info };
  await writeWhole(pendingFile(data), [Buffer.from(JSON.stringify(pending))]);
  const unfinishedJobs = [...seen.jobs].flatMap(([id, name]) => (seen.unfinished.has(id) ? [name] : [])).sort();
  const authority = kept ? 'kept' : placed ? 'backup' : 'same';
  return { info, records: seen.records, authority, unfinishedJobs };
}

/** Undefined where nothing waits. Faults: `corrupt`. */
export async function pendingRestore(data: string): Promise<PendingRestore | undefined> {
  const text = await readFile(pendingFile(data), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as PendingRestore);
}

/** Its records, in order. Faults: those of `readBackup`. */
export async function* pendingRecords(
  data: string,
): AsyncGenerator<{ readonly path: string; readonly value: unknown }> {
  const key = await readFile(sealFile(data), 'utf8');
  for await (const entry of readBackup(createReadStream(recordsFile(data)), key))
    if (entry[0] === 'record') yield { path: entry[1], value: entry[2] };
}

/** The records are in etcd. */
export async function restored(data: string): Promise<void> {
  await rm(pendingFile(data), { force: true });
  await rm(recordsFile(data), { force: true });
}

interface Head {
  readonly info: BackupInfo;
  readonly identity: Readonly<Record<string, string>>;
  /** From the first record on. */
  readonly rest: AsyncGenerator<BackupEntry>;
}

async function headOf(entries: AsyncGenerator<BackupEntry>): Promise<Head> {
  const identity: Record<string, string> = {};
  let info: BackupInfo | undefined;
  for (;;) {
    const { value: entry, done } = await entries.next();
    if (done) throw new Fault('corrupt', 'this backup holds no cluster');
    if (entry[0] === 'backup') info = entry[1];
    else if (entry[0] === 'identity') {
      if (isIdentityFile(entry[1])) identity[entry[1]] = entry[2];
    } else {
      if (!info || !identity['ca.pem'] || !identity['ca.key'] || !identity['seal.key'])
        throw new Fault('corrupt', 'this backup has no identity: no CA, or no key that secrets are sealed with');
      return { info, identity, rest: from(entry, entries) };
    }
  }
}

async function* from(first: BackupEntry, entries: AsyncGenerator<BackupEntry>): AsyncGenerator<BackupEntry> {
  yield first;
  yield* entries;
}

/** What was met on the way through the records. */
interface Seen {
  records: number;
  /** Their names, by service id. */
  readonly jobs: Map<string, string>;
  /** Services with tasks that have not ended. */
  readonly unfinished: Set<string>;
}

function note(seen: Seen, path: string, value: unknown): void {
  seen.records++;
  if (path.startsWith('service/')) {
    const { id, spec } = value as Service;
    if (isJob(spec)) seen.jobs.set(id, qualifiedName(spec.project, spec.name));
  } else if (path.startsWith('task/')) {
    const { serviceId, state } = value as Task;
    if (!isTerminal(state)) seen.unfinished.add(serviceId);
  }
}

async function* recordsOnly(info: BackupInfo, entries: AsyncIterable<BackupEntry>, seen: Seen): AsyncGenerator<Buffer> {
  yield Buffer.from(lineOf(['backup', info]));
  for await (const entry of entries) {
    if (entry[0] !== 'record') continue;
    note(seen, entry[1], entry[2]);
    yield Buffer.from(recordLine(entry[1], JSON.stringify(entry[2])));
  }
  yield Buffer.from(lineOf(['end', { records: seen.records }]));
}

/** The record of the CA says what `files` have, and a rotation that was under way goes on. */
async function* withAuthority(
  entries: AsyncIterable<BackupEntry>,
  files: Readonly<Record<string, string>>,
  { now, random }: RestoreRequest,
): AsyncGenerator<BackupEntry> {
  const seal = sealer([Buffer.from(files['seal.key']!, 'base64')], random);
  const roots = rootsIn(files['ca.pem']!);
  for await (const entry of entries) {
    if (entry[0] !== 'record' || entry[1] !== 'authority/ca') yield entry;
    else {
      const authority: AuthorityState = {
        ...(entry[2] as AuthorityState),
        phase: roots.length > 1 ? 'renewing' : 'settled',
        roots,
        key: seal.seal(files['ca.key']!),
        cross: files['cross.pem'] ?? '',
        rotatedAtMs: now,
      };
      yield ['record', entry[1], authority];
    }
  }
}

/** All of it or nothing, also after a power cut. */
async function writeWhole(path: string, parts: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    for await (const part of parts) await file.writeFile(part);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
