/** The shipper over what the real conmon writes: its format, its long lines, its reopening while the container prints on. */
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LineReader, type StoredBatch } from '#control-plane/logs/merge.ts';
import type { LogShipper } from '#node-agent/logs/log-shipper.ts';
import type { ShippedBatch } from '#node-agent/logs/log-sink.ts';
import { logShipper } from '#node-agent/logs/ship.ts';
import type { Runtime } from '#node-agent/runtime/runtime.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { nodeId } from '#proto/model/ids.ts';
import { type ContainerLab, containerLab, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: ContainerLab;
let runtime: Runtime;
let directory: string;
let shipper: LogShipper;
const batches: ShippedBatch[] = [];

beforeAll(async () => {
  lab = await containerLab();
  runtime = await lab.open();
  directory = await mkdtemp(join(tmpdir(), 'gantry-rotation-'));
  shipper = await logShipper({
    directory,
    sink: {
      async publish(batch) {
        batches.push(batch);
      },
    },
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    reopen: (task) => runtime.reopenLog(task),
    limits: { rotateBytes: 200_000, rotateEveryMs: 20 },
  });
});
afterAll(async () => {
  await shipper?.close();
  await lab?.close();
  await rm(directory, { recursive: true, force: true });
});

/** As it is decoded from NATS. */
function stored({ source, from, records }: ShippedBatch): StoredBatch {
  let lastUs = records[0]?.atUs ?? 0;
  const decoded = records.map(({ atUs, stream, partial, text, size }) => {
    const deltaUs = atUs - lastUs;
    lastUs = atUs;
    return { deltaUs, stream: ['stdout', 'stderr', 'gap'].indexOf(stream), partial, text, size };
  });
  return { ...source, from, atUs: records[0]?.atUs ?? 0, records: decoded };
}

it('a container that prints on and on loses no line while its log is rotated', async () => {
  const script =
    'i=0; while [ $i -lt 40000 ]; do echo "line $i"; i=$((i+1)); done; head -c 20000 /dev/zero | tr "\\0" x; echo; echo oops >&2';
  const request = shellRequest(lab, script);
  await runtime.create(request);
  const { id, logPath } = request;
  shipper.follow({
    taskId: id,
    project: 'demo',
    service: 'web',
    slot: 1,
    nodeId: nodeId('n'),
    node: 'h1',
    path: logPath,
  });
  const exited = new Promise<void>((resolve) => {
    runtime.onExit((task) => task === id && resolve());
  });
  await runtime.start(id);
  await eventually(() => existsSync(logPath) && shipper.counts.lines > 0);
  await exited;
  await shipper.ended(id);
  const records = batches.flatMap(({ records }) => records);
  // conmon cuts lines where its reads end, too: readers put them together.
  const reader = new LineReader();
  const entries = batches.flatMap((batch) => reader.read(stored(batch)).map(({ entry }) => entry));
  const texts = entries.map(({ text }) => text.toString());
  expect(texts.filter((text) => text.startsWith('line '))).toEqual(
    Array.from({ length: 40_000 }, (_, index) => `line ${index}`),
  );
  expect(texts.filter((text) => text.startsWith('x'))).toEqual(['x'.repeat(20_000)]);
  expect(entries.find(({ stream }) => stream === 'stderr')!.text.toString()).toBe('oops');
  expect(entries).toHaveLength(40_002);
  const written = records.reduce((sum, { size }) => sum + size, 0);
  // It was rotated, and each batch begins where the one before it ended. A container that ends while its log is
  // being rotated leaves it under the old name.
  const left = [logPath, `${logPath}.1`].filter((path) => existsSync(path)).map((path) => statSync(path).size);
  expect(left).toHaveLength(1);
  expect(left[0]).toBeLessThan(written);
  let position = 0;
  for (const { from, records } of batches) {
    expect(from).toBe(position);
    position += records.reduce((sum, { size }) => sum + size, 0);
  }
  expect(records.every(({ atUs }, index) => index === 0 || atUs >= records[index - 1]!.atUs)).toBe(true);
  await runtime.delete(id);
});
