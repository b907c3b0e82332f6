/**
 * Follows one task's log through its files. The file is the spool: what cannot go out yet stays in it.
 *
 *   reading FILE ──▶ too long: FILE becomes FILE.1, conmon opens a new FILE ──▶ reading FILE.1 to its end ──▶ FILE.1 goes, reading FILE
 *                                  └─▶ still FILE.1, and FILE is at the spool's limit: FILE.1 is dropped, and a gap tells so
 */
import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open, rename, rm, stat, truncate } from 'node:fs/promises';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { describe } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Limiter } from '../limiter.ts';
import type { LogSource } from './log-shipper.ts';
import type { GapRecord, LogSink } from './log-sink.ts';
import { type FileRecord, parseRecord, parseRecords } from './parse.ts';
import type { Position, Positions } from './positions.ts';

/** What followers share. */
export interface FollowerParts {
  readonly sink: LogSink;
  readonly positions: Positions;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** `Runtime.reopenLog`: conmon opens its file anew, after a rename. */
  readonly reopen: (task: TaskId) => Promise<void>;
  readonly rotateBytes: number;
  readonly spoolBytes: number;
  readonly endedBytes: number;
  readonly lingerMs: number;
  readonly pollMs: number;
  /** Lets a few followers read and publish at a time, in turn. */
  readonly turns: Limiter;
  readonly count: (what: 'lines' | 'bytes' | 'batches' | 'retries' | 'droppedBytes', by: number) => void;
}

const readBytes = 128 * 1024;
const maxRecords = 2_000;
const retryPolicy = { initialMs: 100, maxMs: 2_000 };
/** Failures in a row after which an ended log is given up. */
const patience = 6;
const positionEveryMs = 250;
/** Added to the position after a loss of unknown size: nothing that comes may look like a repeat. */
const unknownGapBytes = 2 ** 36;

export class Follower {
  readonly source: LogSource;
  readonly #parts: FollowerParts;
  readonly #stopping = new AbortController();
  readonly #done: Promise<void>;
  readonly #drained = Promise.withResolvers<void>();
  #file: FileHandle | undefined;
  #fileId = '';
  #base = 0;
  #offset = 0;
  #lastUs = 0;
  /** Bytes of whole files that were dropped before they were opened. */
  #droppedBytes = 0;
  #abandon = false;
  #endedAt: number | undefined;
  /** Of an ended log that is given up: what the file being read held. */
  #givenUpBytes: number | undefined;
  #heldBytes: number | undefined;
  #rotating = false;
  /** In a row: what is published ends it. */
  #failures = 0;
  #watcher: FSWatcher | undefined;
  #wake: () => void = () => {};
  #woken = false;
  #savedAt = Number.NEGATIVE_INFINITY;
  #saved: Position | undefined;

  constructor(source: LogSource, parts: FollowerParts) {
    this.source = source;
    this.#parts = parts;
    this.#drained.promise.catch(() => {});
    this.#done = this.#run();
  }

  /** Resolves when all of a log that has ended is kept; rejects where it cannot be read. */
  end(): Promise<void> {
    this.#endedAt ??= this.#parts.clock.monotonic();
    this.#notice();
    return this.#drained.promise;
  }

