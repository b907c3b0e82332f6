/** That no host is called dead that is not: every core busy, the disk synced without end, agents stopped by turns. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';
import { hostParts } from '#test/support/host-parts.ts';
import { type BenchCluster, serviceText, workers } from './bench-cluster.ts';
import type { Figure } from './figure.ts';

const replicas = 30;
const stoppedMs = 5_000;
const everyMs = 20_000;

/** `minutes` of it. Each `down` is a false verdict, and each task that starts after the first thirty one that was moved for nothing. */
export async function calm(bench: BenchCluster, minutes: number, hogsPerCore: number): Promise<Figure[]> {
  const name = 'calm';
  const started = bench.running(name, replicas);
  await bench.apply(serviceText(name, replicas));
  await started;
  const told: string[] = [];
  let verdicts = 0;
  let moved = 0;
  let stops = 0;
  const leave = bench.listen((event) => {
    const isVerdict = event.kind === 'node' && event.action === 'down';
    const isMove = event.kind === 'task' && event.action === 'running';
    if (isVerdict) verdicts++;
    if (isMove) moved++;
    if (isVerdict || isMove) told.push(`${new Date().toISOString()} ${event.kind} ${event.name} ${event.action}`);
  });
  const directory = mkdtempSync(join(tmpdir(), 'gantry-calm-'));
  const busy = [...Array.from({ length: hogsPerCore * availableParallelism() }, hog), syncing(directory)];
  try {
    const endsAt = performance.now() + minutes * 60_000;
    for (; performance.now() < endsAt; stops++) {
      const victim = workers[stops % workers.length]!;
      await bench.cluster.sandbox.run(victim, ['sh', '-c', `pkill -STOP ${hostParts.agent}`]);
      await systemClock.sleep(stoppedMs);
      await bench.cluster.sandbox.run(victim, ['sh', '-c', `pkill -CONT ${hostParts.agent}`]);
      await systemClock.sleep(everyMs - stoppedMs);
      for (const line of told.splice(0)) process.stderr.write(`bench: after ${stops + 1} stops: ${line}\n`);
    }
  } finally {
    leave();
    for (const child of busy) child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
  const none = { bound: 'at most', value: 0 } as const;
  const what = `in ${minutes} min of ${hogsPerCore} hogs a core, fsync and ${stops} agents stopped for 5 s`;
  await bench.remove([name]);
  return [
    { section: 'calm', name: `false verdicts ${what}`, value: verdicts, unit: '', target: none },
    { section: 'calm', name: '  tasks moved', value: moved, unit: '', target: none },
  ];
}

function hog(): ChildProcess {
  return spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
}

/** Writes a megabyte and waits for the disk, again and again. */
function syncing(directory: string): ChildProcess {
  const script = `const fs = require('fs'); const fd = fs.openSync(process.argv[1], 'w'); const page = Buffer.alloc(1 << 20);
    for (;;) { fs.writeSync(fd, page, 0, page.length, 0); fs.fsyncSync(fd); }`;
  return spawn(process.execPath, ['-e', script, join(directory, 'synced')], { stdio: 'ignore' });
}
