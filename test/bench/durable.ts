/** How many tasks a second the production controllers place and commit to a real etcd: `node test/bench/durable.ts` prints JSON. */
import { Etcd3 } from 'etcd3';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import { recordKey } from '#control-plane/store/codec.ts';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { revisionKey } from '#control-plane/store/snapshot.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { aNode, aRevision, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';
import { startEtcd } from '#test/support/etcd.ts';

const [nodes = 5_000, services = 500, replicas = 100] = process.argv.slice(2).map(Number);
const reservations = { cpuMillis: 100, memoryBytes: 64 * 2 ** 20, pids: 0, generic: [] };
const epoch = 1;
const kernel = { clock: systemClock, random: systemRandom, log: silentLog };

function nodeRecords(): Change[] {
  return Array.from({ length: nodes }, (_, index) => {
    const labels = { zone: `z${index % 10}`, disk: Math.floor(index / 10) % 2 === 0 ? 'ssd' : 'hdd' };
    const value = aNode(`n${String(index).padStart(5, '0')}`, { labels });
    return { table: 'node', key: value.id, value, expect: 0 };
  });
}

function serviceRecords(): Change[] {
  return Array.from({ length: services }, (_, index): Change[] => {
    const service = aService(`s${index}x`, {
      replicas,
      template: aTemplate({ reservations }),
      placement: {
        constraints: [`node.labels.disk == ${(index >> 3) % 2 === 0 ? 'ssd' : 'hdd'}`],
        spread: ['node.labels.zone'],
        maxReplicasPerNode: 0,
        platforms: [],
        strategy: '',
        affinities: [],
      },
    });
    const revision = aRevision(service);
    return [
      { table: 'service', key: service.id, value: service, expect: 0 },
      { table: 'revision', key: revisionKey(service.id, revision.number), value: revision, expect: 0 },
    ];
  }).flat();
}

const etcd = await startEtcd();
const scope = new Scope();
try {
  const putsPerSecond = await floor();
  const store = await openEtcdStore({ ...kernel, address: { hosts: [etcd.url] } });
  scope.defer(() => store.close());
  await store.takeLeadership(undefined, { epoch, replica: 'bench', address: '127.0.0.1:1' });
  const commit = async (changes: Change[]) => {
    for (let at = 0; at < changes.length; at += 2_000)
      await store.seen(await store.commit(changes.slice(at, at + 2_000), { epoch }));
  };
  await commit(nodeRecords());
  const liveness = {
    lastArrivalMs: Number.NEGATIVE_INFINITY,
    lastBeatAt: () => systemClock.monotonic(),
    hungUpAt: () => undefined,
    agentOf: () => undefined,
    clocks: () => new Map(),
    kernelOf: () => ({ answeredAtMs: undefined, round: undefined }),
    suspect: () => {},
    appliedRevision: () => undefined,
    withhold: () => {},
    withheld: () => false,
    withheldNodes: () => [],
    onChange: () => () => {},
  };
  void runControllers(
    { ...kernel, store, liveness, usage: new UsageDesk(systemClock), removeVolume: async () => {} },
    epoch,
    scope.child(),
  );
  const total = services * replicas;
  let placed = 0;
  const done = new Promise<void>((resolve) => {
    store.subscribe(({ changes }) => {
      for (const change of changes)
        if (change.table === 'task' && change.after?.nodeId && !change.before?.nodeId) placed++;
      if (placed >= total) resolve();
    });
  });
  const wishes = serviceRecords();
  const began = performance.now();
  await commit(wishes);
  await done;
  const seconds = (performance.now() - began) / 1_000;
  process.stdout.write(
    `${JSON.stringify({ nodes, services, replicas, placed, seconds, placementsPerSecond: placed / seconds, putsPerSecond })}\n`,
  );
} finally {
  await scope.close();
  await etcd.close();
}

/** The same number of task records, a thousand to a transaction, by the bare client. */
async function floor(): Promise<number> {
  const client = new Etcd3({ hosts: etcd.url });
  const bytes = Buffer.from(JSON.stringify(aTask('t', { state: 'assigned', reservations, address: '10.192.1.2' })));
  const batch = 1_000;
  const rounds = 10;
  const began = performance.now();
  await Promise.all(
    Array.from({ length: rounds }, (_, round) =>
      client.kv.txn({
        compare: [],
        success: Array.from({ length: batch }, (_, index) => ({
          request_put: { key: Buffer.from(`/floor/${recordKey('task', idOf(`t${round}x${index}x`))}`), value: bytes },
        })),
        failure: [],
      }),
    ),
  );
  const rate = (rounds * batch * 1_000) / (performance.now() - began);
  client.close();
  return rate;
}
