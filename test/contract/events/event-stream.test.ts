/** What every stream of events promises: tried with NATS, and with the one in memory that the simulator has. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EventStream, KeptEvent } from '#control-plane/events/event-stream.ts';
import { natsEventStream } from '#control-plane/events/nats-event-stream.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { Event } from '#proto/model/cluster.ts';
import { type Nats, openNats } from '#proto/nats.ts';
import { eventually } from '#test/support/eventually.ts';
import { MemoryEventStream } from '#test/support/memory-event-stream.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

interface Harness {
  readonly stream: EventStream;
  /** Nothing of it is reached meanwhile. */
  away(meanwhile: () => Promise<void>): Promise<void>;
  loseAll(): Promise<void>;
  close(): Promise<void>;
}

async function onNats(): Promise<Harness> {
  const server: TestNats = await startNats();
  const nats: Nats = openNats({ url: server.url, name: 'plane' });
  await nats.ready();
  const back = async () => {
    await server.start();
    await eventually(() => nats.connected);
  };
  return {
    stream: natsEventStream({ nats, clock: systemClock }),
    async away(meanwhile) {
      await server.kill();
      await eventually(() => !nats.connected);
      await meanwhile();
      await back();
    },
    async loseAll() {
      await server.kill();
      await server.loseData();
      await eventually(() => !nats.connected);
      await back();
    },
    async close() {
      await nats.close();
      await server.stop();
    },
  };
}

async function inMemory(): Promise<Harness> {
  const stream = new MemoryEventStream(systemClock);
  return {
    stream,
    async away(meanwhile) {
      stream.away = true;
      await meanwhile();
      stream.away = false;
    },
    loseAll: async () => stream.lose(),
    close: async () => {},
  };
}

let number = 0;
const kept = (atMs = systemClock.now()): KeptEvent => {
  const revision = ++number;
  const event = {
    revision,
    atMs,
    kind: 'node',
    action: 'ready',
    id: `n${revision}`,
    name: 'h',
    node: 'h',
    message: 'm',
  } as const;
  return { id: `id-${revision}`, whole: revision - 1, event };
};
async function all(events: AsyncIterable<Event>): Promise<Event[]> {
  const found: Event[] = [];
  for await (const event of events) found.push(event);
  return found;
}
const unavailable = expect.objectContaining({ name: 'Fault', code: 'unavailable' });

for (const [name, setUp] of Object.entries({ nats: onNats, memory: inMemory }))
  describe(`a stream of events (${name})`, () => {
    let harness: Harness;
    let stream: EventStream;
    beforeAll(async () => {
      harness = await setUp();
      stream = harness.stream;
    });
    afterAll(() => harness?.close());

    it('has nothing at first', async () => {
      expect(await stream.last(10)).toEqual([]);
      expect(await all(stream.since(0))).toEqual([]);
    });

    it('keeps each once, and tells those of the end as they were given', async () => {
      const [a, b, c, d] = [kept(), kept(), kept(), kept()];
      await stream.keep([a, b]);
      await stream.keep([b, c]);
      await stream.keep([]);
      await stream.keep([d]);
      expect(await stream.last(100)).toEqual([a, b, c, d]);
      expect(await stream.last(2)).toEqual([c, d]);
      expect(await all(stream.since(0))).toEqual([a, b, c, d].map(({ event }) => event));
    });

    it('tells what happened since', async () => {
      const sinceMs = systemClock.now();
      const [before, after] = [kept(sinceMs - 1), kept(sinceMs)];
      await stream.keep([before, after]);
      expect(await all(stream.since(sinceMs))).toEqual([after.event]);
    });

    it('says so while it is not reached, and has all of before when it is back', async () => {
      const before = await stream.last(100);
      const late = kept();
      await harness.away(async () => {
        await expect(stream.keep([late])).rejects.toEqual(unavailable);
        await expect(stream.last(1)).rejects.toEqual(unavailable);
        await expect(all(stream.since(0))).rejects.toEqual(unavailable);
      });
      await stream.keep([late]);
      expect(await stream.last(100)).toEqual([...before, late]);
    });

    it('begins anew where all was lost', async () => {
      await harness.loseAll();
      const first = kept();
      await eventually(() => stream.keep([first]).then(() => true));
      expect(await stream.last(100)).toEqual([first]);
    });
  });
