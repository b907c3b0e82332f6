/**
 * The CA as it is in the store, in every replica: takes what it says (files, doors, NATS, etcd), says how far it is, and in the
 * leader takes a rotation on when all have done their part. Every step is found again in the record: any of it may be interrupted.
 */
import { nextAuthority } from '#control-plane/reconcilers/authority.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { AuthorityState, ReplicaTrust } from '#proto/model/authority.ts';

export interface AuthorityKeeperParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** This replica's name. */
  readonly replica: string;
  /** Of this replica's leadership; undefined while it follows. */
  readonly epoch: () => number | undefined;
  /** What this replica's files have of the CA: for the first of a cluster to write down. */
  readonly own: () => Promise<Pick<AuthorityState, 'roots' | 'key' | 'cross'>>;
  /** Lays the CA down, has its own certificates of it and shows them; what it issues by and trusts then. Harmless to repeat. */
  readonly adopt: (state: AuthorityState) => Promise<Pick<ReplicaTrust, 'issuer' | 'trusts'>>;
  /** Starts this manager's etcd again and resolves when it answers; undefined: that is done by hand. */
  readonly restartEtcd: (() => Promise<void>) | undefined;
}

/** Many nodes say that they have renewed in one moment: they are looked at together. */
const gatherMs = 200;
const retryMs = 2_000;
/** A replica before ours that does not start its etcd again is waited for no longer than this. */
const turnMs = 20_000;

export class AuthorityKeeper {
  readonly #parts: AuthorityKeeperParts;
  readonly #unsubscribe: () => void;
  #timer: Timer | undefined;
  #atMs = 0;
  #running = false;
  #again = false;
  #closed = false;
  /** Monotonic: since when it is about to start its etcd again. */
  #turnSinceMs: number | undefined;
  /** What its etcd trusts since this run has started it again: the record may still be behind. */
  #etcdTrusts: readonly string[] | undefined;

  constructor(parts: AuthorityKeeperParts) {
    this.#parts = parts;
    this.#unsubscribe = parts.store.subscribe((delta) => this.#changed(delta));
    this.#lookIn(0);
  }

  close(): void {
    this.#closed = true;
    this.#unsubscribe();
    this.#timer?.cancel();
  }

  #changed({ changes }: Delta): void {
    if (changes.some(({ table }) => table === 'authority')) this.#lookIn(0);
    else if (changes.some((change) => change.table === 'node' && change.before?.authority !== change.after?.authority))
      this.#lookIn(gatherMs);
  }

  #lookIn(ms: number): void {
    if (this.#closed) return;
    const atMs = this.#parts.clock.monotonic() + ms;
    if (this.#timer && this.#atMs <= atMs) return;
    this.#timer?.cancel();
    this.#atMs = atMs;
    this.#timer = this.#parts.clock.after(ms, () => {
      this.#timer = undefined;
      void this.#look();
    });
  }

  async #look(): Promise<void> {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    try {
      await this.#step();
    } catch (error) {
      // What was under way when it was closed fails for that alone.
      if (this.#closed) return;
      if (!isFault(error)) throw error;
      if (!isFault(error, 'conflict', 'precondition'))
        this.#parts.log.warn('the CA is not as it should be, trying again', { error });
      this.#lookIn(isFault(error, 'conflict') ? gatherMs : retryMs);
    } finally {
      this.#running = false;
    }
    if (this.#again) this.#lookIn(0);
    this.#again = false;
    // Who leads may change, and certificates of operators end, without a word about it here.
    const { phase } = this.#parts.store.snapshot.authority ?? {};
    if (phase !== 'settled') this.#lookIn(retryMs);
  }

  async #step(): Promise<void> {
    const { store, replica, own, adopt } = this.#parts;
    const held = store.snapshot.get('authority', 'ca');
    if (!held) {
      const nothing = { phase: 'settled', rotatedAtMs: 0, replicas: {}, operators: {} } as const;
      await this.#commit({ ...nothing, ...(await own()) }, 0);
      return;
    }
    const state = held.value;
    const trust = await adopt(state);
    if (this.#isEtcdsTurn(state, trust.trusts)) {
      await this.#restartEtcd(trust.trusts);
      // That took long: the record is another one by now.
      return this.#step();
    }
    const etcd = this.#trustsOfEtcd(state, trust.trusts);
    const mine: ReplicaTrust = etcd ? { ...trust, etcd } : trust;
    if (JSON.stringify(state.replicas[replica]) !== JSON.stringify(mine)) {
      await this.#commit({ ...state, replicas: { ...state.replicas, [replica]: mine } }, held.modRevision);
      return;
    }
    await this.#lead(state, held.modRevision);
  }

  /** What this manager's etcd trusts; undefined where it is not ours to start. */
  #trustsOfEtcd({ replicas, phase }: AuthorityState, trusts: readonly string[]): readonly string[] | undefined {
    const { replica, restartEtcd } = this.#parts;
    if (!restartEtcd) return undefined;
    return this.#etcdTrusts ?? replicas[replica]?.etcd ?? (phase === 'dropping' ? undefined : trusts);
  }

  /** It trusts what is trusted no more, and so does none before it: one after the other, so that the others' go on meanwhile. */
  #isEtcdsTurn(state: AuthorityState, trusts: readonly string[]): boolean {
    const { replica, restartEtcd, clock } = this.#parts;
    if (!restartEtcd) return false;
    const known = this.#trustsOfEtcd(state, trusts);
    // More than it was started with needs no start: what is issued by a new root is shown with its certificate by the old one.
    if (known?.every((hash) => trusts.includes(hash))) return false;
    const now = clock.monotonic();
    this.#turnSinceMs ??= now;
    const before = Object.entries(state.replicas).some(
      ([name, other]) => name < replica && other.etcd?.some((hash) => !trusts.includes(hash)),
    );
    if (!before || now - this.#turnSinceMs >= turnMs) return true;
    this.#lookIn(retryMs);
    return false;
  }

  async #restartEtcd(trusts: readonly string[]): Promise<void> {
    const { restartEtcd, log } = this.#parts;
    log.info('starting etcd again: it is to trust the new CA alone');
    await restartEtcd!();
    this.#etcdTrusts = trusts;
    this.#turnSinceMs = undefined;
  }

  async #lead(state: AuthorityState, expect: number): Promise<void> {
    const { store, clock, epoch, log } = this.#parts;
    const leading = epoch();
    if (leading === undefined) return;
    const next = nextAuthority(store.snapshot, clock.now());
    if (!next) return;
    await this.#commit(next, expect, endOf(state, next, store), leading);
    log.info('the rotation of the CA goes on', { why: next.phase });
  }

  async #commit(value: AuthorityState, expect: number, more: readonly Change[] = [], epoch?: number): Promise<void> {
    const { store } = this.#parts;
    const changes: Change[] = [{ table: 'authority', key: 'ca', value, expect }, ...more];
    await store.seen(await store.commit(changes, epoch === undefined ? {} : { epoch }));
  }
}

/** What goes with the old root: join tokens that pin it. */
export function endOf(before: AuthorityState, after: AuthorityState, { snapshot }: Pick<Store, 'snapshot'>): Change[] {
  if (after.phase !== 'dropping' || before.phase === 'dropping') return [];
  return [...snapshot.all('token')]
    .filter(({ createdAtMs }) => createdAtMs < after.rotatedAtMs)
    .map(({ id }) => ({
      table: 'token',
      key: id,
      value: undefined,
      expect: snapshot.get('token', id)!.modRevision,
    }));
}
