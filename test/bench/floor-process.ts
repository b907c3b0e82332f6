/** Inside a bare host: the steps of a container's start by hand, and its peers. `floor-process.ts MODE ENGINE COUNT` prints JSON. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostNetwork } from '#net/host-network.ts';
import { containerdImages } from '#node-agent/images/containerd-images.ts';
import { machinePlatform } from '#node-agent/machine.ts';
import { bundleRootfs, readSpec, specText } from '#node-agent/runtime/bundle.ts';
import { createByConmon } from '#node-agent/runtime/conmon.ts';
import { conmonRuntime } from '#node-agent/runtime/conmon-runtime.ts';
import { unmount } from '#node-agent/runtime/libc.ts';
import { mountRootfs } from '#node-agent/runtime/rootfs.ts';
import { runTool } from '#node-agent/runtime/tool.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { noControls } from '#proto/model/controls.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec } from '#proto/model/service.ts';
import { attachment, networkWanted } from '#test/support/endpoint.ts';
import { inParallel } from './measure.ts';

const [mode = '', engine = 'runc', countText = '20'] = process.argv.slice(2);
const count = Number(countText);
const atOnce = 8;
const reference = 'registry:5000/hello:1';
const directory = '/var/lib/gantry/floor';
const runDirectory = '/run/floor';
const enginePath = engine === 'crun' ? '/usr/bin/crun' : '/usr/sbin/runc';
const kernel = { clock: systemClock, random: systemRandom, log: silentLog };

const fresh = (): TaskId => taskId(newId(systemRandom));
const address = (index: number) => `10.192.1.${2 + (index % 250)}`;

async function tool(path: string, ...args: string[]): Promise<void> {
  const { exitCode, output } = await runTool(path, args);
  if (exitCode !== 0) throw new Error(`${path} ${args.join(' ')}: ${output}`);
}

/** `ctr run -d`: containerd's own way with its shim. */
async function ctr(): Promise<number> {
  await tool('/usr/bin/ctr', '-n', 'peer', 'images', 'pull', '--plain-http', reference);
  const names = Array.from({ length: count }, fresh);
  const elapsed = await inParallel(count, atOnce, (index) =>
    tool('/usr/bin/ctr', '-n', 'peer', 'run', '--detach', '--null-io', reference, names[index]!),
  );
  await inParallel(count, 4, async (index) => {
    await tool('/usr/bin/ctr', '-n', 'peer', 'tasks', 'delete', '--force', names[index]!);
    await tool('/usr/bin/ctr', '-n', 'peer', 'containers', 'delete', names[index]!);
  });
  return elapsed;
}

/** Everything that one container is made of, made once through our runtime, so that its bundle is the real one. */
async function openFloor() {
  for (const path of [directory, runDirectory]) mkdirSync(path, { recursive: true });
  const images = await containerdImages({
    ...kernel,
    socket: '/run/containerd/containerd.sock',
    platform: machinePlatform(),
    insecureRegistries: ['registry:5000'],
  });
  const image = await images.ensure({ reference, digest: '', pullPolicy: '' });
  const network = await hostNetwork({ ...kernel, runDir: runDirectory, dataDir: directory, endsSockets: true });
  await network.apply(networkWanted({ nodeId: newId(systemRandom), address: '10.90.0.1', subnet: '10.192.1.0/24' }));
  const runtime = await conmonRuntime({ ...kernel, root: directory, run: runDirectory });
  const model = fresh();
  const { netnsPath } = await network.attach(attachment(model, address(0)));
  await runtime.create({
    id: model,
    container: containerSpec(reference),
    image: image.config,
    rootfs: await images.prepareRootfs(model, image),
    mounts: [],
    hostname: 'floor',
    network: { path: netnsPath },
    limits: noResources,
    controls: noControls,
    runtime: engine,
    logPath: join(directory, 'model.log'),
    annotations: {},
  });
  const bundle = join(directory, 'containers', model);
  const text = specText(readSpec(bundle));
  return {
    images,
    image,
    network,
    /** The model's root filesystem, mounted. */
    rootfs: bundleRootfs(bundle),
    specOf: (id: string) => text.replaceAll(model, id),
    async close() {
      await runtime.delete(model);
      await network.detach(model);
      await images.release(model);
      await runtime.close();
      await network.close();
      images.close();
    },
  };
}

