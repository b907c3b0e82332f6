/**
 * Follows all keys under a prefix without a gap: a list at one revision, then a watch from the next.
 *
 *   list ──▶ watch ──(stream lost)──▶ backoff ──▶ watch from where it was
 *     ▲                │
 *     └──(compacted, cancelled)
 */
import type { IWatchRequest, IWatchResponse } from 'etcd3';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { Queue } from '#proto/kernel/queue.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type BackoffPolicy, backoffMs } from '#proto/kernel/retry.ts';
import { type EtcdClient, etcdFault } from './etcd-client.ts';

/** A key at one revision; no value: it was deleted. */
export interface KeyEvent {
  readonly key: string;
  readonly value: Buffer | undefined;
  readonly modRevision: number;
}

/** Takes everything there is at one revision, in place of what was known, a page at a time. */
export interface ListSink {
  page(entries: readonly KeyEvent[]): void;
  end(revision: number): void;
}

export interface WatchSink {
  /** A list begins. One that is not ended is void. */
  list(): ListSink;
  /** Whole revisions, ascending; all later than what was told before. */
  onEvents(events: readonly KeyEvent[]): void;
  /** etcd's history is older than what it told us before: it was restored or replaced under us. */
  onRewound(fault: Fault): void;
}

export interface WatchParts {
  readonly client: EtcdClient;
  readonly prefix: string;
  readonly sink: WatchSink;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Of a page: the first, before it is known how large records are here, and the largest. */
const pageKeys = { first: 10, most: 2_000 };
/** What a page is to come to: records are of some hundred bytes, or, with the content of a secret in them, of some hundred kilobytes. */
const pageBytes = 2 << 20;

/** All keys under a prefix at one revision, in pages of about `pageBytes`. Faults: those of etcd; `conflict` where the revision was compacted meanwhile. */
export async function* pagesOf(
  client: EtcdClient,
  prefix: string,
): AsyncGenerator<{ readonly revision: number; readonly entries: readonly (KeyEvent & { readonly value: Buffer })[] }> {
  const end = endOf(prefix);
  let revision = 0;
  let limit = pageKeys.first;
  for (let key = Buffer.from(prefix); ; ) {
    const asked = { key, range_end: end, limit, ...(revision > 0 && { revision }) };
    const page = await client.kv.range(asked).catch((error) => {
      const fault = etcdFault(error);
      if (fault.code !== 'precondition') throw fault;
      throw new Fault('conflict', 'what was being read is too old by now for etcd to tell', {
        cause: fault,
        remedy: 'try again when less is being written',
      });
    });
    if (revision === 0) revision = Number(page.header.revision);
    const entries = page.kvs.map((kv) => ({
      key: kv.key.toString(),
      value: kv.value,
      modRevision: Number(kv.mod_revision),
    }));
    yield { revision, entries };
    const last = page.kvs.at(-1);
    if (!page.more || !last) return;
    key = Buffer.concat([last.key, Buffer.of(0)]);
    const bytes = page.kvs.reduce((sum, kv) => sum + kv.key.length + kv.value.length, 0);
    const fitting = Math.ceil((pageBytes * page.kvs.length) / bytes);
    limit = Math.min(fitting, 4 * limit, pageKeys.most);
  }
}

/** A key that was written at one revision: what it had before, and since; undefined: nothing. */
export interface KeyStep {
  readonly key: string;
  readonly before: Buffer | undefined;
  readonly after: Buffer | undefined;
  readonly modRevision: number;
}

/**
 * What was written under a prefix after revision `after`, as far back as etcd can tell, up to and with `until`, at which something
 * was: whole revisions, ascending. Faults: those of etcd.
 */
export async function* historyOf(
  client: EtcdClient,
  prefix: string,
  after: number,
  until: number,
): AsyncGenerator<readonly KeyStep[]> {
  for (let from = after; from < until; ) {
    const compacted = yield* historyFrom(client, prefix, from, until);
    if (compacted === undefined) return;
    // What lay there before a revision is known from the compacted one on.
    from = compacted;
  }
}

/** Returns the revision that was compacted, where that is later than `after`: nothing was told then. */
async function* historyFrom(
  client: EtcdClient,
  prefix: string,
  after: number,
  until: number,
): AsyncGenerator<readonly KeyStep[], number | undefined> {
  const duplex = await openWatch(client);
  const told = new Queue<KeyStep>();
  let last = after;
  let compacted: number | undefined;
  duplex.on('data', ({ canceled, compact_revision, cancel_reason, events, fragment }: IWatchResponse) => {
    if (Number(compact_revision) > 0) {
      compacted = Number(compact_revision);
      told.end();
    } else if (canceled)
      told.end(new Fault('unavailable', `etcd cancelled the watch: ${cancel_reason || 'no reason'}`));
    for (const { type, kv, prev_kv } of events) {
      last = Number(kv.mod_revision);
      const value = type === 'Delete' ? undefined : kv.value;
      told.push({ key: kv.key.toString(), before: prev_kv?.value, after: value, modRevision: last });
    }
    // A fragment may end within a revision.
    if (!fragment && last >= until) told.end();
  });
  duplex.on('error', (error: unknown) => told.end(etcdFault(error)));
  duplex.on('end', () => told.end(new Fault('unavailable', 'etcd ended the watch')));
  try {
    duplex.write({
      create_request: {
        key: Buffer.from(prefix),
        range_end: endOf(prefix),
        start_revision: String(after + 1),
        prev_kv: true,
        fragment: true,
      },
    });
    let step: KeyStep[] = [];
    for await (const one of told) {
      if (step.length > 0 && one.modRevision > step[0]!.modRevision) {
        yield step;
        step = [];
      }
      if (one.modRevision > until) return undefined;
      step.push(one);
    }
    if (step.length > 0) yield step;
    return compacted;
  } finally {
    duplex.on('error', () => {});
    // To break it off would make etcd give up the connection, with the watch that others have on it.
    duplex.end();
  }
}

/** The first key after all that begin with `prefix`. */
export function endOf(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1]! += 1;
  return end;
}

