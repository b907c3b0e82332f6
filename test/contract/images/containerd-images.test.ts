/** What only the real store can show: forms of images, archives, collection, what survives containerd's death. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ContainerdImages, containerdImages } from '#node-agent/images/containerd-images.ts';
import { collectImages } from '#node-agent/images/gc.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { taskId } from '#proto/model/ids.ts';
import { startContainerd, type TestContainerd } from '#test/support/containerd.ts';
import { eventually } from '#test/support/eventually.ts';
import { startRegistry, type TestRegistry } from '#test/support/registry.ts';
import {
  hostPlatform,
  pushImage,
  type SampleOptions,
  sampleImage,
  writeDockerArchive,
  writeOciArchive,
} from '#test/support/sample-image.ts';

let containerd: TestContainerd;
let registry: TestRegistry;
let store: ContainerdImages;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gantry-archives-'));
  containerd = await startContainerd();
  registry = await startRegistry();
  store = await openStore();
});
afterAll(async () => {
  store?.close();
  await registry?.stop();
  await containerd?.stop();
  await rm(directory, { recursive: true, force: true });
});

function openStore(): Promise<ContainerdImages> {
  const { socket } = containerd;
  return containerdImages({
    socket,
    platform: hostPlatform,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    insecureRegistries: [registry.host],
  });
}
const ensure = (reference: string) => store.ensure({ reference, digest: '', pullPolicy: '' });
const newTask = () => taskId(newId(systemRandom));
const ctr = (...args: string[]) =>
  execFileSync('ctr', ['--address', containerd.socket, '--namespace', 'gantry', ...args], { encoding: 'utf8' });
/** The directories of an overlay mount, top first. */
const directoriesOf = (mount: { readonly source: string; readonly options: readonly string[] }) =>
  mount.options.flatMap((option) => (/^(?:lowerdir)=(.*)$/.exec(option)?.[1] ?? '').split(':').filter(Boolean));

const forms: [string, SampleOptions][] = [
  ['gzip', { compression: 'gzip', layers: 3 }],
  ['zstd', { compression: 'zstd', layers: 2 }],
  ['plain tar', { compression: 'none' }],
  ['an index of platforms', { index: true, layers: 2 }],
  ['Docker media types', { docker: true, layers: 2 }],
  ['a Docker manifest list', { docker: true, index: true }],
];
it.each(forms)('an image in the form of %s is unpacked with its files', async (name, options) => {
  const repository = name.toLowerCase().replaceAll(' ', '-');
  const image = await sampleImage({ ...options, files: { 'form.txt': name } });
  await pushImage(image, registry.host, repository, '1');
  const found = await ensure(`${registry.host}/${repository}:1`);
  expect(found.digest).toBe(image.root.digest);
  const [mount] = await store.prepareRootfs(newTask(), found);
  expect(mount!.type).toBe('overlay');
  const [top, ...rest] = directoriesOf(mount!);
  expect(readFileSync(join(top!, 'form.txt'), 'utf8')).toBe(name);
  const bottom = rest.at(-1) ?? top!;
  expect(await readdir(join(bottom, 'bin'))).toContain('busybox');
});

it('images that share layers, pulled at once, all arrive', async () => {
  const names = ['shared-1', 'shared-2', 'shared-3'];
  const pushed = await Promise.all(names.map((name) => sampleImage({ layers: 3, files: { name } })));
  for (const [index, name] of names.entries()) await pushImage(pushed[index]!, registry.host, name, '1');
  const found = await Promise.all(names.map((name) => ensure(`${registry.host}/${name}:1`)));
  expect(found.map(({ digest }) => digest)).toEqual(pushed.map(({ root }) => root.digest));
  for (const image of found) expect((await store.prepareRootfs(newTask(), image))[0]!.type).toBe('overlay');
});

it('a config keeps what running needs: entry point, user, volumes, health check', async () => {
  const image = await sampleImage({
    config: {
      Entrypoint: ['/bin/httpd'],
      Cmd: ['-f'],
      User: 'nobody',
      WorkingDir: '/www',
      StopSignal: 'SIGQUIT',
      Volumes: { '/data': {} },
      ExposedPorts: { '80/tcp': {} },
      Labels: { a: 'b' },
      Healthcheck: { Test: ['CMD', 'true'], Interval: 5e9, Retries: 2 },
    },
  });
  await pushImage(image, registry.host, 'config', '1');
  expect((await ensure(`${registry.host}/config:1`)).config).toEqual({
    entrypoint: ['/bin/httpd'],
    command: ['-f'],
    env: ['PATH=/bin:/usr/bin'],
    user: 'nobody',
    workingDir: '/www',
    volumes: ['/data'],
    stopSignal: 'SIGQUIT',
    labels: { a: 'b' },
    exposedPorts: ['80/tcp'],
    healthCheck: {
      test: ['CMD', 'true'],
      intervalMs: 5000,
      timeoutMs: 0,
      startPeriodMs: 0,
      startIntervalMs: 0,
      retries: 2,
    },
  });
});

it('an image of another platform is refused, naming both', async () => {
  await pushImage(await sampleImage({ architecture: 's390x', index: true }), registry.host, 'foreign', 'index');
  await pushImage(await sampleImage({ architecture: 's390x' }), registry.host, 'foreign', 'plain');
  for (const tag of ['index', 'plain'])
    await expect(ensure(`${registry.host}/foreign:${tag}`)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('s390x'),
    });
});

