/** Puts the records of a backup into an etcd, as a new incarnation of the cluster: no replica may work on it meanwhile. */
import type { IRequestOp } from 'etcd3';
import { Fault } from '#proto/kernel/errors.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { Node } from '#proto/model/node.ts';
import { leadershipKey, prefix, recordKey } from './codec.ts';
import { type EtcdClient, etcdFault } from './etcd-client.ts';
import { endOf } from './etcd-watch.ts';

export interface EtcdRestore {
  readonly client: EtcdClient;
  /** Of the restore: one that was interrupted is gone on with. */
  readonly id: string;
  /** Deletes what is there. */
  readonly force: boolean;
  /** When it was asked for, wall clock ms. */
  readonly atMs: number;
  /** Of the leadership when the backup was made. */
  readonly epoch: number;
  readonly records: AsyncIterable<{ readonly path: string; readonly value: unknown }>;
  /** This replica: it leads next. */
  readonly replica: string;
  /** Says whether a replica leads at this address. */
  readonly leads: (address: string) => Promise<boolean>;
}

/** While it is there, the records are not whole. */
const markKey = `${prefix}restoring`;
const batch = { records: 500, bytes: 1 << 20 };

/** Faults: `precondition` where etcd holds a cluster already, or a replica still leads it; those of etcd. */
export async function restoreRecords(restore: EtcdRestore): Promise<number> {
  const { client, id, atMs, records, replica } = restore;
  const mark = await textOf(client, markKey);
  if (mark !== id) await makeWay(restore, mark !== undefined);
  let count = 0;
  let cluster: ClusterConfig | undefined;
  let puts: IRequestOp[] = [];
  let bytes = 0;
  const flush = async () => {
    if (puts.length > 0) await transact(client, puts);
    puts = [];
    bytes = 0;
  };
  for await (const { path, value } of records) {
    count++;
    if (path === 'cluster/config') {
      cluster = value as ClusterConfig;
      continue;
    }
    const put = putOf(`${prefix}${path}`, asRestored(path, value, atMs));
    puts.push(put);
    bytes += put.request_put!.value!.length;
    if (puts.length >= batch.records || bytes >= batch.bytes) await flush();
  }
  await flush();
  if (!cluster) throw new Fault('corrupt', 'the backup has no record of the cluster');
  const incarnation = (cluster.incarnation ?? 0) + 1;
  const epoch = Math.max(restore.epoch + 1, Math.floor(atMs / 1_000));
  // In one step, and last: from here on it is a cluster again.
  await transact(client, [
    putOf(recordKey('cluster', 'config'), { ...cluster, incarnation, restoredAtMs: atMs }),
    putOf(leadershipKey, { epoch, replica, address: '' }),
    { request_delete_range: { key: Buffer.from(markKey) } },
  ]);
  return count;
}

/** Fault `unavailable` while another replica restores: what is there is not whole. */
export async function assertNotRestoring(client: EtcdClient): Promise<void> {
  if ((await textOf(client, markKey)) !== undefined)
    throw new Fault('unavailable', 'a backup is being restored into etcd', {
      remedy: 'wait; where that was interrupted, start the control plane that has the backup',
    });
}

async function makeWay({ client, id, force, leads }: EtcdRestore, interrupted: boolean): Promise<void> {
  const found = await client.kv
    .range({ key: Buffer.from(prefix), range_end: endOf(prefix), limit: 1, keys_only: true })
    .catch((error) => {
      throw etcdFault(error);
    });
  if (found.kvs.length > 0) {
    if (!force && !interrupted)
      throw new Fault('precondition', 'etcd holds a cluster already, and a restore is for an empty one', {
        remedy:
          'stop every control plane, and give --force to have all that etcd holds replaced; or remove restore.json from the data directory to go on with what is there',
      });
    const leadership = await textOf(client, leadershipKey);
    const address = leadership === undefined ? '' : (JSON.parse(leadership) as { address: string }).address;
    if (address !== '' && (await leads(address)))
      throw new Fault('precondition', `the control plane at ${address} leads the cluster that is to be replaced`, {
        remedy: 'stop every control plane first',
      });
    await transact(client, [{ request_delete_range: { key: Buffer.from(prefix), range_end: endOf(prefix) } }]);
  }
  await transact(client, [{ request_put: { key: Buffer.from(markKey), value: Buffer.from(id) } }]);
}

/** Nodes are yet to be heard, and which managers there are is yet to be seen. */
function asRestored(path: string, value: unknown, atMs: number): unknown {
  if (path.startsWith('node/')) return notHeard(value as Node, atMs);
  return path === recordKey('authority', 'ca').slice(prefix.length) ? { ...(value as object), replicas: {} } : value;
}

/** Whether it is still there is yet to be seen. */
function notHeard(node: Node, atMs: number): Node {
  if (node.state === 'down') return { ...node, restored: true };
  return {
    ...node,
    state: 'unknown',
    message: 'not heard since the cluster was restored',
    stateAtMs: atMs,
    restored: true,
  };
}

function putOf(key: string, value: unknown): IRequestOp {
  return { request_put: { key: Buffer.from(key), value: Buffer.from(JSON.stringify(value)) } };
}

async function transact(client: EtcdClient, success: IRequestOp[]): Promise<void> {
  await client.kv.txn({ compare: [], success, failure: [] }).catch((error) => {
    throw etcdFault(error);
  });
}

async function textOf(client: EtcdClient, key: string): Promise<string | undefined> {
  const answer = await client.kv.range({ key: Buffer.from(key) }).catch((error) => {
    throw etcdFault(error);
  });
  return answer.kvs[0]?.value.toString();
}
