/** (d) A host loses power: until all its replicas run elsewhere; and that no host is called dead that is not. */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
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

/** Minutes with nothing to do, then as many with every core busy: each `down` is a false alarm. */
export async function falseAlarms(bench: BenchCluster, minutes: number): Promise<Figure[]> {
  const name = 'calm';
  const started = bench.running(name, replicas);
  await bench.apply(serviceText(name, replicas));
  await started;
  const figures: Figure[] = [];
  for (const load of ['idle', 'every core busy']) {
    const busy = load === 'idle' ? [] : Array.from({ length: availableParallelism() }, burn);
    let alarms = 0;
    const leave = bench.listen((event) => {
      if (event.kind === 'node' && event.action === 'down') alarms++;
    });
    try {
      await new Promise((resolve) => setTimeout(resolve, minutes * 60_000));
    } finally {
      leave();
      for (const child of busy) child.kill('SIGKILL');
    }
    figures.push({
      section: 'd',
      name: `false alarms in ${minutes} minutes, ${load}`,
      value: alarms,
      unit: '',
      target: { bound: 'at most', value: 0 },
    });
  }
  await bench.remove([name]);
  return figures;
}

function burn() {
  return spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
}
