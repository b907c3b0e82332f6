/**
 * The file that holds a whole cluster: written by who asks for it, read at a restore, neither ever whole in memory.
 *
 *   gantry-backup/1 {"key":"scrypt","salt":…,"cost":…,"check":…}\n      in the clear, and part of what each chunk proves
 *   (4 bytes length · AES-256-GCM ciphertext · 16 bytes tag)…            of at most 64 KiB; nonce = number and whether it is the last
 *
 * Decrypted and gunzipped it is JSON lines, see BackupEntry. Without a passphrase the key is made of the salt alone: the file
 * is readable for everybody then, but a damaged or shortened one is still told from a whole one.
 */
import { createCipheriv, createDecipheriv, createHash, createHmac, scrypt, timingSafeEqual } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { Fault } from './kernel/errors.ts';
import type { Random } from './kernel/random.ts';

/** What the file says of itself first. */
export interface BackupInfo {
  readonly clusterId: string;
  /** Of Gantry, that made it. */
  readonly version: string;
  readonly createdAtMs: number;
  /** All records are as they were at this revision of the store. */
  readonly revision: number;
  /** Of the leadership at that revision. */
  readonly epoch: number;
}

/** One line of the file: first `backup`, then files of the cluster's identity, then records as they lie in the store, last `end`. */
export type BackupEntry =
  | readonly ['backup', BackupInfo]
  | readonly ['identity', name: string, text: string]
  | readonly ['record', path: string, value: unknown]
  | readonly ['end', { readonly records: number }];

/** Nothing in it is ever whole: bytes as they are read or are to be written. */
export type Bytes = AsyncIterable<Uint8Array>;

interface Header {
  readonly key: 'scrypt' | 'none';
  /** base64 */
  readonly salt: string;
  /** scrypt's N; r is 8 and p is 1. */
  readonly cost: number;
  /** Tells a wrong passphrase from a damaged file: base64 of an HMAC by the key. */
  readonly check: string;
}

const format = 'gantry-backup';
const formatVersion = 1;
const cipher = 'aes-256-gcm';
const chunkBytes = 64 * 1024;
const tagBytes = 16;
/** The first line is shorter than this. */
const headerBytes = 4_096;
/** 128 MiB and a third of a second for each guess. */
const scryptCost = 1 << 17;

