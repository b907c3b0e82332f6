/** How fast containers start through our runtime, beside bare `runc run` of the same bundle: `node test/bench/runtime.ts [count] [runc|crun]`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runTool } from '#node-agent/runtime/tool.ts';
import { containerLab, newTaskId, shellRequest } from '#test/support/container-lab.ts';

const count = Number(process.argv[2] ?? 40);
const engine = process.argv[3] ?? 'runc';
const enginePath = engine === 'crun' ? '/usr/bin/crun' : '/usr/sbin/runc';
const atOnce = 8;

async function inParallel(
  items: readonly number[],
  width: number,
  action: (item: number) => Promise<void>,
): Promise<number> {
  const began = performance.now();
  const left = [...items];
  const worker = async () => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await action(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return performance.now() - began;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

const lab = await containerLab();
try {
  const runtime = await lab.open();
  const numbers = Array.from({ length: count }, (_, index) => index);
  const request = () => shellRequest(lab, 'exec sleep 1000', {}, { runtime: engine });

  const durations: number[] = [];
  const startOne = async () => {
    const one = request();
    const began = performance.now();
    await runtime.create(one);
    await runtime.start(one.id);
    durations.push(performance.now() - began);
  };
  const clear = async () => {
    const began = performance.now();
    for (const { id } of await runtime.list()) await runtime.delete(id);
    return performance.now() - began;
  };

  await startOne();
  // The bundle as our runtime wrote it, with its own cgroup and root filesystem.
  const model = (await runtime.list())[0]!;
  const spec = readFileSync(join(lab.directory, 'agent/containers', model.id, 'config.json'), 'utf8');
  await clear();

  const rounds: { readonly own: number; readonly bare: number }[] = [];
  durations.length = 0;
  for (const _ of numbers.slice(0, 15)) await startOne();
  const sequential = median(durations);
  const removal = (await clear()) / 15;

  for (let round = 0; round < 3; round++) {
    const own = (count * 1000) / (await inParallel(numbers, atOnce, startOne));
    await clear();
    const names = numbers.map(() => newTaskId());
    for (const name of names) {
      const bundle = join(lab.directory, 'bare', name);
      mkdirSync(bundle, { recursive: true });
      const parsed = JSON.parse(spec.replaceAll(model.id, name));
      writeFileSync(
        join(bundle, 'config.json'),
        JSON.stringify({ ...parsed, root: { path: lab.rootfs, readonly: false } }),
      );
    }
    const root = join(lab.directory, 'bare-state');
    const elapsed = await inParallel(numbers, atOnce, async (index) => {
      const name = names[index]!;
      const { exitCode, output } = await runTool(enginePath, [
        '--root',
        root,
        'run',
        '--detach',
        '--bundle',
        join(lab.directory, 'bare', name),
        name,
      ]);
      if (exitCode !== 0) throw new Error(output);
    });
    const bare = (count * 1000) / elapsed;
    await inParallel(numbers, 4, async (index) => {
      await runTool(enginePath, ['--root', root, 'delete', '--force', names[index]!]);
    });
    rounds.push({ own, bare });
  }
  const own = median(rounds.map((round) => round.own));
  const bare = median(rounds.map((round) => round.bare));
  const line = {
    engine,
    sequentialStartMs: sequential.toFixed(1),
    deleteMs: removal.toFixed(1),
    startsPerSecond: own.toFixed(1),
    bareStartsPerSecond: bare.toFixed(1),
    ratio: median(rounds.map((round) => round.own / round.bare)).toFixed(2),
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
} finally {
  await lab.close();
}
