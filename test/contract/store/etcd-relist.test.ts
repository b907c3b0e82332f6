/** F9: a replica that has to look at all of a large cluster, on a real etcd: when it starts, and when what it missed was compacted away. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { noSealer } from '#control-plane/store/codec.ts';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { eventually } from '#test/support/eventually.ts';
import { aTask } from './records.ts';

const count = 50_000;
const perCommit = 2_500;

/** A way to etcd that can be cut, and is mended by `mend`. */
class Line {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  constructor(port: number) {
    this.#server = createServer((client) => {
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const upstream = connect(port, '127.0.0.1');
      for (const socket of [client, upstream]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.#sockets.delete(socket);
          client.destroy();
          upstream.destroy();
        });
      }
      client.pipe(upstream).pipe(client);
    });
  }

  /** The URL to dial. */
  listen(): Promise<string> {
    return new Promise((resolve) =>
      this.#server.listen(0, '127.0.0.1', () =>
        resolve(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`),
      ),
    );
  }
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }
  mend(): void {
    this.#isCut = false;
  }
  close(): void {
    this.cut();
    this.#server.close();
  }
}

const open = (url: string) =>
  openEtcdStore({
    address: { hosts: [url], callTimeoutMs: 10_000 },
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    sealer: noSealer,
  });

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;
/** Buffers are freed beside the program after a collection, and are counted as held until the next one waits for that. */
const collectGarbage = () => {
  gc();
  gc();
};

/** Most bytes outside of the heap, where what comes from etcd lies until it is read, that were still held at any look meanwhile. */
async function mostHeldDuring(work: Promise<unknown>): Promise<number> {
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  let most = 0;
  let done = false;
  const ended = work.finally(() => {
    done = true;
  });
  const look = () => {
    collectGarbage();
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    return done;
  };
  await eventually(look, { timeoutMs: 60_000, everyMs: 300 });
  await ended;
  return most;
}

let etcd: TestEtcd;
let writer: Store;
beforeAll(async () => {
  etcd = await startEtcd();
  writer = await open(etcd.url);
  for (let at = 0; at < count; at += perCommit) {
    const changes = Array.from({ length: perCommit }, (): Change => {
      const value = aTask({ message: 'x'.repeat(500) });
      return { table: 'task', key: value.id, value, expect: 0 };
    });
    await writer.seen(await writer.commit(changes));
  }
});
afterAll(async () => {
  await writer.close();
  await etcd.close();
});

it('a replica that starts reads page by page: what etcd has never lies whole in its memory unread', async () => {
  const opening = open(etcd.url);
  const most = await mostHeldDuring(opening);
  const store = await opening;
  expect(store.snapshot.count('task')).toBe(count);
  const all = [...store.snapshot.all('task')].reduce((sum, task) => sum + JSON.stringify(task).length, 0);
  expect(most).toBeLessThan(all / 2);
  await store.close();
});

it('one that missed what was compacted away looks at the names of all, and reads what has changed', async () => {
  const line = new Line(Number(new URL(etcd.url).port));
  const store = await open(await line.listen());
  const [changed, removed] = [...writer.snapshot.all('task')];
  line.cut();
  const value = { ...changed!, message: 'changed meanwhile' };
  const expectOf = (id: string) => writer.snapshot.get('task', id)!.modRevision;
  await writer.commit([
    { table: 'task', key: value.id, value, expect: expectOf(value.id) },
    { table: 'task', key: removed!.id, value: undefined, expect: expectOf(removed!.id) },
  ]);
  const revision = await writer.commit([{ table: 'task', key: 'late', value: aTask(), expect: 0 }]);
  await etcd.compact();
  const read = vi.spyOn(JSON, 'parse');
  const deltas: Delta[] = [];
  store.subscribe((delta) => deltas.push(delta));
  line.mend();
  await eventually(() => store.snapshot.revision >= revision, { timeoutMs: 30_000 });
  const reads = read.mock.calls.length;
  read.mockRestore();
  expect(deltas.map(({ changes }) => changes.map(({ key }) => key).sort())).toEqual([
    [value.id, removed!.id, 'late'].sort(),
  ]);
  expect(store.snapshot.task(value.id)).toEqual(value);
  expect(store.snapshot.count('task')).toBe(count);
  expect(reads).toBeLessThan(100);
  await store.close();
  line.close();
});