/** The file of these lines (of `lineOf`). `passphrase` undefined: in the clear. */
export async function* writeBackup(
  lines: Bytes,
  { passphrase, random }: { readonly passphrase: string | undefined; readonly random: Random },
): AsyncGenerator<Buffer> {
  const salt = Buffer.from(random.bytes(16));
  const kind = passphrase === undefined ? 'none' : 'scrypt';
  const key = await keyOf(passphrase, salt, scryptCost);
  const header: Header = { key: kind, salt: salt.toString('base64'), cost: scryptCost, check: checkOf(key) };
  const first = Buffer.from(`${format}/${formatVersion} ${JSON.stringify(header)}\n`);
  yield first;
  let number = 0;
  for await (const { bytes, last } of chunks(through(lines, createGzip({ level: 3 })))) {
    const encrypt = createCipheriv(cipher, key, nonceOf(number++, last)).setAAD(first);
    const sealed = Buffer.concat([encrypt.update(bytes), encrypt.final(), encrypt.getAuthTag()]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(sealed.length);
    yield Buffer.concat([length, sealed]);
  }
}

/** A line of the file; `record` takes the value as the text it lies in the store as. */
export function lineOf(entry: Exclude<BackupEntry, readonly ['record', ...unknown[]]>): string {
  return `${JSON.stringify(entry)}\n`;
}
export function recordLine(path: string, json: string): string {
  return `["record",${JSON.stringify(path)},${json}]\n`;
}

/**
 * What the file holds, entry by entry; only when the last, `end`, has come is it known to be whole.
 * Faults: `invalid` (no backup, or no passphrase given), `unsupported` (a newer form), `forbidden` (wrong passphrase), `corrupt` (damaged or cut off).
 */
export async function* readBackup(file: Bytes, passphrase: string | undefined): AsyncGenerator<BackupEntry> {
  let records = 0;
  let ended = false;
  for await (const line of linesOf(through(decrypted(file, passphrase), createGunzip()))) {
    const entry = parseEntry(line);
    if (ended) throw damaged('something follows its end');
    if (entry[0] === 'record') records++;
    if (entry[0] === 'end') {
      ended = true;
      if (entry[1].records !== records)
        throw damaged(`it says that it holds ${entry[1].records} records, not ${records}`);
    }
    yield entry;
  }
  if (!ended) throw damaged('it has no end: whoever made it was interrupted');
}

async function* decrypted(file: Bytes, passphrase: string | undefined): AsyncGenerator<Buffer> {
  const reader = new Reader(file);
  const { header, first } = await readHeader(reader);
  if (header.key === 'scrypt' && passphrase === undefined)
    throw new Fault('invalid', 'this backup is encrypted', { remedy: 'give its passphrase: --passphrase-file FILE' });
  const key = await keyOf(
    header.key === 'none' ? undefined : passphrase,
    Buffer.from(header.salt, 'base64'),
    header.cost,
  );
  const check = Buffer.from(header.check, 'base64');
  const expected = Buffer.from(checkOf(key), 'base64');
  if (check.length !== expected.length || !timingSafeEqual(check, expected)) {
    if (header.key === 'none') throw damaged('its first line was changed');
    throw new Fault('forbidden', 'this is not the passphrase of the backup', {
      remedy: 'give the file that it was made with: --passphrase-file FILE',
    });
  }
  for (let number = 0, last = false; !last; number++) {
    const at = reader.offset;
    const length = await reader.take(4);
    if (!length) throw damaged(`it ends early, after ${at} bytes: it was not copied whole`);
    const size = length.readUInt32BE();
    if (size < tagBytes || size > chunkBytes + tagBytes) throw damaged(`it was changed at byte ${at}`);
    const sealed = await reader.take(size);
    if (!sealed) throw damaged(`it ends early, after ${at} bytes: it was not copied whole`);
    last = await reader.atEnd();
    const bytes = opened(key, first, sealed, number, last);
    if (bytes) yield bytes;
    else if (last && opened(key, first, sealed, number, false))
      throw damaged(`it ends early, after ${reader.offset} bytes: it was not copied whole`);
    else throw damaged(`it was changed between bytes ${at} and ${reader.offset}`);
  }
}

/** Undefined where it is not what was sealed as this chunk. */
function opened(key: Buffer, header: Buffer, sealed: Buffer, number: number, last: boolean): Buffer | undefined {
  try {
    const decrypt = createDecipheriv(cipher, key, nonceOf(number, last)).setAAD(header);
    decrypt.setAuthTag(sealed.subarray(sealed.length - tagBytes));
    return Buffer.concat([decrypt.update(sealed.subarray(0, -tagBytes)), decrypt.final()]);
  } catch {
    return undefined;
  }
}

async function readHeader(reader: Reader): Promise<{ readonly header: Header; readonly first: Buffer }> {
  const first = await reader.line(headerBytes);
  const [, kind, version, json = ''] = /^([a-z-]+)\/(\d+) (.*)\n$/.exec(first?.toString() ?? '') ?? [];
  if (!first || kind !== format)
    throw new Fault('invalid', 'this file is not a backup of Gantry', {
      remedy: 'give one that `gantry cluster backup` has written',
    });
  if (Number(version) > formatVersion)
    throw new Fault('unsupported', `this backup has form ${version}, and this version knows ${formatVersion}`, {
      remedy: 'restore it with the version of Gantry that made it, or a newer one',
    });
  try {
    const header = JSON.parse(json) as Header;
    const known = header.key === 'none' || header.key === 'scrypt';
    const { cost } = header;
    // What somebody else has written into it must not cost more than a gibibyte.
    const sane = Number.isInteger(Math.log2(cost)) && cost >= 2 && cost <= 1 << 20;
    if (known && sane && typeof header.salt === 'string' && typeof header.check === 'string') return { header, first };
  } catch {
    // Said below.
  }
  throw damaged('its first line was changed');
}

function damaged(how: string): Fault {
  return new Fault('corrupt', `this backup is damaged: ${how}`, { remedy: 'take another copy, or the backup before' });
}

function parseEntry(line: Buffer): BackupEntry {
  try {
    const entry = JSON.parse(line.toString()) as BackupEntry;
    if (Array.isArray(entry)) return entry;
  } catch {
    // Said below.
  }
  throw damaged('a line in it is not JSON');
}

function nonceOf(number: number, last: boolean): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(number), 3);
  nonce[11] = last ? 1 : 0;
  return nonce;
}

