/** Keeps the event log from being flooded by a node on which somebody breaks things over and over. */
import { beforeEach, expect, it } from 'vitest';
import { Notices } from '#node-agent/notices.ts';
import type { NodeNotice } from '#proto/gen/gantry/v1/agent.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

let clock: FakeClock;
let sent: NodeNotice[];
let connected: boolean;
let notices: Notices;
beforeEach(() => {
  clock = new FakeClock();
  sent = [];
  connected = true;
  notices = new Notices({
    clock,
    send(batch) {
      if (connected) sent.push(...batch);
      return connected;
    },
  });
});

const said = () => sent.map(({ message, count }) => `${count} ${message}`);

it('says what was repaired within a moment', async () => {
  notices.repaired('a route was missing');
  await clock.pass(100);
  expect(sent).toEqual([{ action: 'repaired', message: 'a route was missing', count: 1, atMs: expect.any(Number) }]);
});

it('says what is broken five times a second once at first, then once in ten seconds with how often', async () => {
  for (let time = 0; time < 150; time++) {
    notices.repaired('a route was missing');
    await clock.pass(200);
  }
  await clock.pass(20_000);
  expect(sent.map(({ count }) => count).reduce((a, b) => a + b)).toBe(150);
  expect(sent.length).toBeLessThanOrEqual(4);
  notices.repaired('a route was missing');
  await clock.pass(100);
  expect(said().at(-1)).toBe('1 a route was missing');
});

it('counts what is beyond twenty different things', async () => {
  for (let number = 0; number < 500; number++) notices.repaired(`route ${number} was missing`);
  await clock.pass(100);
  expect(sent).toHaveLength(20);
  await clock.pass(10_000);
  expect(said().at(-1)).toMatch(/^480 other things/);
  expect(sent).toHaveLength(21);
});

it('keeps what happens while nobody listens, the newest hundred, for the next session', async () => {
  connected = false;
  for (let minute = 0; minute < 10; minute++) {
    for (let number = 0; number < 15; number++) notices.repaired(`${minute} ${number}`);
    await clock.pass(60_000);
  }
  connected = true;
  notices.flush();
  expect(sent).toHaveLength(100);
  expect(said().at(-1)).toBe('1 9 14');
});
