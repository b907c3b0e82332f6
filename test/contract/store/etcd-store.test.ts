/** The store on a real etcd keeps the promises of a store, also while etcd crashes, freezes, forgets and comes back. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Etcd3 } from 'etcd3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { mostContentBytes } from '#control-plane/compose/documents.ts';
import { initPki, pkiPaths } from '#control-plane/security/pki.ts';
import { formKey, noSealer, type Sealer, storeForm } from '#control-plane/store/codec.ts';
import type { EtcdAddress } from '#control-plane/store/etcd-client.ts';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { Fault } from '#proto/kernel/errors.ts';
import { type Log, silentLog } from '#proto/kernel/log.ts';
import { type Random, systemRandom } from '#proto/kernel/random.ts';
import { Concealed } from '#proto/model/concealed.ts';
import { contentKey, largestBytes } from '#proto/model/document.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { eventually } from '#test/support/eventually.ts';
import { testSeal } from '#test/support/test-seal.ts';
import { aTask } from './records.ts';
import { put, storeContract } from './store-contract.ts';

let etcd: TestEtcd;
const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });

/** A way to etcd whose connections can be held up one by one, on the way back. */
async function holdableLine(port: string): Promise<{ url: string; connections: Socket[]; close(): Promise<void> }> {
  const connections: Socket[] = [];
  const server = createServer((client) => {
    const upstream = connect(Number(port), '127.0.0.1');
    connections.push(upstream);
    client.pipe(upstream);
    upstream.on('data', (bytes) => client.write(bytes));
    upstream.on('close', () => client.destroy());
    client.on('close', () => upstream.destroy());
    for (const socket of [client, upstream]) socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** Counts the waits before another attempt: the jitter of each is drawn from it. */
function countedWaits(): Random & { readonly waits: number } {
  let waits = 0;
  return {
    bytes: systemRandom.bytes,
    int(bound) {
      waits++;
      return systemRandom.int(bound);
    },
    get waits() {
      return waits;
    },
  };
}

interface OpenOptions {
  readonly hosts?: readonly string[];
  readonly tls?: NonNullable<EtcdAddress['tls']>;
  readonly sealer?: Sealer;
  readonly resolveMs?: number;
  readonly callTimeoutMs?: number;
  /** Sees each wait before another attempt: its jitter is drawn from here. */
  readonly random?: Random;
  readonly log?: Log;
  readonly onUnusable?: (fault: Fault) => void;
}

function open(options: OpenOptions = {}): Promise<Store> {
  const {
    hosts = [etcd.url],
    sealer = noSealer,
    resolveMs = 6_000,
    callTimeoutMs = 3_000,
    random = systemRandom,
    log = silentLog,
    onUnusable = () => {},
  } = options;
  return openEtcdStore({
    address: { hosts, callTimeoutMs, ...(options.tls && { tls: options.tls }) },
    clock: systemClock,
    random,
    log,
    sealer,
    resolveMs,
    onUnusable,
  });
}

/** Asks etcd without the store. */
async function withClient<T>(action: (client: Etcd3) => PromiseLike<T>): Promise<T> {
  const client = new Etcd3({ hosts: etcd.url });
  try {
    return await action(client);
  } finally {
    client.close();
  }
}

async function wipe(): Promise<void> {
  await withClient((client) => client.delete().prefix('/gantry/').exec());
}

beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd.close());

storeContract('etcd', async () => {
  await wipe();
  return {
    open: () => open(),
    async compactWhileAway(_store, meanwhile) {
      // Frozen for the watching store alone is not possible: so everything happens while its stream is down.
      await meanwhile();
      await etcd.compact();
      await etcd.kill('SIGKILL');
      await etcd.start();
    },
    close: async () => {},
  };
});

describe('the store on etcd', () => {
  let store: Store;
  beforeEach(async () => {
    await wipe();
    store = await open();
  });
  afterEach(() => store.close());

  test('goes on by itself after etcd was killed and started again', async () => {
    const before = aTask();
    await store.commit([put(before, 0)]);
    await etcd.kill('SIGKILL');
    await etcd.start();
    const after = aTask();
    await store.seen(await store.commit([put(after, 0)]));
    expect(store.snapshot.task(before.id)).toEqual(before);
    expect(store.snapshot.task(after.id)).toEqual(after);
  });

  test('F6: a commit made while etcd is down goes through once it is back, exactly once', async () => {
    await etcd.kill('SIGKILL');
    const task = aTask();
    const committing = store.commit([put(task, 0)]);
    await etcd.start();
    const revision = await committing;
    await store.seen(revision);
    expect(store.snapshot.get('task', task.id)).toEqual({ value: task, modRevision: revision });
  });

  test('while etcd is frozen a commit ends as unknown, and is found or not found afterwards', async () => {
    const impatient = await open({ resolveMs: 300, callTimeoutMs: 200 });
    etcd.signal('SIGSTOP');
    const task = aTask();
    try {
      await expect(impatient.commit([put(task, 0)])).rejects.toEqual(faultOf('timeout'));
    } finally {
      etcd.signal('SIGCONT');
    }
    const marker = aTask();
    await impatient.seen(await impatient.commit([put(marker, 0)]));
    const found = impatient.snapshot.get('task', task.id);
    await expect(impatient.commit([put(task, found ? 0 : 1)])).rejects.toEqual(faultOf('conflict'));
    await impatient.close();
  });

  test('a commit whose answer was lost in a freeze is told as committed, once', async () => {
    const random = countedWaits();
    const impatient = await open({ callTimeoutMs: 200, random });
    etcd.signal('SIGSTOP');
    const tasks = Array.from({ length: 5 }, () => aTask());
    const committing = impatient.commit(tasks.map((task) => put(task, 0)));
    await eventually(() => random.waits >= 3);
    etcd.signal('SIGCONT');
    const revision = await committing;
    await impatient.seen(revision);
    for (const task of tasks) expect(impatient.snapshot.get('task', task.id)?.modRevision).toBe(revision);
    await impatient.close();
  });

  test('a commit whose answer was lost, and which etcd has no room for when it is sent again, is told as committed', async () => {
    const random = countedWaits();
    const line = await holdableLine(new URL(etcd.url).port);
    const impatient = await open({ hosts: [line.url.replace('https', 'http')], random });
    for (const connection of line.connections) connection.pause();
    const task = aTask();
    const committing = impatient.commit([put(task, 0)]);
    await eventually(() => store.snapshot.task(task.id));
    const alarm = (action: 'Activate' | 'Deactivate') =>
      withClient((client) => client.maintenance.alarm({ action, alarm: 'Nospace' }));
    await alarm('Activate');
    try {
      await eventually(() => random.waits > 0);
      for (const connection of line.connections) connection.resume();
      expect(await committing).toBe(store.snapshot.get('task', task.id)?.modRevision);
      await expect(impatient.commit([put(aTask(), 0)])).rejects.toEqual(faultOf('exhausted'));
    } finally {
      await alarm('Deactivate');
      await impatient.close();
      await line.close();
    }
  });

  test('F5: the watch notices a frozen etcd and catches up after it thaws', async () => {
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (message) => warnings.push(message), with: () => log };
    const watcher = await open({ log });
    etcd.signal('SIGSTOP');
    await eventually(() => warnings.length > 0);
    etcd.signal('SIGCONT');
    const task = aTask();
    await watcher.seen(await store.commit([put(task, 0)]));
    expect(watcher.snapshot.task(task.id)).toEqual(task);
    await watcher.close();
  });

  test('F1: who takes the lead while its watch hangs does not lead before it has caught up', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'gantry-pki-'));
    const pki = await initPki({ dataDir, name: 'm1', advertise: '127.0.0.1' });
    const [server, client] = [pkiPaths(dataDir, 'etcd'), pkiPaths(dataDir, 'client')];
    const secure = await startEtcd({ tls: { ...server, clientCert: client.cert, clientKey: client.key } });
    const pair = pki.pair('client');
    const files = {
      ca: Buffer.from(pki.authority.certificate),
      cert: Buffer.from(pair.certificate),
      key: Buffer.from(pair.key),
    };
    const tls = () => files;
    const line = await holdableLine(new URL(secure.url).port);
    const [ahead, behind] = [await open({ hosts: [secure.url], tls }), await open({ hosts: [line.url], tls })];
    // The first connection is for calls, the second for the watch.
    await eventually(() => line.connections.length === 2);
    line.connections[1]!.pause();
    const task = aTask();
    await ahead.commit([put(task, 0)]);
    const taking = behind.takeLeadership(undefined, { epoch: 1, replica: 'm2', address: '' });
    await eventually(() => ahead.leadership);
    // The call has been answered by now or is about to be: one more round on the same connection says so.
    const written = await behind.commit([put(aTask(), 0)]);
    expect(behind.leadership).toBeUndefined();
    line.connections[1]!.resume();
    expect(await taking).toBe(true);
    expect(behind.snapshot.task(task.id)).toEqual(task);
    expect(behind.leadership?.epoch).toBe(1);
    await behind.seen(written);
    // Reading history is a watch on the same connection, which outlives it.
    for (let read = 0; read < 3; read++) {
      let steps = 0;
      for await (const _ of behind.past(0, behind.snapshot.revision)) steps++;
      expect(steps).toBeGreaterThan(1);
      await behind.commit([put(aTask(), 0)]);
    }
    expect(line.connections.length).toBe(2);
    await Promise.all([ahead.close(), behind.close()]);
    await Promise.all([line.close(), secure.close()]);
    await rm(dataDir, { recursive: true });
  });

  test('F3: a watch from a revision that was compacted away begins anew with a list', async () => {
    await store.close();
    const record = (message: string) => JSON.stringify({ ...aTask({ message }), id: 'x' });
    const first = await withClient((client) => client.put('/gantry/task/x').value(record('first')));
    await withClient((client) => client.put('/gantry/task/x').value(record('later')));
    await etcd.compact();
    store = await open();
    expect(store.snapshot.get('task', 'x')?.modRevision).toBeGreaterThan(Number(first.header.revision));
  });

  test('keys of tables it does not know are left alone', async () => {
    await withClient((client) => client.put('/gantry/dream/1').value('not even JSON'));
    const task = aTask();
    await store.seen(await store.commit([put(task, 0)]));
    expect(store.snapshot.task(task.id)).toEqual(task);
  });

  test('F36: records of a form that only a newer version reads are refused in words, at the start and when they come', async () => {
    const { promise, resolve } = Promise.withResolvers<Fault>();
    const running = await open({ onUnusable: resolve });
    const raise = (form: number) =>
      withClient((client) => client.put(formKey).value(JSON.stringify({ form, by: '9.0.0' })));
    await raise(storeForm);
    await running.seen(await running.commit([put(aTask(), 0)]));
    await raise(storeForm + 1);
    const said = {
      code: 'unsupported',
      message: `control plane 9.0.0 has written records of form ${storeForm + 1}; this version reads forms up to ${storeForm}`,
      remedy: expect.stringMatching(/^start 9\.0\.0 or a newer one; .*gantry cluster restore/),
    };
    expect(await promise).toMatchObject(said);
    await running.close();
    await expect(open()).rejects.toMatchObject(said);
  });

  test('a revision is never seen in parts, though its events fill many messages', async () => {
    const sizes: number[] = [];
    store.subscribe(({ changes }) => sizes.push(changes.length));
    const fat = 'x'.repeat(3_000);
    const revision = await store.commit(Array.from({ length: 1_500 }, () => put(aTask({ message: fat }), 0)));
    await store.seen(revision);
    expect(sizes).toEqual([1_500]);
  });

  test('a commit of more bytes than etcd takes is refused with what to do', async () => {
    const fat = 'x'.repeat(3 << 20);
    const changes = Array.from({ length: 3 }, () => put(aTask({ message: fat }), 0));
    await expect(store.commit(changes)).rejects.toEqual(faultOf('exhausted'));
  });

  test('all configs and secrets that one apply may bring are one commit', async () => {
    const changes = Array.from({ length: mostContentBytes / largestBytes.config }, (_, index): Change => {
      const ref = { type: 'config', name: `c${index}`, version: 'v' } as const;
      const value = testSeal.seal(ref, new Concealed(randomBytes(largestBytes.config)));
      return { table: 'content', key: contentKey(ref), value, expect: 0 };
    });
    await store.seen(await store.commit(changes));
    const [first] = store.snapshot.all('content');
    expect(testSeal.open(first!).length).toBe(largestBytes.config);
    const other = await open();
    expect(other.snapshot.count('content')).toBe(changes.length);
    await other.close();
  });

  test('the largest commit is one that etcd can be started again after', async () => {
    const fat = 'x'.repeat((2 << 20) - 4_096);
    const tasks = Array.from({ length: 4 }, () => aTask({ message: fat }));
    await store.seen(await store.commit(tasks.map((task) => put(task, 0))));
    await etcd.kill();
    await etcd.start();
    await eventually(async () => (await store.readLeadership().catch(() => 'no')) !== 'no');
    expect(store.snapshot.task(tasks[0]!.id)?.message).toBe(fat);
  });

  test('secrets lie sealed in etcd and come back open', async () => {
    const sealer: Sealer = { seal: (text) => `!${text}!`, open: (text) => text.slice(1, -1) };
    const sealing = await open({ sealer });
    const value = { registry: 'r:5000', username: 'u', password: 'hush' };
    await sealing.seen(await sealing.commit([{ table: 'credential', key: 'r:5000', value, expect: 0 }]));
    expect(sealing.snapshot.get('credential', 'r:5000')?.value).toEqual(value);
    const raw = await withClient((client) => client.get('/gantry/credential/r:5000').json());
    expect(raw).toEqual({ ...value, password: '!hush!' });
    await sealing.close();
  });

  test('no etcd at all is a fault that says so', async () => {
    await etcd.kill();
    try {
      await expect(open({ callTimeoutMs: 300 })).rejects.toEqual(expect.objectContaining({ name: 'Fault' }));
    } finally {
      await etcd.start();
    }
    await eventually(async () => (await store.readLeadership().catch(() => 'no')) !== 'no');
  });
});