function keyOf(passphrase: string | undefined, salt: Buffer, cost: number): Promise<Buffer> {
  if (passphrase === undefined)
    return Promise.resolve(createHash('sha256').update('gantry backup in the clear').update(salt).digest());
  return new Promise((resolve, reject) =>
    scrypt(passphrase, salt, 32, { N: cost, r: 8, p: 1, maxmem: 256 * 8 * cost }, (error, key) =>
      error ? reject(error) : resolve(key),
    ),
  );
}

function checkOf(key: Buffer): string {
  return createHmac('sha256', key).update('gantry backup').digest().subarray(0, 16).toString('base64');
}

/** What comes out of `transform`; whatever fails before it fails here. */
async function* through(
  source: Bytes,
  transform: NodeJS.ReadWriteStream & AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const fed = pipeline(Readable.from(source), transform);
  // The iteration below throws the same.
  fed.catch(() => {});
  try {
    for await (const bytes of transform) yield bytes as Buffer;
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw damaged('what is in it cannot be read');
  }
}

/** Cut anew into pieces of `chunkBytes`, of which only the last is shorter. */
async function* chunks(source: Bytes): AsyncGenerator<{ readonly bytes: Buffer; readonly last: boolean }> {
  let held: Buffer = Buffer.alloc(0);
  for await (const bytes of source) {
    held = Buffer.concat([held, bytes]);
    for (; held.length > chunkBytes; held = held.subarray(chunkBytes))
      yield { bytes: held.subarray(0, chunkBytes), last: false };
  }
  yield { bytes: held, last: true };
}

async function* linesOf(source: Bytes): AsyncGenerator<Buffer> {
  let parts: Uint8Array[] = [];
  for await (const bytes of source) {
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      yield Buffer.concat([...parts, bytes.subarray(start, end)]);
      parts = [];
      start = end + 1;
    }
    if (start < bytes.length) parts.push(bytes.subarray(start));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}

/** Pieces of exactly the wanted length out of bytes that come as they come. */
class Reader {
  /** Bytes taken. */
  offset = 0;
  readonly #source: AsyncIterator<Uint8Array>;
  #held: Buffer = Buffer.alloc(0);

  constructor(file: Bytes) {
    this.#source = file[Symbol.asyncIterator]();
  }

  /** Undefined where fewer are left. */
  async take(length: number): Promise<Buffer | undefined> {
    while (this.#held.length < length) if (!(await this.#more())) return undefined;
    return this.#cut(length);
  }

  /** With its end; undefined where there is none within `limit`. */
  async line(limit: number): Promise<Buffer | undefined> {
    for (;;) {
      const end = this.#held.indexOf(10);
      if (end >= 0 && end < limit) return this.#cut(end + 1);
      if (this.#held.length >= limit || !(await this.#more())) return undefined;
    }
  }

  async atEnd(): Promise<boolean> {
    return this.#held.length === 0 && !(await this.#more());
  }

  #cut(length: number): Buffer {
    const taken = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    this.offset += length;
    return taken;
  }

  /** Bytes that are not none. */
  async #more(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#source.next();
      if (done) return false;
      if (value.length === 0) continue;
      this.#held = this.#held.length === 0 ? Buffer.from(value) : Buffer.concat([this.#held, value]);
      return true;
    }
  }
}
