/** From a container's log file through NATS to whoever reads: every line once and in order, whatever dies on the way. */
import { existsSync, statSync, symlinkSync, unlinkSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { LogEntry, LogQuery, LogStore } from '#control-plane/logs/log-store.ts';
import { logStore } from '#control-plane/logs/nats-log-store.ts';
import type { LogShipper } from '#node-agent/logs/log-shipper.ts';
import { natsLogSink } from '#node-agent/logs/nats-log-sink.ts';
import { logShipper, type ShipperLimits } from '#node-agent/logs/ship.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { nodeId, type TaskId, taskId } from '#proto/model/ids.ts';
import { type Nats, openNats } from '#proto/nats.ts';
import { eventually } from '#test/support/eventually.ts';
import { LogWriter } from '#test/support/log-writer.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

let server: TestNats;
let agentNats: Nats;
let planeNats: Nats;
let store: LogStore;
let directory: string;
let service: string;
let counter = 0;
const writers = new Map<string, LogWriter>();
const shippers: LogShipper[] = [];
const startUs = Date.UTC(2026, 10, 22, 7) * 1000;

beforeAll(async () => {
  server = await startNats();
  agentNats = openNats({ url: server.url, name: 'agent' });
  planeNats = openNats({ url: server.url, name: 'plane' });
  await Promise.all([agentNats.ready(), planeNats.ready()]);
  store = logStore({ nats: planeNats, clock: systemClock });
});
afterAll(async () => {
  await agentNats?.close();
  await planeNats?.close();
  await server?.stop();
});
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gantry-logs-'));
  service = `web${counter++}`;
});
afterEach(async () => {
  for (const shipper of shippers.splice(0)) await shipper.close();
  for (const writer of writers.values()) writer.close();
  writers.clear();
  await rm(directory, { recursive: true, force: true });
});

async function ship(limits: Partial<ShipperLimits> = {}, sinkNats = agentNats): Promise<LogShipper> {
  const shipper = await logShipper({
    directory: join(directory, 'positions'),
    sink: natsLogSink({ nats: sinkNats, timeoutMs: 500 }),
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    reopen: async (task) => writers.get(task)?.reopen(),
    limits,
  });
  shippers.push(shipper);
  return shipper;
}

function source(slot = 1, id: TaskId = taskId(newId(systemRandom))) {
  return {
    taskId: id,
    project: 'demo',
    service,
    slot,
    nodeId: nodeId('n'),
    node: `h${slot}`,
    path: join(directory, `${id}.log`),
  };
}
function write(of: { taskId: TaskId; path: string }, atUs = startUs): LogWriter {
  const writer = new LogWriter(of.path, atUs);
  writers.set(of.taskId, writer);
  return writer;
}
async function read(query: Partial<LogQuery> = {}): Promise<LogEntry[]> {
  const lines: LogEntry[] = [];
  for await (const line of store.read({ project: 'demo', service, ...query })) lines.push(line);
  return lines;
}
const texts = (lines: readonly LogEntry[]) => lines.map(({ text }) => text.toString());
const numbered = (count: number) => Array.from({ length: count }, (_, index) => `line ${index}`);

it('lines arrive whole, stamped, and are still there when their task is gone', async () => {
  const of = source(2);
  const writer = write(of);
  const shipper = await ship();
  shipper.follow(of);
  writer.line('hello');
  writer.line('oops', 'stderr');
  writer.line('a long ', 'stdout', 'P');
  writer.line('meanwhile', 'stderr');
  writer.line('line', 'stdout', 'F');
  await shipper.ended(of.taskId);
  await rm(of.path);
  const lines = await read();
  expect(lines.map(({ stream, text }) => `${stream} ${text}`)).toEqual([
    'stdout hello',
    'stderr oops',
    'stderr meanwhile',
    'stdout a long line',
  ]);
  expect(lines[0]).toMatchObject({
    project: 'demo',
    service,
    slot: 2,
    taskId: of.taskId,
    node: 'h2',
    atUs: startUs + 1,
  });
  expect(await readdir(join(directory, 'positions'))).toEqual([]);
});

it('many lines go out in few messages, and a follower sees them soon', async () => {
  const of = source();
  const shipper = await ship();
  shipper.follow(of);
  const stop = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const line of store.read({ project: 'demo', service, follow: true, signal: stop.signal }))
      seen.push(line.text.toString());
  })();
  const writer = write(of);
  writer.lines(5_000);
  await eventually(() => seen.length >= 5_000);
  writer.lines(10);
  await eventually(() => seen.length >= 5_010);
  stop.abort();
  await following;
  expect(seen).toEqual(numbered(5_010));
  expect(shipper.counts.batches).toBeLessThan(5_010 / 64);
});

