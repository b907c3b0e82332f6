/** Events are told by every replica at once, and kept in NATS once, whoever leads. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { EventLog } from '#control-plane/events/event-log.ts';
import { eventLog } from '#control-plane/events/nats-event-log.ts';
import type { Delta } from '#control-plane/store/records.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import type { Event } from '#proto/model/cluster.ts';
import { type Nats, openNats } from '#proto/nats.ts';
import { aService } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

let server: TestNats;
let nats: Nats;
const logs: EventLog[] = [];
beforeAll(async () => {
  server = await startNats();
  nats = openNats({ url: server.url, name: 'plane' });
  await nats.ready();
});
afterAll(async () => {
  for (const log of logs) await log.close();
  await nats?.close();
  await server?.stop();
});

function open(leads: boolean, over: Nats | undefined = nats): EventLog {
  const log = eventLog({ clock: systemClock, random: systemRandom, log: silentLog, nats: over, leads: () => leads });
  logs.push(log);
  return log;
}
let revision = 100;
function created(name: string): Delta {
  const service = aService(name);
  return { revision: ++revision, changes: [{ table: 'service', key: service.id, before: undefined, after: service }] };
}
async function names(events: AsyncIterable<Event>): Promise<string[]> {
  const found: string[] = [];
  for await (const event of events) found.push(event.name);
  return found;
}

it('a follower hears what happens from now on, on any replica', async () => {
  const follower = open(false, undefined);
  follower.record(created('before'));
  const stop = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of follower.read({ follow: true, signal: stop.signal })) heard.push(event.name);
  })();
  await eventually(() => {
    follower.record(created('after'));
    return heard.length > 0;
  });
  stop.abort();
  await listening;
  expect(new Set(heard)).toEqual(new Set(['demo/after']));
  expect(await names(follower.read({}))).toContain('demo/before');
});

it('a new replica tells what was kept before it began, each event once, and goes on', async () => {
  const leader = open(true);
  const standby = open(false);
  const sinceMs = systemClock.now();
  for (const name of ['a', 'b', 'c']) {
    const delta = created(name);
    leader.record(delta);
    standby.record(delta);
  }
  const fresh = open(false);
  await eventually(
    async () => expect(await names(fresh.read({ sinceMs }))).toEqual(['demo/a', 'demo/b', 'demo/c']) ?? true,
  );
  expect(await names(leader.read({ sinceMs }))).toEqual(['demo/a', 'demo/b', 'demo/c']);
  const stop = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of fresh.read({ follow: true, sinceMs, signal: stop.signal })) heard.push(event.name);
  })();
  await eventually(() => heard.length === 3);
  fresh.record(created('d'));
  await eventually(() => heard.length === 4);
  stop.abort();
  await listening;
  expect(heard).toEqual(['demo/a', 'demo/b', 'demo/c', 'demo/d']);
});

it('what is noted of a node is told at once, also twice at one revision, and kept', async () => {
  const leader = open(true);
  const sinceMs = systemClock.now();
  const noted = (message: string, atMs: number) =>
    leader.note({ kind: 'node', action: 'repaired', id: 'n1', name: 'h1', node: 'h1', message, atMs }, revision);
  noted('a route was missing', sinceMs + 1);
  noted('a route was missing', sinceMs + 2);
  expect(await names(leader.read({ sinceMs }))).toEqual(['h1', 'h1']);
  const fresh = open(false);
  await eventually(async () => expect(await names(fresh.read({ sinceMs }))).toEqual(['h1', 'h1']) ?? true);
  expect(await names(leader.read({ sinceMs }))).toEqual(['h1', 'h1']);
});

it('what happens while NATS is down is told at once, and kept when it is back', async () => {
  const leader = open(true);
  const sinceMs = systemClock.now();
  await server.kill();
  await eventually(() => !nats.connected);
  for (const name of ['x', 'y']) leader.record(created(name));
  expect(await names(leader.read({ sinceMs }))).toEqual(['demo/x', 'demo/y']);
  await server.start();
  const fresh = open(false);
  await eventually(async () => expect(await names(fresh.read({ sinceMs }))).toEqual(['demo/x', 'demo/y']) ?? true);
});
