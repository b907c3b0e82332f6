/** (c) A container's first process is killed: until its replacement runs. */
import { type BenchCluster, serviceText } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import type { Floor } from './floor.ts';
import { median, percentile } from './measure.ts';

const kills = 20;
const restMs = 1_000;

export async function replacement(bench: BenchCluster, floor: Floor): Promise<Figure[]> {
  const byHand = await floor.steps('runc', 10);
  const started = bench.running('kill', kills);
  await bench.apply(serviceText('kill', kills));
  await started;
  const times: number[] = [];
  for (const task of await bench.tasks('kill')) {
    const name = `kill.${task.slot}`;
    const pid = bench.firstProcess(task);
    const again = bench.until((event) => event.name === name && event.action === 'running' && event.id !== task.id);
    const killedAt = performance.now();
    process.kill(pid, 'SIGKILL');
    times.push((await again).heardAt - killedAt);
    // The remains of the dead are removed 250 ms later, and the kernel takes as long again over their links.
    await new Promise((resolve) => setTimeout(resolve, restMs));
  }
  await bench.remove(['kill']);
  return [
    {
      section: 'c',
      name: 'kill of PID 1 to replacement running, p50 of 20',
      value: median(times),
      unit: 'ms',
      beside: { what: 'a start by hand', value: byHand.whole },
      target: { bound: 'at most', value: 120 },
      samples: times,
    },
    { section: 'c', name: '  worst of 20', value: percentile(times, 1), unit: 'ms' },
  ];
}
