/** The store as the control plane opens it: etcd is waited for, and a backup that waits to be restored is put into it first. */
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { retry } from '#proto/kernel/retry.ts';
import type { ControlPlaneConfig } from './config.ts';
import { pendingRecords, pendingRestore, restored } from './restore.ts';
import type { LiveIdentity } from './security/live-identity.ts';
import { sealer } from './security/seal.ts';
import { type EtcdAddress, openEtcd } from './store/etcd-client.ts';
import { restoreRecords } from './store/etcd-restore.ts';
import { openEtcdStore } from './store/etcd-store.ts';
import type { Store } from './store/store.ts';

export interface StoreOpening {
  readonly config: ControlPlaneConfig;
  readonly identity: LiveIdentity;
  readonly kernel: { readonly clock: Clock; readonly random: Random; readonly log: Log };
  /** etcd has lost what we know, or has what only a newer version reads: this process must be started again. */
  readonly fail: (fault: Fault) => void;
  /** Whether a replica leads at this address. */
  readonly leads: (address: string) => Promise<boolean>;
}

/** How long a start waits for etcd. */
const etcdPatienceMs = 60_000;

/** etcd may come up after us: waits for it, and says so. */
export async function openStore(opening: StoreOpening): Promise<Store> {
  const { config, identity, kernel, fail } = opening;
  const { clock, random, log } = kernel;
  const address = addressOf(config, identity);
  const deadline = clock.monotonic() + etcdPatienceMs;
  const open = async (attempt: number) => {
    try {
      await restoreFirst(opening, address);
      return await openEtcdStore({
        address,
        clock,
        random,
        log: log.with('store'),
        sealer: sealer([identity.pki.sealKey], random),
        onUnusable: fail,
      });
    } catch (error) {
      if (isFault(error)) log.warn('waiting for etcd', { error, attempt, address: config.etcd.join(',') });
      throw error;
    }
  };
  return retry({ clock, random }, { initialMs: 100, maxMs: 2_000 }, open, (error) => {
    return isFault(error, 'unavailable', 'timeout') && clock.monotonic() < deadline;
  }).catch((error) => {
    if (!isFault(error) || error.code === 'unsupported') throw error;
    throw new Fault(error.code, `cannot work without etcd at ${config.etcd.join(', ')}: ${error.message}`, {
      cause: error,
      remedy: error.remedy ?? 'start it with the certificates under pki/etcd, or point --etcd at it',
    });
  });
}

async function restoreFirst({ config, kernel, leads }: StoreOpening, address: EtcdAddress): Promise<void> {
  const pending = await pendingRestore(config.data);
  if (!pending) return;
  const { clock, log } = kernel;
  const client = openEtcd(address, clock.now);
  try {
    const count = await restoreRecords({
      client,
      id: pending.id,
      force: pending.force,
      atMs: pending.atMs,
      epoch: pending.info.epoch,
      records: pendingRecords(config.data),
      replica: config.name,
      leads: (at) => leads(at).catch(() => false),
    });
    await restored(config.data);
    log.info('the backup is restored', { count });
  } finally {
    client.close();
  }
}

function addressOf(config: ControlPlaneConfig, identity: LiveIdentity): EtcdAddress {
  if (!config.etcd[0]!.startsWith('https:')) return { hosts: config.etcd };
  let { pki } = identity;
  const tls = () => {
    const { certificate, key } = pki.pair('client');
    return { ca: Buffer.from(pki.authority.trust), cert: Buffer.from(certificate), key: Buffer.from(key) };
  };
  let held = tls();
  return {
    hosts: config.etcd,
    tls() {
      if (identity.pki !== pki) {
        pki = identity.pki;
        held = tls();
      }
      return held;
    },
  };
}