it('a layer that does not unpack to what the config says is corrupt', async () => {
  const good = await sampleImage({ files: { a: 'honest' } });
  const other = await sampleImage({ files: { a: 'other' } });
  const config = {
    ...good.config,
    bytes: Buffer.from(good.config.bytes.toString().replace(good.diffIds[0]!, other.diffIds[0]!)),
  };
  const { digestOf } = await import('#test/support/sample-image.ts');
  const newConfig = { ...config, digest: digestOf(config.bytes) };
  const bytes = Buffer.from(good.manifest.bytes.toString().replace(good.config.digest, newConfig.digest));
  const manifest = { ...good.manifest, bytes, digest: digestOf(bytes) };
  await pushImage({ ...good, config: newConfig, manifest, root: manifest }, registry.host, 'lying', '1');
  await expect(ensure(`${registry.host}/lying:1`)).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringContaining('unpacks to'),
  });
});

it('an OCI archive is imported under its name, without a registry', async () => {
  const image = await sampleImage({ layers: 3, index: true, files: { from: 'oci archive' } });
  const path = join(directory, 'oci.tar');
  await writeOciArchive(image, path, 'docker.io/library/archived:2');
  expect(await store.importArchive(path)).toEqual(['docker.io/library/archived:2']);
  const found = await store.ensure({ reference: 'archived:2', digest: '', pullPolicy: 'never' });
  expect(found.digest).toBe(image.root.digest);
  expect((await store.prepareRootfs(newTask(), found))[0]!.type).toBe('overlay');
});

it('a docker save archive is imported under its tags', async () => {
  const image = await sampleImage({ layers: 2, compression: 'none', files: { from: 'docker archive' } });
  const path = join(directory, 'docker.tar');
  await writeDockerArchive(image, path, ['saved:1', 'saved:latest']);
  expect(await store.importArchive(path)).toEqual(['docker.io/library/saved:1', 'docker.io/library/saved:latest']);
  const found = await store.ensure({ reference: 'saved', digest: '', pullPolicy: 'never' });
  expect(found.config.command).toEqual(['/bin/sh']);
});

it('archives that are cut short or are none are refused', async () => {
  const image = await sampleImage({ files: { from: 'a cut archive' } });
  const path = join(directory, 'cut.tar');
  await writeOciArchive(image, path, 'cut:1');
  const bytes = readFileSync(path);
  await writeFile(path, bytes.subarray(0, Math.floor(bytes.length / 2)));
  await expect(store.importArchive(path)).rejects.toMatchObject({
    code: expect.stringMatching(/invalid|not-found|corrupt/),
  });
  await writeFile(path, 'this is no archive at all'.repeat(100));
  await expect(store.importArchive(path)).rejects.toMatchObject({ code: 'invalid' });
});

it('F17: what was pulled and what tasks write survives the death of containerd', async () => {
  const image = await sampleImage({ files: { survives: 'yes' } });
  await pushImage(image, registry.host, 'survives', '1');
  const task = newTask();
  const found = await ensure(`${registry.host}/survives:1`);
  const mounts = await store.prepareRootfs(task, found);
  await containerd.restart();
  expect(await eventually(() => store.prepareRootfs(task, found))).toEqual(mounts);
  expect(await store.rootfs()).toContain(task);
  expect((await ensure(`${registry.host}/survives:1`)).digest).toBe(image.root.digest);
});

it("containerd's own collector leaves a named image and a task's layer, and takes what nothing names", async () => {
  const image = await sampleImage({ layers: 2, files: { collected: 'no' } });
  await pushImage(image, registry.host, 'kept', '1');
  const reference = `${registry.host}/kept:1`;
  const task = newTask();
  await store.prepareRootfs(task, await ensure(reference));
  // Deleting a name with `sync` runs the collector.
  await pushImage(await sampleImage({ files: { collected: 'yes' } }), registry.host, 'dropped', '1');
  const dropped = await ensure(`${registry.host}/dropped:1`);
  for (const { name, digest } of await store.records.list())
    if (digest === dropped.digest) await store.records.remove(name);
  expect(ctr('content', 'ls', '-q')).not.toContain(dropped.digest);
  for (const { digest } of [image.root, image.config, ...image.layers])
    expect(ctr('content', 'ls', '-q')).toContain(digest);
  const fresh = await openStore();
  expect((await fresh.ensure({ reference, digest: '', pullPolicy: 'never' })).digest).toBe(image.root.digest);
  expect(await fresh.rootfs()).toContain(task);
  fresh.close();
});

it('F21: above the high watermark, images that no task uses go, oldest first; those asked for just now and imported ones stay', async () => {
  for (const name of ['idle-1', 'idle-2']) {
    await pushImage(await sampleImage({ files: { name } }), registry.host, name, '1');
    await ensure(`${registry.host}/${name}:1`);
  }
  // Another agent: it has not asked for those.
  const fresh = await openStore();
  const used = await ensure(`${registry.host}/kept:1`);
  const asked = await fresh.ensure({ reference: `${registry.host}/config:1`, digest: '', pullPolicy: '' });
  const imported = await fresh.ensure({ reference: 'archived:2', digest: '', pullPolicy: 'never' });
  await fresh.prepareRootfs(newTask(), used);
  let usage = 0.5;
  const parts = {
    records: fresh.records,
    diskUsage: async () => usage,
    clock: systemClock,
    log: silentLog,
  };
  const marks = { high: 0.85, low: 0.8, minAgeMs: 0 };
  expect(await collectImages(parts, marks)).toEqual([]);
  usage = 0.95;
  const removed = await collectImages(parts, marks);
  for (const name of ['idle-1', 'idle-2']) expect(removed).toContain(`${registry.host}/${name}:1`);
  const left = new Set((await fresh.records.list()).map(({ digest }) => digest));
  expect(left).toContain(used.digest);
  expect(left).toContain(asked.digest);
  expect((await fresh.ensure({ reference: 'archived:2', digest: '', pullPolicy: 'never' })).digest).toBe(
    imported.digest,
  );
  fresh.close();
});
