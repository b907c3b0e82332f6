/** This replica's identity joined to what uses it: files, doors, connections to other replicas, NATS and etcd beside it. */
import * as grpc from '@grpc/grpc-js';
import { ClusterService } from '#proto/gen/gantry/v1/cluster.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { retry } from '#proto/kernel/retry.ts';
import type { Scope } from '#proto/kernel/scope.ts';
import type { AuthorityState } from '#proto/model/authority.ts';
import { clockComplaint } from '#proto/model/wall-clock.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import type { ControlPlaneConfig } from './config.ts';
import { AuthorityKeeper } from './controllers/authority-keeper.ts';
import { runPartCommand } from './part-command.ts';
import { authorityOf, refresh } from './security/authority-files.ts';
import { dayMs } from './security/certificates.ts';
import { LiveIdentity } from './security/live-identity.ts';
import { initPki, type PkiParts } from './security/pki.ts';
import type { Store } from './store/store.ts';

/** Between two questions to an etcd that is about to end. */
const oftenMs = { initialMs: 50, maxMs: 50 };

interface Kernel {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** How its certificates are made. */
function pkiOf({ data, name, advertise, certificateLife }: ControlPlaneConfig): PkiParts {
  return { dataDir: data, name, advertise, lifetimeMs: certificateLife };
}

export async function openIdentity(config: ControlPlaneConfig): Promise<LiveIdentity> {
  return new LiveIdentity(await initPki(pkiOf(config)));
}

/** As what a replica talks to others. */
export function replicaCredentials({ pki }: LiveIdentity): grpc.ChannelCredentials {
  const { certificate, key } = pki.pair('client');
  return grpc.credentials.createSsl(Buffer.from(pki.authority.trust), Buffer.from(key), Buffer.from(certificate));
}

/** Asks another replica for a sign of life, over a connection that is kept for each: the epoch it leads with. Says where its clock and ours differ. */
export function replicaProbe(
  scope: Scope,
  identity: LiveIdentity,
  { clock, log }: Pick<Kernel, 'clock' | 'log'>,
): (address: string, signal?: AbortSignal) => Promise<number | undefined> {
  const clients = new Map<string, grpc.Client>();
  const forget = () => {
    for (const client of clients.values()) client.close();
    clients.clear();
  };
  scope.defer(forget);
  scope.defer(identity.onChange(forget));
  /** Of each replica, what was last said of its clock. */
  const said = new Map<string, string>();
  const compare = (replica: string, aheadMs: number) => {
    const why = clockComplaint([{ name: replica, aheadMs }]) ?? '';
    if (why !== '' && why !== said.get(replica)) log.warn('clocks differ', { why });
    said.set(replica, why);
  };
  return async (address, signal) => {
    let client = clients.get(address);
    if (!client) {
      client = new grpc.Client(address, replicaCredentials(identity), channelOptions);
      clients.set(address, client);
    }
    const askedAt = clock.monotonic();
    const answer = await call(client, ClusterService.ping, {}, { timeoutMs: 1_000, ...(signal && { signal }) });
    if (answer.atMs > 0) compare(answer.replica, answer.atMs + (clock.monotonic() - askedAt) / 2 - clock.now());
    return answer.leading ? answer.epoch : undefined;
  };
}

/** Renews certificates long before they end and follows the CA of the store, without a restart. */
export function keepIdentity(
  scope: Scope,
  config: ControlPlaneConfig,
  { clock, random, log }: Kernel,
  parts: { readonly identity: LiveIdentity; readonly store: Store; readonly epoch: () => number | undefined },
): void {
  const { identity, store, epoch } = parts;
  const { natsReload, etcdRestart } = config;
  const reload = async () => {
    log.info('certificates renewed', { why: `issued by the CA ${identity.authority.hash}` });
    if (natsReload === '') return;
    await runPartCommand(natsReload).catch((error) => log.error('NATS was not told of its new certificate', { error }));
  };
  let turn: Promise<unknown> = Promise.resolve();
  /** One after the other: both write the same files. */
  const refreshed = (state: AuthorityState | undefined) => {
    const next = turn
      .then(() => refresh(pkiOf(config), identity, state, reload))
      .catch((error) => {
        if (isFault(error)) throw error;
        throw new Fault('internal', `the certificates in ${config.data} were not written: ${describe(error)}`, {
          cause: error,
          remedy: 'see that there is room, and that it may be written to: it is tried again',
        });
      });
    turn = next.catch(() => {});
    return next;
  };
  const restartEtcd = async () => {
    const parts = { clock, random, signal: scope.signal };
    // The command may only have told it to end: who answers next may be the one that is about to.
    const silent = retry(parts, { ...oftenMs, attempts: 200 }, async () => {
      const answers = await store.readLeadership().then(
        () => true,
        () => false,
      );
      if (answers) throw new Fault('unavailable', 'etcd goes on');
    });
    await Promise.all([runPartCommand(etcdRestart), silent.catch(() => {})]);
    await retry(parts, { initialMs: 200, maxMs: 1_000 }, () => store.readLeadership());
  };
  const keeper = new AuthorityKeeper({
    store,
    clock,
    log: log.with('authority'),
    replica: config.name,
    epoch,
    own: () => authorityOf(config.data, identity),
    adopt: refreshed,
    restartEtcd: etcdRestart === '' ? undefined : restartEtcd,
  });
  scope.defer(() => keeper.close());
  const everyMs = Math.min(dayMs, config.certificateLife / 10);
  let timer = clock.after(everyMs, function renew() {
    refreshed(store.snapshot.authority)
      .catch((error) => log.error('certificates of this manager are not renewed', { error }))
      .finally(() => {
        if (!scope.closing) timer = clock.after(everyMs, renew);
      });
  });
  scope.defer(() => timer.cancel());
}
