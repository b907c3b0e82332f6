/** Events are told by every replica at once, and kept in NATS once, whoever led when they happened, and where nobody did. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { EventLog } from '#control-plane/events/event-log.ts';
import { natsEventStream } from '#control-plane/events/nats-event-stream.ts';
import { eventLog } from '#control-plane/events/ring-event-log.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { Event } from '#proto/model/cluster.ts';
import { type Nats, openNats } from '#proto/nats.ts';
import { aCluster, aService } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

let server: TestNats;
let nats: Nats;
let etcd: MemoryEtcd;
let clusters = 0;
const logs: EventLog[] = [];
const terms: Scope[] = [];
beforeAll(async () => {
  server = await startNats();
  nats = openNats({ url: server.url, name: 'plane' });
  await nats.ready();
});
/** Each its own cluster: what NATS keeps of others is in the way of none. */
beforeEach(() => {
  etcd = new MemoryEtcd({ clock: systemClock });
  etcd.commit([{ table: 'cluster', key: 'config', value: aCluster({ id: `c${++clusters}` }), expect: 0 }], undefined);
});
afterAll(async () => {
  for (const term of terms) await term.close();
  for (const log of logs) await log.close();
  await nats?.close();
  await server?.stop();
});

interface Replica {
  readonly log: EventLog;
  readonly store: MemoryStore;
  /** The result ends it. */
  lead(): Promise<void>;
  resign(): Promise<void>;
}

function open(over: Nats | undefined = nats): Replica {
  const store = etcd.open();
  const stream = over && natsEventStream({ nats: over, clock: systemClock });
  const log = eventLog({ clock: systemClock, random: systemRandom, log: silentLog, store, stream });
  logs.push(log);
  let term = new Scope();
  return {
    log,
    store,
    async lead() {
      term = new Scope();
      terms.push(term);
      log.lead(term);
    },
    resign: () => term.close(),
  };
}
/** Writes a service of that name down, and waits until these replicas know. */
async function create(name: string, ...replicas: Replica[]): Promise<void> {
  const service = aService(name);
  const revision = etcd.commit([{ table: 'service', key: service.id, value: service, expect: 0 }], undefined);
  for (const { store } of replicas) await store.seen(revision);
}
async function names(events: AsyncIterable<Event>): Promise<string[]> {
  const found: string[] = [];
  for await (const event of events) found.push(event.name);
  return found;
}
/** Read by somebody who has seen nothing of it himself. */
async function keeps(sinceMs: number, expected: readonly string[]): Promise<void> {
  const fresh = open();
  await eventually(async () => expect(await names(fresh.log.read({ sinceMs }))).toEqual(expected) ?? true);
}

/** NATS is down, and has lost its disk with what it had kept of this leader's time. */
async function keptAndLost(): Promise<{ readonly leader: Replica; readonly sinceMs: number }> {
  const leader = open();
  const sinceMs = systemClock.now();
  await leader.lead();
  await create('lost', leader);
  await keeps(sinceMs, ['demo/lost']);
  await server.kill();
  await server.loseData();
  await eventually(() => !nats.connected);
  return { leader, sinceMs };
}

it('a follower hears what happens from now on, on any replica', async () => {
  const follower = open(undefined);
  await create('before', follower);
  const stop = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of follower.log.read({ follow: true, signal: stop.signal })) heard.push(event.name);
  })();
  await create('after', follower);
  await eventually(() => heard.length > 0);
  stop.abort();
  await listening;
  expect(heard).toEqual(['demo/after']);
  expect(await names(follower.log.read({}))).toContain('demo/before');
});

it('a new replica tells what was kept before it began, each event once, and goes on', async () => {
  const [leader, standby] = [open(), open()];
  await leader.lead();
  const sinceMs = systemClock.now();
  for (const name of ['a', 'b', 'c']) await create(name, leader, standby);
  const fresh = open();
  const abc = ['demo/a', 'demo/b', 'demo/c'];
  await eventually(async () => expect(await names(fresh.log.read({ sinceMs }))).toEqual(abc) ?? true);
  expect(await names(leader.log.read({ sinceMs }))).toEqual(abc);
  const stop = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of fresh.log.read({ follow: true, sinceMs, signal: stop.signal })) heard.push(event.name);
  })();
  await eventually(() => heard.length === 3);
  await create('d', fresh);
  await eventually(() => heard.length === 4);
  stop.abort();
  await listening;
  expect(heard).toEqual([...abc, 'demo/d']);
});

it('what is noted of a node is told at once, also twice at one revision, and kept', async () => {
  const leader = open();
  await leader.lead();
  const sinceMs = systemClock.now();
  const noted = (message: string, atMs: number) =>
    leader.log.note({ kind: 'node', action: 'repaired', id: 'n1', name: 'h1', node: 'h1', message, atMs });
  noted('a route was missing', sinceMs + 1);
  noted('a route was missing', sinceMs + 2);
  expect(await names(leader.log.read({ sinceMs }))).toEqual(['h1', 'h1']);
  await keeps(sinceMs, ['h1', 'h1']);
  expect(await names(leader.log.read({ sinceMs }))).toEqual(['h1', 'h1']);
});

it('what happens while NATS is down is told at once, and kept when it is back', async () => {
  const leader = open();
  await leader.lead();
  const sinceMs = systemClock.now();
  await server.kill();
  await eventually(() => !nats.connected);
  for (const name of ['x', 'y']) await create(name, leader);
  expect(await names(leader.log.read({ sinceMs }))).toEqual(['demo/x', 'demo/y']);
  await server.start();
  await keeps(sinceMs, ['demo/x', 'demo/y']);
});

it('what happens while leadership passes over is kept by who leads next, and nothing twice', async () => {
  const [first, second] = [open(), open()];
  const sinceMs = systemClock.now();
  await first.lead();
  await create('led', first, second);
  await keeps(sinceMs, ['demo/led']);
  await first.resign();
  for (const name of ['between', 'too']) await create(name, first, second);
  await second.lead();
  await create('after', first, second);
  await keeps(sinceMs, ['demo/led', 'demo/between', 'demo/too', 'demo/after']);
  // Two that both believe to lead for a moment.
  await first.lead();
  await create('both', first, second);
  await keeps(sinceMs, ['demo/led', 'demo/between', 'demo/too', 'demo/after', 'demo/both']);
});

it('what only a dead leader knew while NATS was down is read from the store by the next, also by one that began later', async () => {
  const first = open();
  const sinceMs = systemClock.now();
  await first.lead();
  await create('kept', first);
  await keeps(sinceMs, ['demo/kept']);
  await server.kill();
  await eventually(() => !nats.connected);
  await create('unkept', first);
  await first.resign();
  await create('unled');
  const next = open();
  await server.start();
  // As whoever leads has written that down.
  etcd.takeLeadership(0, { epoch: 1, replica: 'm2', address: '' });
  await next.lead();
  await create('led', next);
  await keeps(sinceMs, ['demo/kept', 'demo/unkept', 'demo/unled', 'demo/led']);
});

it('what a leader still has is kept again where NATS has lost its disk', async () => {
  const { leader, sinceMs } = await keptAndLost();
  await server.start();
  await create('new', leader);
  await keeps(sinceMs, ['demo/lost', 'demo/new']);
});

it('what the store still has is kept again where NATS has lost its disk and its leader too', async () => {
  const { leader, sinceMs } = await keptAndLost();
  await leader.resign();
  const next = open();
  await server.start();
  await next.lead();
  await create('new', next);
  await keeps(sinceMs, ['demo/lost', 'demo/new']);
});
