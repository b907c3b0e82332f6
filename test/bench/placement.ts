/** (e) Placements per second at 5,000 nodes and 50,000 tasks: the scheduler alone, and through the production loop into a real etcd. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Figure } from './figure.ts';

const timeoutMs = 90_000;

/** Processes of their own: their heaps are nobody's business. */
export async function placement(): Promise<Figure[]> {
  const memory = await run('scheduler.ts');
  const durable = await run('durable.ts');
  return [
    {
      section: 'e',
      name: 'placements in memory, 50,000 on 5,000 nodes',
      value: memory.placementsPerSecond!,
      unit: '/s',
      target: { bound: 'at least', value: 50_000 },
    },
    {
      section: 'e',
      name: 'placements committed to etcd',
      value: durable.placementsPerSecond!,
      unit: '/s',
      beside: { what: 'etcd takes such tasks', value: durable.putsPerSecond! },
      target: { bound: 'at least', value: 8_000 },
    },
  ];
}

async function run(script: string): Promise<Readonly<Record<string, number>>> {
  const line = ['--max-old-space-size=4096', join(import.meta.dirname, script)];
  const { stdout } = await promisify(execFile)(process.execPath, line, { maxBuffer: 1 << 24, timeout: timeoutMs });
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, number>;
}
