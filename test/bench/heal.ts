/** A cut cable is plugged in again, while others keep connections to the copies that were begun meanwhile: until those have ended. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { Task } from '#proto/gen/gantry/v1/types.ts';
import { eventually } from '#test/support/eventually.ts';
import { type BenchCluster, workers } from './bench-cluster.ts';

const connectionsByHost = 60;

/** Plugs the cable of `victim` in; how long from then until the last process of `copies`, which run on other hosts, has ended, ms. */
export async function heal(
  bench: BenchCluster,
  victim: string,
  copies: readonly Task[],
  port: number,
): Promise<number> {
  const { sandbox } = bench.cluster;
  const others = workers.filter((host) => host !== victim).map((host) => `10.90.0.${host.slice(1)}`);
  const program = `let open = 0; for (const host of ${JSON.stringify(others)}) for (let i = 0; i < ${connectionsByHost}; i++)
    require('node:net').connect(${port}, host).on('error', () => {}).on('connect', () => {
      if (++open === ${others.length * connectionsByHost}) console.log('open'); });`;
  const [command, ...args] = sandbox.execLine('world', [process.execPath, '-e', program]);
  const client = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(client.stdout, 'data');
    const processes = copies.map((copy) => bench.firstProcess(copy));
    const healedAt = performance.now();
    await sandbox.act('join', victim);
    await eventually(() => processes.every((pid) => !existsSync(`/proc/${pid}`)), { timeoutMs: 60_000, everyMs: 5 });
    return performance.now() - healedAt;
  } finally {
    client.kill('SIGKILL');
  }
}