type WatchDuplex = Omit<NodeJS.ReadWriteStream, 'write'> & {
  destroyed: boolean;
  write(request: IWatchRequest): boolean;
  destroy(error?: Error): void;
  cancel(): void;
};

/** grpc-js hands out a whole duplex stream; etcd3's type shows only part of it. */
async function openWatch(client: EtcdClient): Promise<WatchDuplex> {
  const stream = await client.watch.watch().catch((error) => {
    throw etcdFault(error);
  });
  return stream as unknown as WatchDuplex;
}

const reconnect: BackoffPolicy = { initialMs: 50, maxMs: 1_000 };
const createTimeoutMs = 3_000;

export class EtcdWatch {
  readonly #parts: WatchParts;
  readonly #begin: Buffer;
  readonly #end: Buffer;
  readonly #abort = new AbortController();
  #stream: { destroy(error?: Error): void } | undefined;
  /** The newest revision told to the sink. */
  #revision = 0;
  #listNext = true;
  #running: Promise<void> | undefined;

  constructor(parts: WatchParts) {
    this.#parts = parts;
    this.#begin = Buffer.from(parts.prefix);
    this.#end = endOf(parts.prefix);
  }

  /** Lists once, rejecting with a Fault where that fails, and follows until `close`. */
  async start(): Promise<void> {
    await this.#list();
    this.#running = this.#follow();
  }

  /** Drops the stream and takes it up again from the newest revision seen: for a stream that has gone silent. */
  restart(): void {
    this.#stream?.destroy(new Fault('unavailable', 'the watch was restarted'));
  }

  async close(): Promise<void> {
    this.#abort.abort(new Fault('cancelled', 'the watch is closed'));
    this.#stream?.destroy();
    await this.#running;
  }

