/** (d) A host loses power: until all its replicas run elsewhere. */
import { type BenchCluster, serviceText, workers } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import { median } from './measure.ts';

const replicas = 30;

export async function powerOff(bench: BenchCluster): Promise<Figure[]> {
  const whole: number[] = [];
  const verdicts: number[] = [];
  for (const victim of workers) {
    const name = `power-${victim}`;
    const started = bench.running(name, replicas);
    await bench.apply(serviceText(name, replicas));
    await started;
    const lost = (await bench.tasks(name)).filter((task) => task.nodeName === victim).length;
    const verdict = bench.until((event) => event.kind === 'node' && event.name === victim && event.action === 'down');
    const replaced = bench.running(name, lost);
    const pulledAt = performance.now();
    await bench.cluster.sandbox.act('kill', victim);
    verdicts.push((await verdict).heardAt - pulledAt);
    whole.push((await replaced).heardAt - pulledAt);
    await bench.cluster.sandbox.act('start', victim);
    await bench.cluster.nodeIs(victim, 'ready');
    await bench.remove([name]);
  }
  return [
    {
      section: 'd',
      name: `power-off to its 10 of ${replicas} running elsewhere, worst of 3`,
      value: Math.max(...whole),
      unit: 'ms',
      target: { bound: 'at most', value: 3_000 },
      samples: whole,
    },
    { section: 'd', name: '  of it until the verdict, p50', value: median(verdicts), unit: 'ms', samples: verdicts },
  ];
}