it('an agent that is killed at any moment leaves no line out and none twice', async () => {
  const of = source();
  const writer = write(of);
  const kept = join(directory, 'positions');
  for (let round = 0; round < 5; round++) {
    const shipper = await ship({ lingerMs: 1 });
    shipper.follow(of);
    writer.lines(300);
    await eventually(() => shipper.counts.lines >= 100);
    if (round % 2 === 0) {
      // Killed: its position is as old as the last one written down, or never was.
      const before = existsSync(join(kept, `${of.taskId}.json`));
      await shipper.close();
      if (!before || round === 2) await rm(join(kept, `${of.taskId}.json`), { force: true });
    } else await shipper.close();
  }
  const last = await ship();
  last.follow(of);
  await last.ended(of.taskId);
  expect(texts(await read())).toEqual(numbered(1_500));
});

it('rotation loses nothing, keeps the order, and leaves one file', async () => {
  const of = source();
  const writer = write(of);
  const shipper = await ship({ rotateBytes: 20_000, rotateEveryMs: 10, lingerMs: 1 });
  shipper.follow(of);
  for (let round = 1; round <= 10; round++) {
    writer.lines(1_000);
    await eventually(() => shipper.counts.lines === round * 1_000);
    await eventually(() => statSync(of.path).size < 20_000);
  }
  await shipper.ended(of.taskId);
  expect(texts(await read())).toEqual(numbered(10_000));
  expect(shipper.counts.droppedBytes).toBe(0);
  expect(existsSync(`${of.path}.1`)).toBe(false);
});

it('an agent killed between renaming a log and its reopening goes on with both files', async () => {
  const of = source();
  const writer = write(of);
  const first = await ship();
  first.follow(of);
  writer.lines(100);
  await eventually(() => first.counts.lines === 100);
  await first.close();
  const { renameSync } = await import('node:fs');
  renameSync(of.path, `${of.path}.1`);
  writer.lines(100);
  const second = await ship({ rotateEveryMs: 10 });
  second.follow(of);
  await eventually(() => existsSync(of.path));
  writer.lines(100);
  await eventually(() => second.counts.lines === 200);
  await second.ended(of.taskId);
  expect(texts(await read())).toEqual(numbered(300));
});

it('F32: while NATS is down lines wait in their file, and go out when it is back', async () => {
  const of = source();
  const writer = write(of);
  const shipper = await ship();
  shipper.follow(of);
  writer.lines(200);
  await eventually(() => shipper.counts.lines === 200);
  await server.kill();
  writer.lines(200);
  await eventually(() => shipper.counts.retries > 0);
  const ended = shipper.ended(of.taskId);
  await expect(shipper.ended(of.taskId, { signal: AbortSignal.timeout(50) })).rejects.toThrow();
  await expect(read()).rejects.toMatchObject({ code: 'unavailable' });
  await server.start();
  await ended;
  expect(texts(await eventually(() => read()))).toEqual(numbered(400));
});

it('F33: when NATS has lost its disk, lines go into a stream made anew, from where they had been acknowledged', async () => {
  const of = source();
  const writer = write(of);
  const shipper = await ship();
  shipper.follow(of);
  writer.lines(100);
  await eventually(() => shipper.counts.lines === 100);
  await server.kill();
  await server.loseData();
  writer.lines(100);
  await eventually(() => shipper.counts.retries > 0);
  await server.start();
  await shipper.ended(of.taskId);
  expect(texts(await eventually(() => read()))).toEqual(numbered(200).slice(100));
});

it('a follower goes on when NATS comes back', async () => {
  const of = source();
  const writer = write(of);
  const shipper = await ship();
  shipper.follow(of);
  writer.lines(10);
  await eventually(() => shipper.counts.lines === 10);
  const stop = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    const query = { project: 'demo', service, follow: true, signal: stop.signal };
    for await (const line of store.read(query)) seen.push(line.text.toString());
  })();
  await eventually(() => seen.length === 10);
  await server.kill();
  writer.lines(10);
  await server.start();
  await eventually(() => seen.length === 20);
  stop.abort();
  await following;
  expect(seen).toEqual(numbered(20));
});

