/** The store on etcd: guarded transactions, merged where callers come together, and a snapshot fed by one watch. */
import type { ICompare, IKeyValue, IRequestOp, ITxnResponse } from 'etcd3';
import type { Clock } from '#proto/kernel/clock.ts';
import { assert, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import {
  assertForm,
  decodeRecord,
  encodeRecord,
  formKey,
  leadershipKey,
  noSealer,
  parseRecordKey,
  prefix,
  recordKey,
  type Sealer,
} from './codec.ts';
import { CommitQueue } from './commit-queue.ts';
import { type EtcdAddress, type EtcdClient, etcdFault, openEtcd } from './etcd-client.ts';
import { assertNotRestoring } from './etcd-restore.ts';
import { EtcdWatch, historyOf, type KeyEvent, type ListSink, pagesOf } from './etcd-watch.ts';
import { Feed, type LeadershipRecord, type RecordEvent } from './feed.ts';
import type { Applied, Change, Delta } from './records.ts';
import type { Snapshot } from './snapshot.ts';
import type { Store, StoredPage } from './store.ts';

export interface EtcdStoreParts {
  readonly address: EtcdAddress;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly sealer?: Sealer;
  /** etcd lost history we have seen, or has what only a newer version reads: nothing in memory can be trusted any more. */
  readonly onUnusable?: (fault: Fault) => void;
  /** etcd's `--max-txn-ops`; 8,192 unless told. */
  readonly maxOps?: number;
  /** Values of one commit; 8 MiB unless told: etcd before 3.5 takes more, and cannot read its own log of more than 10 MiB at a time when it is started again. */
  readonly maxBytes?: number;
  /** How long an unknown outcome is looked into before the caller is told `timeout`; 6,000 unless told. */
  readonly resolveMs?: number;
}

/** A write as etcd gets it. `proof` are the ranges that tell, after a refusal, whether it had gone through before. */
interface Write {
  readonly compare: ICompare[];
  readonly success: IRequestOp[];
  readonly puts: readonly { readonly key: Buffer; readonly value: Buffer }[];
  readonly deletes: readonly Buffer[];
}

interface Pending extends Write {
  readonly keys: readonly string[];
  readonly bytes: number;
  readonly epoch: number | undefined;
  readonly resolve: (revision: number) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome =
  | { readonly kind: 'committed'; readonly revision: number }
  | { readonly kind: 'refused'; readonly leadershipRevision: number; readonly changed: string | undefined };

const mergeLimits = { keys: 1_000, bytes: 1 << 20, inFlight: 4 };
const resolveBackoff = { initialMs: 50, maxMs: 500 };
/** How many records of a refused transaction are read back with the refusal. */
const proofs = 16;
const overheadBytes = 64;
/** Longest wait for the first answer to a transaction; that for the second is twice as long, and so on. */
const firstWaitMs = 1_000;
/** A commit of ours that the watch has not told by then means that the watch is stuck. */
const silentWatchMs = 3_000;

/** Connects, lists everything, and follows. Faults: `unavailable`, `timeout`, `unauthenticated`. */
export async function openEtcdStore(parts: EtcdStoreParts): Promise<Store> {
  const store = new EtcdStore(parts);
  try {
    await store.start();
  } catch (error) {
    await store.close();
    throw error;
  }
  return store;
}

class EtcdStore implements Store {
  readonly #parts: EtcdStoreParts;
  readonly #client: EtcdClient;
  readonly #watch: EtcdWatch;
  readonly #feed = new Feed();
  readonly #sealer: Sealer;
  readonly #queue: CommitQueue<Pending>;
  /** Tells our own word of leadership from that of a namesake. */
  readonly #run: string;
  #watched = false;
  #closed = false;

  constructor(parts: EtcdStoreParts) {
    this.#parts = parts;
    this.#sealer = parts.sealer ?? noSealer;
    this.#client = openEtcd(parts.address, parts.clock.now);
    this.#run = Buffer.from(parts.random.bytes(8)).toString('hex');
    this.#queue = new CommitQueue<Pending>(mergeLimits, (batch) => this.#commitBatch(batch));
    this.#watch = new EtcdWatch({
      client: this.#client,
      prefix,
      clock: parts.clock,
      random: parts.random,
      log: parts.log.with('watch'),
      sink: {
        list: () => this.#list(),
        onEvents: (events) => this.#onEvents(events),
        onRewound: (fault) => {
          parts.log.error('etcd lost history', { error: fault });
          parts.onUnusable?.(fault);
        },
      },
    });
  }

  get snapshot(): Snapshot {
    return this.#feed.snapshot;
  }
  get leadership(): Leadership | undefined {
    return this.#feed.leadership?.value;
  }

  async start(): Promise<void> {
    await assertNotRestoring(this.#client);
    await this.#watch.start();
  }

  commit(changes: readonly Change[], options: { readonly epoch?: number } = {}): Promise<number> {
    if (this.#closed) return Promise.reject(new Fault('unavailable', 'the store is closed'));
    if (changes.length === 0) return Promise.resolve(this.snapshot.revision);
    return new Promise((resolve, reject) => {
      try {
        this.#queue.add({ ...this.#encode(changes), epoch: options.epoch, resolve, reject });
      } catch (error) {
        reject(error);
      }
    });
  }

  async seen(revision: number, signal?: AbortSignal): Promise<void> {
    if (this.snapshot.revision >= revision) return;
    this.#guardWatch(revision);
    await this.#feed.seen(revision, signal);
  }

  subscribe(listener: (delta: Delta) => void): () => void {
    return this.#feed.subscribe(listener);
  }
  onLeadership(listener: (leadership: Leadership | undefined) => void): () => void {
    return this.#feed.onLeadership(listener);
  }

  async takeLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean> {
    const known = this.#feed.leadership;
    if (!sameLeadership(known?.value, expected)) return false;
    const key = Buffer.from(leadershipKey);
    const value = Buffer.from(JSON.stringify({ ...next, run: this.#run }));
    const outcome = await this.#transact({
      compare: [modEquals(key, known?.modRevision ?? 0)],
      success: [{ request_put: { key, value } }],
      puts: [{ key, value }],
      deletes: [],
    });
    if (outcome.kind === 'refused') return false;
    // The watch may be behind the call: who leads on an old snapshot tells nodes to stop what others have started since.
    await this.seen(outcome.revision);
    return true;
  }

  async readLeadership(): Promise<Leadership | undefined> {
    const answer = await this.#client.kv.range({ key: Buffer.from(leadershipKey) }).catch((error) => {
      throw etcdFault(error);
    });
    const kv = answer.kvs[0];
    if (!kv) return undefined;
    const record = decodeLeadership(kv.value, Number(kv.mod_revision));
    this.#feed.lead(record);
    return record.value;
  }

  async *dump(): AsyncGenerator<StoredPage> {
    for await (const { revision, entries } of pagesOf(this.#client, prefix)) {
      const kept = entries.filter(({ key }) => key.slice(prefix.length).includes('/'));
      yield {
        revision,
        records: kept.map(({ key, value }) => ({ path: key.slice(prefix.length), text: value.toString() })),
      };
    }
  }

  async *past(after: number, until: number): AsyncGenerator<Delta> {
    for await (const steps of historyOf(this.#client, prefix, after, until)) {
      const changes = steps.flatMap(({ key, before, after }) => {
        const name = key === leadershipKey ? undefined : parseRecordKey(key);
        const decode = (value: Buffer | undefined) => value && decodeRecord(name!.table, value, this.#sealer);
        return name ? [{ ...name, before: decode(before), after: decode(after) } as Applied] : [];
      });
      if (changes.length > 0) yield { revision: steps[0]!.modRevision, changes };
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const pending of this.#queue.drain()) pending.reject(new Fault('unavailable', 'the store is closed'));
    await this.#watch.close();
    this.#feed.close();
    this.#client.close();
  }

  #encode(changes: readonly Change[]): Omit<Pending, 'epoch' | 'resolve' | 'reject'> {
    const { maxOps = 8_192, maxBytes = 8 << 20 } = this.#parts;
    if (changes.length >= maxOps)
      throw new Fault('exhausted', `one commit may change ${maxOps - 1} records, not ${changes.length}`, {
        remedy: 'apply fewer services at a time',
      });
    const compare: ICompare[] = [];
    const success: IRequestOp[] = [];
    const puts: { key: Buffer; value: Buffer }[] = [];
    const deletes: Buffer[] = [];
    const keys: string[] = [];
    let bytes = 0;
    for (const { table, key: name, value: record, expect } of changes) {
      const path = recordKey(table, name);
      const key = Buffer.from(path);
      keys.push(path);
      compare.push(modEquals(key, expect));
      bytes += 2 * key.length + overheadBytes;
      if (record === undefined) {
        success.push({ request_delete_range: { key } });
        deletes.push(key);
      } else {
        const value = encodeRecord(table, record, this.#sealer);
        success.push({ request_put: { key, value } });
        puts.push({ key, value });
        bytes += value.length;
      }
    }
    assert(new Set(keys).size === keys.length, 'a commit changes each record once');
    if (bytes > maxBytes)
      throw new Fault('exhausted', `one commit may carry ${maxBytes} bytes, not ${bytes}`, {
        remedy: 'apply fewer or smaller services at a time',
      });
    return { compare, success, puts, deletes, keys, bytes };
  }

  /** Never rejects: each commit of the batch gets its own answer. */
  async #commitBatch(batch: readonly Pending[]): Promise<void> {
    try {
      const guard = this.#epochGuard(batch[0]!.epoch);
      const merged = batch.length === 1 ? batch[0]! : mergeWrites(batch);
      const outcome = await this.#transact(merged, guard);
      if (outcome.kind === 'committed') {
        for (const pending of batch) pending.resolve(outcome.revision);
        return;
      }
      if (batch.length === 1) throw this.#refusal(batch[0]!, guard, outcome);
    } catch (error) {
      for (const pending of batch) pending.reject(error);
      return;
    }
    // One stale guard must not cost the others their commit.
    await Promise.all(batch.map((pending) => this.#commitBatch([pending])));
  }

  /** The leadership record that a commit of `epoch` was made under. */
  #epochGuard(epoch: number | undefined): LeadershipRecord | undefined {
    if (epoch === undefined) return undefined;
    const known = this.#feed.leadership;
    if (known?.value.epoch !== epoch) throw epochPassed(epoch, known?.value);
    return known;
  }

  #refusal(write: Pending, guard: LeadershipRecord | undefined, outcome: Extract<Outcome, { kind: 'refused' }>): Fault {
    if (guard && outcome.leadershipRevision !== guard.modRevision)
      return epochPassed(guard.value.epoch, this.leadership);
    const what = outcome.changed?.slice(prefix.length) ?? `one of ${write.keys.length} records`;
    return new Fault('conflict', `${what} was changed by somebody else`, { remedy: 'look again and repeat' });
  }

  /**
   * One transaction to a known end. An unknown outcome is resolved by sending it again: its guards let it through at most
   * once, and where they refuse, what lies there tells whether it had gone through the first time.
   */
  async #transact(write: Write, guard?: LeadershipRecord): Promise<Outcome> {
    const { clock, random, address, resolveMs = 6_000 } = this.#parts;
    const deadline = clock.monotonic() + resolveMs;
    const proven = [...write.puts.map(({ key }) => key), ...write.deletes].slice(0, proofs);
    const request = {
      compare: guard ? [...write.compare, modEquals(Buffer.from(leadershipKey), guard.modRevision)] : write.compare,
      success: write.success,
      failure: [
        { request_range: { key: Buffer.from(leadershipKey) } },
        ...proven.map((key) => ({ request_range: { key } })),
      ],
    };
    let doubt = false;
    for (let attempt = 1; ; attempt++) {
      try {
        // Short at first: a member may have sent it on to a leader that has just died. Sending it again is harmless.
        const waitMs = Math.min(attempt * firstWaitMs, address.callTimeoutMs ?? Number.POSITIVE_INFINITY);
        const answer = await this.#client.kv.txn(request, { deadline: clock.now() + waitMs });
        if (answer.succeeded) return { kind: 'committed', revision: Number(answer.header.revision) };
        const read = answer.responses.slice(1).map(({ response_range }) => response_range.kvs[0]);
        const before = doubt ? committedBefore(write, read, Number(answer.header.revision)) : undefined;
        if (before !== undefined) return { kind: 'committed', revision: before };
        return refused(request.compare, answer);
      } catch (error) {
        let fault = etcdFault(error);
        if (isFault(fault, 'exhausted')) {
          // The write that uses up the quota is told as refused, and is made all the same; and one before it may have gone through.
          const before = await this.#found(write, proven).catch((unanswered) => {
            fault = etcdFault(unanswered);
          });
          if (before !== undefined) return { kind: 'committed', revision: before };
        }
        if (!isFault(fault, 'timeout', 'unavailable')) throw fault;
        doubt = true;
        if (this.#closed || clock.monotonic() >= deadline)
          throw new Fault('timeout', 'etcd did not tell whether the commit went through', {
            cause: fault,
            remedy: 'look at the present state before repeating',
          });
        await clock.sleep(backoffMs(resolveBackoff, attempt, random));
      }
    }
  }

  /** The revision at which a transaction went through whose answer was lost, looked up without writing; rejects as etcd's client does. */
  async #found(write: Write, proven: readonly Buffer[]): Promise<number | undefined> {
    // Deletes nothing, and needs no room: when it is answered, all that was sent before it is in etcd's log, or never will be.
    await this.#client.kv.deleteRange({ key: Buffer.from(prefix) });
    const answers = await Promise.all(proven.map((key) => this.#client.kv.range({ key })));
    const read = answers.map(({ kvs }) => kvs[0]);
    const revision = committedBefore(write, read, Number(answers[0]?.header.revision));
    // The same may have lain there before.
    return write.compare.some((guard) => Number(guard.mod_revision) === revision) ? undefined : revision;
  }

  /** Restarts a watch that does not tell of a revision that etcd is known to have. */
  #guardWatch(revision: number): void {
    if (this.#watched) return;
    this.#watched = true;
    this.#parts.clock.after(silentWatchMs, () => {
      this.#watched = false;
      if (this.#closed || !this.#feed.awaited) return;
      if (this.snapshot.revision < revision) {
        this.#parts.log.warn('the watch is silent', { revision });
        this.#watch.restart();
      }
      this.#guardWatch(revision);
    });
  }

  /** Each page is read at once, and of what the snapshot has already only the name: a list never lies here whole, as bytes or as records. */
  #list(): ListSink {
    const listing = this.#feed.list();
    let leadership: LeadershipRecord | undefined;
    return {
      page: (entries) => {
        const news = entries.filter(({ key: path, modRevision }) => {
          const name = parseRecordKey(path);
          return !name || listing.isNews({ ...name, modRevision });
        });
        const decoded = this.#decode(news);
        for (const record of decoded.records) listing.add(record);
        leadership ??= decoded.leadership;
      },
      end: (revision) => this.#feed.relisted(revision, listing, leadership),
    };
  }

  #onEvents(events: readonly KeyEvent[]): void {
    try {
      this.#step(events);
    } catch (error) {
      if (isFault(error, 'unsupported')) this.#parts.onUnusable?.(error);
      throw error;
    }
  }

  #step(events: readonly KeyEvent[]): void {
    for (let start = 0; start < events.length; ) {
      const revision = events[start]!.modRevision;
      let end = start + 1;
      while (end < events.length && events[end]!.modRevision === revision) end++;
      const { records, leadership } = this.#decode(events.slice(start, end));
      this.#feed.step(revision, records, leadership);
      start = end;
    }
  }

  #decode(entries: readonly KeyEvent[]): { records: RecordEvent[]; leadership?: LeadershipRecord } {
    const records: RecordEvent[] = [];
    let leadership: LeadershipRecord | undefined;
    for (const { key: path, value, modRevision } of entries) {
      if (path === leadershipKey) {
        if (value) leadership = decodeLeadership(value, modRevision);
        continue;
      }
      if (path === formKey && value) assertForm(value);
      const name = parseRecordKey(path);
      if (name) records.push({ ...name, value: value && decodeRecord(name.table, value, this.#sealer), modRevision });
    }
    return leadership ? { records, leadership } : { records };
  }
}

function modEquals(key: Buffer, revision: number): ICompare {
  return { key, target: 'Mod', result: 'Equal', mod_revision: String(revision) };
}

function mergeWrites(batch: readonly Pending[]): Write {
  return {
    compare: batch.flatMap(({ compare }) => compare),
    success: batch.flatMap(({ success }) => success),
    puts: batch.flatMap(({ puts }) => puts),
    deletes: batch.flatMap(({ deletes }) => deletes),
  };
}

/** The revision at which exactly this was written, where all that was read back lies there as written, in one revision. */
function committedBefore(write: Write, read: readonly (IKeyValue | undefined)[], readAt: number): number | undefined {
  const puts = write.puts.slice(0, proofs);
  const revision = puts.length > 0 ? Number(read[0]?.mod_revision ?? 0) : readAt;
  const asPut = puts.every(
    ({ value }, index) =>
      read[index] && Number(read[index].mod_revision) === revision && value.equals(read[index].value),
  );
  return asPut && read.slice(puts.length).every((kv) => kv === undefined) ? revision : undefined;
}

function refused(compare: readonly ICompare[], answer: ITxnResponse): Outcome {
  const [leadership, ...read] = answer.responses.map(({ response_range }) => response_range.kvs[0]);
  const wanted = new Map(compare.map(({ key, mod_revision }) => [key!.toString(), String(mod_revision)]));
  const changed = read.find((kv) => kv && wanted.get(kv.key.toString()) !== kv.mod_revision);
  return {
    kind: 'refused',
    leadershipRevision: Number(leadership?.mod_revision ?? 0),
    changed: changed?.key.toString(),
  };
}

function decodeLeadership(bytes: Buffer, modRevision: number): LeadershipRecord {
  const { epoch, replica, address } = JSON.parse(bytes.toString()) as Leadership;
  return { value: { epoch, replica, address }, modRevision };
}

function epochPassed(epoch: number, known: Leadership | undefined): Fault {
  return new Fault(
    'precondition',
    `epoch ${epoch} does not lead: ${known ? `${known.replica} leads with epoch ${known.epoch}` : 'nobody does'}`,
  );
}

function sameLeadership(a: Leadership | undefined, b: Leadership | undefined): boolean {
  return a?.epoch === b?.epoch && a?.replica === b?.replica && a?.address === b?.address;
}
