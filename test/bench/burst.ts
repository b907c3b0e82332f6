/** (b) A burst of 90 tasks on 3 hosts, beside the engine alone and containerd's own shim on the same machine. */
import { type BenchCluster, serviceText } from './bench-cluster.ts';
import type { Figure } from './figure.ts';
import type { Engine, Floor } from './floor.ts';
import { median } from './measure.ts';

const tasks = 90;

export async function burst(bench: BenchCluster, floor: Floor): Promise<Figure[]> {
  return [
    ...(await rounds(bench, floor, 'runc', 3, 20)),
    {
      section: 'b',
      name: 'ctr run -d of 90, 8 at a time',
      value: await floor.perSecond('ctr', 'runc', tasks),
      unit: 'tasks/s',
    },
    ...(await rounds(bench, floor, 'crun', 2, 30)),
  ];
}

async function rounds(
  bench: BenchCluster,
  floor: Floor,
  engine: Engine,
  count: number,
  target: number,
): Promise<Figure[]> {
  const ours: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < count; round++) {
    const name = `burst-${engine}-${round}`;
    const last = bench.running(name, tasks);
    const { sentAt } = await bench.apply(serviceText(name, tasks, engine));
    ours.push((tasks * 1_000) / ((await last).heardAt - sentAt));
    await bench.remove([name]);
    await bench.cleaned();
    bare.push(await floor.perSecond('bare', engine, tasks));
  }
  const ratios = ours.map((rate, round) => rate / bare[round]!);
  return [
    {
      section: 'b',
      name: `burst of 90 tasks, ${engine}`,
      value: median(ours),
      unit: 'tasks/s',
      beside: { what: `${engine} run, 8 at a time`, value: median(bare) },
      target: { bound: 'at least', value: target },
      samples: ours,
    },
    {
      section: 'b',
      name: `  share of ${engine} run`,
      value: median(ratios),
      unit: 'x',
      ...(engine === 'runc' ? { target: { bound: 'at least', value: 0.4 } as const } : {}),
      samples: ratios,
    },
    {
      section: 'b',
      name: `  all steps by hand with ${engine}, 8 at a time`,
      value: await floor.perSecond('conmon', engine, tasks),
      unit: 'tasks/s',
    },
  ];
}