  /** Stops; with `keep`, its position is written down. */
  async stop(keep: boolean): Promise<void> {
    this.#stopping.abort(new Error('the shipper closes'));
    this.#notice();
    await this.#done;
    if (keep && this.#fileId !== '') await this.#save(true);
    this.#drained.reject(new Error('the shipper closed'));
  }

  /** Keeps the files within their limits; called now and then, also while nothing can go out. */
  async rotate(): Promise<void> {
    if (this.#rotating || this.#ended || this.#stopping.signal.aborted) return;
    this.#rotating = true;
    try {
      await this.#rotate();
    } catch (error) {
      this.#parts.log.warn('a log could not be rotated', { error, task: this.source.taskId, path: this.source.path });
    } finally {
      this.#rotating = false;
    }
  }

  get #ended(): boolean {
    return this.#endedAt !== undefined;
  }

  /** When its log ended, by the clock's monotonic time; undefined before. */
  get endedAt(): number | undefined {
    return this.#endedAt;
  }

  /** Bytes that the files of an ended log take; they grow no more. */
  async held(): Promise<number> {
    this.#heldBytes ??= (await sizeOf(this.source.path)) + (await sizeOf(this.#oldPath));
    return this.#heldBytes;
  }

  /** Gives the disk back that an ended log takes; what is missing is told when that can go out. */
  async giveUp(): Promise<void> {
    if (this.#givenUpBytes !== undefined || (await this.held()) === 0) return;
    const { path, taskId: task } = this.source;
    try {
      for (const one of [this.#oldPath, path]) {
        const found = await idOf(one);
        if (!found) continue;
        if (found.id === this.#fileId) this.#givenUpBytes = found.size;
        else this.#droppedBytes += found.size;
        // The file may be open here: removed alone, it would still take its place.
        await truncate(one);
      }
      this.#givenUpBytes ??= 0;
      this.#parts.log.warn('dropped the rest of an ended log: it could not be sent in time', {
        task,
        bytes: this.#heldBytes ?? 0,
      });
      this.#heldBytes = 0;
      this.#notice();
    } catch (error) {
      this.#parts.log.warn('an ended log could not be dropped', { error, task, path });
    }
  }

  get #oldPath(): string {
    return `${this.source.path}.1`;
  }

  async #rotate(): Promise<void> {
    const { path, taskId } = this.source;
    const [current, old] = [await idOf(path), await idOf(this.#oldPath)];
    // Renamed, but conmon was not told, or has not done it yet: an agent died in between.
    if (!current && old) return this.#parts.reopen(taskId);
    const { maxBytes = 0 } = this.source;
    const rotateBytes = Math.min(this.#parts.rotateBytes, maxBytes || this.#parts.rotateBytes);
    if (!current || current.size < rotateBytes) return;
    if (old) {
      if (current.size < this.#parts.spoolBytes) return;
      if (old.id === this.#fileId) this.#abandon = true;
      else this.#droppedBytes += old.size;
      this.#parts.log.warn('dropped a log file: its lines could not be sent in time', {
        task: taskId,
        bytes: old.size,
      });
      await rm(this.#oldPath);
    }
    await rename(path, this.#oldPath);
    await this.#parts.reopen(taskId);
    this.#notice();
  }

  async #run(): Promise<void> {
    const { clock, log, positions, random } = this.#parts;
    const { signal } = this.#stopping;
    const { taskId: task } = this.source;
    const position = await positions.read(task);
    this.#saved = position;
    if (position) ({ base: this.#base, offset: this.#offset, file: this.#fileId } = position);
    while (!signal.aborted) {
      try {
        await this.#follow();
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (this.#ended && this.#failures >= patience) {
          this.#drained.reject(error);
          return;
        }
        if (++this.#failures === 1) log.warn('a log cannot be followed, trying again', { error, task });
        await clock.sleep(backoffMs(retryPolicy, this.#failures, random), signal).catch(() => {});
      }
    }
  }

  /** From where it stopped to the end of the log, or of the shipper. */
  async #follow(): Promise<void> {
    const { signal } = this.#stopping;
    try {
      await this.#resume();
      while (!signal.aborted) {
        if (await this.#parts.turns.run(() => this.#step())) continue;
        if (this.#ended && (await this.#finished())) break;
        await this.#save(true);
        await this.#idle();
      }
      if (signal.aborted) return;
      await this.#parts.positions.forget(this.source.taskId);
      this.#fileId = '';
      this.#drained.resolve();
    } finally {
      this.#watcher?.close();
      this.#watcher = undefined;
      await this.#file?.close().catch(() => {});
      this.#file = undefined;
    }
  }

  /** Goes on where the last agent, or the last attempt, stopped; says what is missing where its file has gone. */
  async #resume(): Promise<void> {
    if (this.#fileId === '') return;
    for (const path of [this.#oldPath, this.source.path]) {
      if ((await idOf(path))?.id !== this.#fileId) continue;
      await this.#open(path, this.#offset);
      return;
    }
    if (!(await idOf(this.source.path)) && !(await idOf(this.#oldPath))) return;
    this.#fileId = '';
    this.#base += this.#offset + unknownGapBytes;
    this.#offset = 0;
    await this.#publishGap('some of the log is missing: its file was gone before it could be sent', 0);
  }

  async #open(path: string, offset: number): Promise<boolean> {
    const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (!file) return false;
    this.#file = file;
    this.#fileId = fileId(await file.stat({ bigint: true }));
    this.#offset = offset;
    this.#watcher?.close();
    this.#watcher = undefined;
    return true;
  }

  /** One read and what follows from it; false where there is nothing to do now. */
  async #step(): Promise<boolean> {
    if (this.#stopping.signal.aborted) return false;
    if (this.#givenUpBytes !== undefined) return this.#leaveGivenUp(this.#givenUpBytes);
    if (!this.#file) {
      if (this.#droppedBytes > 0) await this.#tellDropped();
      if (!(await this.#open(this.#oldPath, 0)) && !(await this.#open(this.source.path, 0))) return false;
    }
    if (this.#abandon) return this.#leaveFile();
    const rotated = await this.#isRotated();
    const bytes = await this.#read();
    const { records, consumed } = parseRecords(bytes, this.#lastUs, maxRecords);
    if (records.length > 0) {
      await this.#publish(records, consumed);
      await this.#save(false);
      return true;
    }
    // A rotated file grows no more: what is left without a newline is all there will be of it.
    if (bytes.length > 0 && (rotated || this.#ended || bytes.length === readBytes)) {
      await this.#publish([{ ...parseRecord(bytes, this.#lastUs), size: bytes.length }], bytes.length);
      return true;
    }
    return rotated ? this.#leaveFile() : false;
  }

  async #read(): Promise<Buffer> {
    const file = this.#file!;
    // Most files have a line or none: a buffer of full size for each would be most of the agent's memory.
    const size = Math.min(readBytes, Math.max(0, (await file.stat()).size - this.#offset));
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(size), 0, size, this.#offset);
    return buffer.subarray(0, bytesRead);
  }

  /** A new file stands in the place of the one being read: conmon writes to it no more. */
  async #isRotated(): Promise<boolean> {
    const current = await idOf(this.source.path);
    return current !== undefined && current.id !== this.#fileId;
  }

  async #leaveFile(): Promise<true> {
    const { size } = await this.#file!.stat();
    const lost = this.#abandon ? Math.max(0, size - this.#offset) : 0;
    this.#abandon = false;
    await this.#file!.close();
    this.#file = undefined;
    if ((await idOf(this.#oldPath))?.id === this.#fileId) await rm(this.#oldPath, { force: true });
    this.#base += this.#offset;
    this.#offset = 0;
    this.#fileId = '';
    this.#droppedBytes += lost;
    return true;
  }

  async #leaveGivenUp(bytes: number): Promise<false> {
    if (this.#file) {
      this.#droppedBytes += Math.max(0, bytes - this.#offset);
      await this.#leaveFile();
    }
    for (const path of [this.#oldPath, this.source.path]) await rm(path, { force: true });
    if (this.#droppedBytes > 0) await this.#tellDropped();
    return false;
  }

  async #tellDropped(): Promise<void> {
    const bytes = this.#droppedBytes;
    this.#parts.count('droppedBytes', bytes);
    await this.#publishGap(
      `${bytes} bytes of the log were dropped: they could not be sent in time, and the spool was full`,
      bytes,
    );
    this.#droppedBytes -= bytes;
    this.#base += bytes;
    this.#offset = 0;
  }

  #publishGap(text: string, size: number): Promise<void> {
    const atUs = this.#lastUs || this.#parts.clock.now() * 1000;
    const gap: GapRecord = { atUs, stream: 'gap', partial: false, text: Buffer.from(text), size };
    return this.#send([gap]);
  }

  async #publish(records: readonly FileRecord[], consumed: number): Promise<void> {
    await this.#send(records);
    this.#failures = 0;
    this.#offset += consumed;
    this.#lastUs = records.at(-1)!.atUs;
    this.#parts.count('lines', records.length);
    this.#parts.count('bytes', consumed);
  }

  /** Offers a batch until it is kept or the shipper closes. */
  async #send(records: readonly (FileRecord | GapRecord)[]): Promise<void> {
    const { signal } = this.#stopping;
    const batch = { source: this.source, from: this.#base + this.#offset, records };
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#parts.sink.publish(batch);
        this.#parts.count('batches', 1);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#parts.count('retries', 1);
        if (attempt === 1)
          this.#parts.log.debug('a log batch was not taken', { task: this.source.taskId, why: describe(error) });
        await this.#parts.clock.sleep(backoffMs(retryPolicy, attempt, this.#parts.random), signal);
      }
    }
  }

  /** An ended log is whole when its last file is read to the end and no other is left. */
  async #finished(): Promise<boolean> {
    if (this.#file && (await idOf(this.source.path)) && (await this.#isRotated())) return false;
    if (!this.#file) return !(await idOf(this.source.path)) && !(await idOf(this.#oldPath));
    const { size } = await this.#file.stat();
    return size <= this.#offset;
  }

  async #save(now: boolean): Promise<void> {
    if (this.#fileId === '') return;
    const at = this.#parts.clock.monotonic();
    if (!now && at - this.#savedAt < positionEveryMs) return;
    const position = { file: this.#fileId, base: this.#base, offset: this.#offset };
    if (
      this.#saved &&
      this.#saved.file === position.file &&
      this.#saved.base === position.base &&
      this.#saved.offset === position.offset
    )
      return;
    this.#savedAt = at;
    this.#saved = position;
    await this.#parts.positions.write(this.source.taskId, position).catch((error) => {
      this.#parts.log.warn('the position of a log could not be written down', { error, task: this.source.taskId });
    });
  }

  #notice(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Waits until the file changes (or the poll, where no watch is to be had), then a little longer for a fuller batch. */
  async #idle(): Promise<void> {
    this.#watch();
    const { clock } = this.#parts;
    if (!this.#woken) {
      let timer: Timer | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = clock.after(this.#watcher ? this.#parts.pollMs * 8 : this.#parts.pollMs, resolve);
      });
      timer?.cancel();
    }
    this.#woken = false;
    if (!this.#ended) await clock.sleep(this.#parts.lingerMs, this.#stopping.signal).catch(() => {});
  }

  #watch(): void {
    if (this.#watcher || !this.#file) return;
    try {
      const watcher = watch(this.source.path, { persistent: false }, () => this.#notice());
      watcher.on('error', () => {
        watcher.close();
        if (this.#watcher === watcher) this.#watcher = undefined;
      });
      this.#watcher = watcher;
      // What was written before the watch stood wakes nobody.
      this.#woken = true;
    } catch {
      // No watch left, or the file has just been renamed: the poll finds what comes.
    }
  }
}

interface Identity {
  readonly id: string;
  readonly size: number;
}

async function idOf(path: string): Promise<Identity | undefined> {
  try {
    const found = await stat(path, { bigint: true });
    return { id: fileId(found), size: Number(found.size) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** 0 where it cannot be told: whoever reads the file says why. */
async function sizeOf(path: string): Promise<number> {
  return (await idOf(path).catch(() => undefined))?.size ?? 0;
}

function fileId({ ino, birthtimeNs }: { readonly ino: bigint; readonly birthtimeNs: bigint }): string {
  return `${ino}-${birthtimeNs}`;
}