type Floor = Awaited<ReturnType<typeof openFloor>>;

/** All steps of one start by hand, each timed. */
async function startOne(floor: Floor, id: TaskId, index: number): Promise<Record<string, number>> {
  const times: Record<string, number> = {};
  let last = performance.now();
  const lap = (step: string) => {
    const now = performance.now();
    times[step] = now - last;
    last = now;
  };
  await floor.network.attach(attachment(id, address(index + 1)));
  lap('network');
  const mounts = await floor.images.prepareRootfs(id, floor.image);
  lap('snapshot');
  const bundle = join(directory, 'bundles', id);
  mkdirSync(bundleRootfs(bundle), { recursive: true });
  mountRootfs(mounts, bundleRootfs(bundle));
  writeFileSync(
    join(bundle, 'config.json'),
    floor.specOf(id).replaceAll(`${directory}/containers/`, `${directory}/bundles/`),
  );
  lap('mount');
  const exitsDirectory = join(directory, 'exits');
  const runtimeRoot = join(runDirectory, 'hand');
  const logPath = join(bundle, 'log');
  await createByConmon(
    {
      ...{ conmonPath: '/usr/bin/conmon', runtimePath: enginePath, runtimeRoot, id, bundle, exitsDirectory, logPath },
      ...{ terminal: false, stdinOpen: false },
    },
    systemClock,
  );
  lap('create');
  await tool(enginePath, '--root', runtimeRoot, 'start', id);
  lap('start');
  return times;
}

async function clearOne(floor: Floor, id: TaskId): Promise<void> {
  const bundle = join(directory, 'bundles', id);
  await tool(enginePath, '--root', join(runDirectory, 'hand'), 'delete', '--force', id);
  unmount(bundleRootfs(bundle));
  rmSync(bundle, { recursive: true, force: true });
  await floor.network.detach(id);
  await floor.images.release(id);
}

async function sequential(floor: Floor): Promise<Record<string, number>[]> {
  const samples: Record<string, number>[] = [];
  for (let index = -2; index < count; index++) {
    const id = fresh();
    const times = await startOne(floor, id, index + 2);
    if (index >= 0) samples.push(times);
    await clearOne(floor, id);
  }
  return samples;
}

async function conmons(floor: Floor): Promise<number> {
  const names = Array.from({ length: count }, fresh);
  const elapsed = await inParallel(count, atOnce, (index) => startOne(floor, names[index]!, index));
  await inParallel(count, 4, (index) => clearOne(floor, names[index]!));
  return elapsed;
}

/** The engine alone, on bundles that are there already. */
async function bare(floor: Floor): Promise<number> {
  const names = Array.from({ length: count }, fresh);
  for (const name of names) {
    const spec = JSON.parse(floor.specOf(name)) as {
      root: { path: string };
      linux: { namespaces: { type: string }[] };
    };
    spec.root.path = floor.rootfs;
    for (const one of spec.linux.namespaces) if (one.type === 'network') delete (one as { path?: string }).path;
    mkdirSync(join(directory, 'bare', name), { recursive: true });
    writeFileSync(join(directory, 'bare', name, 'config.json'), specText(spec));
  }
  const root = join(runDirectory, 'bare');
  const elapsed = await inParallel(count, atOnce, (index) =>
    tool(
      enginePath,
      '--root',
      root,
      'run',
      '--detach',
      '--bundle',
      join(directory, 'bare', names[index]!),
      names[index]!,
    ),
  );
  await inParallel(count, 4, async (index) => {
    await tool(enginePath, '--root', root, 'delete', '--force', names[index]!);
    rmSync(join(directory, 'bare', names[index]!), { recursive: true });
  });
  return elapsed;
}

async function measure(): Promise<unknown> {
  if (mode === 'ctr') return ctr();
  const floor = await openFloor();
  try {
    if (mode === 'steps') return await sequential(floor);
    return mode === 'conmon' ? await conmons(floor) : await bare(floor);
  } finally {
    await floor.close();
  }
}

process.stdout.write(`${JSON.stringify(await measure())}\n`);