  async #follow(): Promise<void> {
    const { clock, random, log } = this.#parts;
    const { signal } = this.#abort;
    for (let attempt = 1; !signal.aborted; attempt++) {
      const began = clock.monotonic();
      try {
        if (this.#listNext) await this.#list();
        await this.#watch();
      } catch (error) {
        if (signal.aborted) return;
        if (!isFault(error)) throw error;
        log.warn('the watch on etcd was interrupted', { error, attempt, revision: this.#revision });
      }
      if (clock.monotonic() - began > 10_000) attempt = 1;
      await clock.sleep(backoffMs(reconnect, attempt, random), signal).catch(() => {});
    }
  }

  async #list(): Promise<void> {
    const { client, sink, prefix } = this.#parts;
    const list = sink.list();
    let revision = 0;
    for await (const page of pagesOf(client, prefix)) {
      revision = page.revision;
      if (revision < this.#revision) throw this.#rewound(revision);
      list.page(page.entries);
    }
    this.#listNext = false;
    this.#revision = revision;
    list.end(revision);
  }

  /** Ends, by resolving or rejecting, when the stream does. */
  async #watch(): Promise<void> {
    const { client, clock } = this.#parts;
    const duplex = await openWatch(client);
    this.#stream = duplex;
    // Closed while the stream was being opened: nobody else would end it.
    if (this.#abort.signal.aborted) duplex.destroy();
    let created = false;
    const timer = clock.after(createTimeoutMs, () => {
      if (!created) duplex.destroy(new Fault('timeout', 'etcd did not answer to a watch'));
    });
    try {
      await new Promise<void>((resolve, reject) => {
        const pending: KeyEvent[] = [];
        duplex.on('data', (response: IWatchResponse) => {
          try {
            created ||= response.created;
            if (response.canceled) this.#cancelled(response);
            this.#take(response, pending);
          } catch (error) {
            duplex.destroy();
            reject(error);
          }
        });
        duplex.on('error', (error: unknown) => reject(etcdFault(error)));
        duplex.on('end', () => reject(new Fault('unavailable', 'etcd ended the watch')));
        duplex.on('close', resolve);
        if (duplex.destroyed) resolve();
        const request: IWatchRequest = {
          create_request: {
            key: this.#begin,
            range_end: this.#end,
            start_revision: String(this.#revision + 1),
            progress_notify: true,
            fragment: true,
          },
        };
        duplex.write(request);
      });
    } finally {
      timer.cancel();
      this.#stream = undefined;
      duplex.on('error', () => {});
      duplex.cancel();
    }
  }

  #cancelled(response: IWatchResponse): never {
    // Compacted, or for a reason etcd does not tell: what we have may have a gap, so look at everything.
    this.#listNext = true;
    const why =
      Number(response.compact_revision) > 0 ? 'its start was compacted' : response.cancel_reason || 'no reason';
    throw new Fault('unavailable', `etcd cancelled the watch: ${why}`);
  }

  #take(response: IWatchResponse, pending: KeyEvent[]): void {
    if (response.created && Number(response.header.revision) < this.#revision) void this.#verify();
    for (const { type, kv } of response.events) {
      const modRevision = Number(kv.mod_revision);
      if (modRevision <= this.#revision) continue;
      pending.push({ key: kv.key.toString(), value: type === 'Delete' ? undefined : kv.value, modRevision });
    }
    // A fragment may end within a revision, which must not be seen in parts.
    if (response.fragment || pending.length === 0) return;
    const events = pending.splice(0);
    this.#revision = events.at(-1)!.modRevision;
    this.#parts.sink.onEvents(events);
  }

  /** The member we reached is behind: it may only lag, or all of etcd may have been put back. */
  async #verify(): Promise<void> {
    try {
      const answer = await this.#parts.client.kv.range({ key: this.#begin });
      const revision = Number(answer.header.revision);
      if (revision < this.#revision) this.#rewound(revision);
    } catch (error) {
      this.#parts.log.warn('could not compare revisions with etcd', { error: etcdFault(error) });
    }
  }

  #rewound(revision: number): Fault {
    const fault = new Fault('corrupt', `etcd is at revision ${revision}, but told us ${this.#revision} before`, {
      remedy: 'it was restored or replaced: restart every control plane replica',
    });
    this.#parts.sink.onRewound(fault);
    return fault;
  }
}