it('a log that could not be read for a while is followed on', async () => {
  const of = source();
  const shipper = await ship();
  // A link to itself: whoever opens it gets an error, root too.
  symlinkSync(of.path, of.path);
  shipper.follow(of);
  const waiting = shipper.ended(of.taskId, { signal: AbortSignal.timeout(100) });
  await expect(waiting).rejects.toMatchObject({ name: 'TimeoutError' });
  unlinkSync(of.path);
  write(of).lines(10);
  await shipper.ended(of.taskId);
  expect(texts(await read())).toEqual(numbered(10));
});

it('a spool that is full drops its oldest file and marks the gap', async () => {
  const of = source();
  const writer = write(of);
  let down = true;
  const sink = natsLogSink({ nats: agentNats });
  const shipper = await logShipper({
    directory: join(directory, 'positions'),
    sink: { publish: (batch) => (down ? Promise.reject(new Fault('unavailable', 'down')) : sink.publish(batch)) },
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    reopen: async (task) => writers.get(task)?.reopen(),
    limits: { rotateBytes: 10_000, spoolBytes: 20_000, rotateEveryMs: 10 },
  });
  shippers.push(shipper);
  shipper.follow(of);
  writer.lines(4_000);
  await eventually(() => existsSync(`${of.path}.1`));
  for (let round = 0; round < 5; round++) {
    writer.lines(4_000);
    await eventually(() => statSync(of.path).size < 10_000);
  }
  writer.line('the last one');
  down = false;
  await eventually(() => shipper.counts.droppedBytes > 0);
  await shipper.ended(of.taskId);
  const lines = await read();
  const gaps = lines.filter(({ stream }) => stream === 'gap');
  expect(gaps.length).toBeGreaterThan(0);
  expect(gaps[0]!.text.toString()).toMatch(/\d+ bytes of the log were dropped/);
  expect(lines.at(-1)!.text.toString()).toBe('the last one');
  const numbers = lines.flatMap(({ text }) => /^line (\d+)$/.exec(text.toString())?.[1] ?? []).map(Number);
  expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  expect(numbers.length).toBeLessThan(24_000);
});

it('of ended logs that cannot go out the oldest is dropped where they take too much, and the gap is marked', async () => {
  const [first, second] = [source(1), source(2)];
  for (const of of [first, second]) write(of).lines(6_000);
  let down = true;
  const sink = natsLogSink({ nats: agentNats });
  const shipper = await logShipper({
    directory: join(directory, 'positions'),
    sink: { publish: (batch) => (down ? Promise.reject(new Fault('unavailable', 'down')) : sink.publish(batch)) },
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    reopen: async (task) => writers.get(task)?.reopen(),
    limits: { endedBytes: 1.5 * statSync(first.path).size, rotateEveryMs: 10 },
  });
  shippers.push(shipper);
  // The younger is followed first: what counts is which ended first.
  for (const of of [second, first]) shipper.follow(of);
  const ended = [shipper.ended(first.taskId), shipper.ended(second.taskId)];
  await eventually(() => statSync(first.path).size === 0);
  down = false;
  await Promise.all(ended);
  const lines = await read({ slot: 1 });
  expect(lines.length).toBeLessThan(6_000);
  expect(lines.at(-1)).toMatchObject({ stream: 'gap' });
  expect(lines.at(-1)!.text.toString()).toMatch(/\d+ bytes of the log were dropped/);
  expect(texts(await read({ slot: 2 }))).toEqual(numbered(6_000));
});

it('replicas are merged by time, and can be asked for apart, from a time on, or from the end', async () => {
  const [one, two] = [source(1), source(2)];
  const shipper = await ship();
  const first = write(one, startUs);
  for (let index = 0; index < 5; index++) first.line(`one ${index}`);
  const second = write(two, startUs + 2);
  for (let index = 0; index < 5; index++) second.line(`two ${index}`);
  shipper.follow(two);
  await shipper.ended(two.taskId);
  shipper.follow(one);
  await shipper.ended(one.taskId);
  const lines = await read();
  expect(lines.map(({ atUs }) => atUs)).toEqual([...lines.map(({ atUs }) => atUs)].sort((a, b) => a - b));
  expect(texts(lines)).toHaveLength(10);
  expect(texts(lines).slice(0, 2)).toEqual(['one 0', 'one 1']);
  expect(texts(await read({ slot: 2 }))).toEqual(['two 0', 'two 1', 'two 2', 'two 3', 'two 4']);
  expect(texts(await read({ taskId: one.taskId, tail: 2 }))).toEqual(['one 3', 'one 4']);
  expect(texts(await read({ tail: 1 }))).toEqual(['two 4']);
  expect(await read({ sinceMs: startUs / 1000 + 1_000 })).toEqual([]);
  expect(await read({ slot: 3 })).toEqual([]);
});
