/** Volumes on a real filesystem: what is mounted, what is copied in, and what cannot be led astray. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { taskDocuments } from '#node-agent/volumes/task-documents.ts';
import { taskMounts } from '#node-agent/volumes/task-mounts.ts';
import { hostVolumes, type VolumeRequest, type Volumes } from '#node-agent/volumes/volumes.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { containerSpec, emptyMount, type Mount, taskTemplate } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { emptyImage, newTaskId } from '#test/support/container-lab.ts';

let directory: string;
let data: string;
let image: string;
let volumes: Volumes;
let used: TaskId[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'gantry-volumes-'));
  data = join(directory, 'agent');
  image = join(directory, 'image');
  mkdirSync(join(image, 'srv/data/deep'), { recursive: true });
  writeFileSync(join(image, 'srv/data/deep/file'), 'from the image');
  chownSync(join(image, 'srv/data/deep/file'), 1234, 99);
  chmodSync(join(image, 'srv/data'), 0o2770);
  chownSync(join(image, 'srv/data'), 1234, 1234);
  symlinkSync('/etc/passwd', join(image, 'srv/data/link'));
  volumes = hostVolumes({ data, forbidden: [data, '/run/gantry-test'] });
  used = [];
});
afterEach(async () => {
  for (const task of used) await volumes.release(task);
  expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
  rmSync(directory, { recursive: true, force: true });
});

const mountOf = (fields: Partial<Mount>): Mount => ({
  ...emptyMount('volume', 'shop_data', '/srv/data'),
  createHostPath: false,
  ...fields,
});
const request = (mounts: readonly Mount[], fields: Partial<VolumeRequest> = {}): VolumeRequest => {
  const task = fields.task ?? newTaskId();
  used.push(task);
  return {
    task,
    mounts,
    imageVolumes: [],
    rootfs: [{ type: 'bind', source: image, options: ['rbind', 'ro'] }],
    privileged: false,
    ...fields,
  };
};
const prepareOne = async (fields: Partial<Mount>, more: Partial<VolumeRequest> = {}) =>
  (await volumes.prepare(request([mountOf(fields)], more)))[0]!;

describe('a named volume', () => {
  it('begins with the image’s content, owners, modes and symlinks as they are', async () => {
    const made = await prepareOne({});
    expect(made).toMatchObject({
      source: join(data, 'volumes/shop_data/_data'),
      target: '/srv/data',
      type: 'bind',
      readOnly: false,
    });
    expect(made.options).toEqual(['nosuid', 'nodev']);
    expect(readFileSync(join(made.source, 'deep/file'), 'utf8')).toBe('from the image');
    expect(statSync(join(made.source, 'deep/file'))).toMatchObject({ uid: 1234, gid: 99 });
    expect(statSync(made.source)).toMatchObject({ uid: 1234, gid: 1234 });
    expect(statSync(made.source).mode & 0o7777).toBe(0o2770);
    expect(lstatSync(join(made.source, 'link')).isSymbolicLink()).toBe(true);
    expect(await volumes.list()).toEqual(['shop_data']);
  });

  it('keeps what is in it', async () => {
    const made = await prepareOne({});
    writeFileSync(join(made.source, 'deep/file'), 'changed');
    rmSync(join(made.source, 'link'));
    const again = await prepareOne({});
    expect(again.source).toBe(made.source);
    expect(readFileSync(join(made.source, 'deep/file'), 'utf8')).toBe('changed');
    expect(existsSync(join(made.source, 'link'))).toBe(false);
  });

  it('is empty where nothing is to be copied, or the image has nothing there', async () => {
    expect(readdirSync((await prepareOne({ source: 'one', noCopy: true })).source)).toEqual([]);
    expect(readdirSync((await prepareOne({ source: 'two', target: '/nowhere' })).source)).toEqual([]);
  });

  it('is filled in place while another container has it mounted', async () => {
    const first = await prepareOne({ noCopy: true });
    const { ino } = statSync(first.source);
    await prepareOne({});
    expect(statSync(first.source).ino).toBe(ino);
    expect(existsSync(join(first.source, 'deep/file'))).toBe(true);
  });

  it('is filled once by tasks that begin together', async () => {
    const all = await Promise.all(Array.from({ length: 5 }, () => prepareOne({})));
    expect(new Set(all.map(({ source }) => source)).size).toBe(1);
    expect(readdirSync(join(data, 'volumes/shop_data'))).toEqual(['_data']);
  });

  it('takes nothing from the host through a symlink in the image', async () => {
    const secret = join(directory, 'secret');
    mkdirSync(secret);
    writeFileSync(join(secret, 'key'), 'private');
    symlinkSync(secret, join(image, 'absolute'));
    symlinkSync(`../../../../../../../..${secret}`, join(image, 'relative'));
    for (const name of ['absolute', 'relative']) {
      expect(readdirSync((await prepareOne({ source: name, target: `/${name}` })).source)).toEqual([]);
    }
  });

  it.each(['../escape', 'a/b', '.hidden', '..', 'a\nb'])('cannot be called %j', async (source) => {
    await expect(prepareOne({ source })).rejects.toMatchObject({ code: 'invalid' });
  });

  it('is removed when asked, but not while a task uses it', async () => {
    const one = request([mountOf({})]);
    await volumes.prepare(one);
    await expect(volumes.remove('shop_data')).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining(one.task),
    });
    await volumes.release(one.task);
    expect(existsSync(join(data, 'volumes/shop_data/_data/deep'))).toBe(true);
    await volumes.remove('shop_data');
    await volumes.remove('shop_data');
    expect(readdirSync(join(data, 'volumes-going'))).toEqual([]);
    expect(await volumes.list()).toEqual([]);
  });

  it('can be mounted in part', async () => {
    const made = await prepareOne({ subpath: 'deep' });
    expect(readFileSync(join(made.source, 'file'), 'utf8')).toBe('from the image');
    await expect(prepareOne({ subpath: 'missing' })).rejects.toMatchObject({ code: 'precondition' });
  });

  it('cannot be left through a subpath, whatever a container puts there', async () => {
    const { source } = await prepareOne({});
    symlinkSync('/etc', join(source, 'out'));
    symlinkSync('../../../../../../../etc', join(source, 'up'));
    for (const subpath of ['out', 'up', '../../..', '/../../etc']) {
      const outcome = await prepareOne({ subpath }).then(
        (made) => existsSync(join(made.source, 'passwd')),
        (error: { code?: string }) => error.code,
      );
      expect(['precondition', false]).toContain(outcome);
    }
    const held = await prepareOne({ subpath: 'deep' });
    rmSync(join(source, 'deep'), { recursive: true });
    symlinkSync('/etc', join(source, 'deep'));
    expect(existsSync(join(held.source, 'passwd'))).toBe(false);
  });
});

describe('an anonymous volume', () => {
  it('is made for each VOLUME of the image where nothing else is mounted, and goes with its task', async () => {
    const one = request([mountOf({ target: '/other/' })], { imageVolumes: ['/srv/data', '/other', 'srv/data/'] });
    const made = await volumes.prepare(one);
    expect(made.map(({ target }) => target)).toEqual(['/other/', '/srv/data']);
    const { source } = made[1]!;
    expect(existsSync(join(source, 'deep/file'))).toBe(true);
    expect(await volumes.prepare(one)).toEqual(made);
    expect(await volumes.held()).toEqual([one.task]);
    await volumes.release(one.task);
    await volumes.release(one.task);
    expect(existsSync(source)).toBe(false);
    expect(existsSync(join(data, 'volumes/shop_data/_data'))).toBe(true);
  });

  it('is another one for another task', async () => {
    const first = await prepareOne({ source: '' });
    const second = await prepareOne({ source: '' });
    expect(first.source).not.toBe(second.source);
  });
});

describe('a bind', () => {
  const bind = (source: string, fields: Partial<Mount> = {}) => prepareOne({ type: 'bind', source, ...fields });

  it('is what its symlinks mean now', async () => {
    const real = join(directory, 'real');
    mkdirSync(real);
    symlinkSync(real, join(directory, 'link'));
    const made = await bind(join(directory, 'link'), { readOnly: true, propagation: 'rslave' });
    expect(made).toMatchObject({ source: realpathSync(real), readOnly: true, propagation: 'rslave' });
  });

  it('is refused where its source is missing, unless it is to be made', async () => {
    const missing = join(directory, 'a/b');
    await expect(bind(missing)).rejects.toMatchObject({ code: 'not-found', message: expect.stringContaining(missing) });
    await bind(missing, { createHostPath: true });
    expect(statSync(missing).isDirectory()).toBe(true);
  });

  it('may not reach what is the agent’s own, but for a privileged container', async () => {
    symlinkSync(data, join(directory, 'sly'));
    for (const source of [data, join(data, 'volumes'), join(directory, 'sly'), '/', directory]) {
      await expect(bind(source), source).rejects.toMatchObject({ code: 'forbidden' });
    }
    await expect(bind(join(data, 'new'), { createHostPath: true })).rejects.toMatchObject({ code: 'forbidden' });
    expect((await prepareOne({ type: 'bind', source: data }, { privileged: true })).source).toBe(data);
  });

  it('is refused for a relative path, or an unknown propagation', async () => {
    await expect(bind('relative')).rejects.toMatchObject({ code: 'invalid' });
    await expect(bind(image, { propagation: 'sideways' })).rejects.toMatchObject({ code: 'invalid' });
    await expect(bind(image, { target: 'relative' })).rejects.toMatchObject({ code: 'invalid' });
  });
});

it('a tmpfs has its size and mode', async () => {
  expect(await prepareOne({ type: 'tmpfs', source: '', tmpfsSizeBytes: 4096, tmpfsMode: 0o700 })).toMatchObject({
    type: 'tmpfs',
    options: ['size=4096', 'mode=700'],
  });
  expect((await prepareOne({ type: 'tmpfs', source: '' })).options).toEqual(['mode=1777']);
});

describe('all that is mounted into a task', () => {
  it('is its volumes and the files made for it, but for those it brings itself', async () => {
    const hosts = join(directory, 'hosts');
    writeFileSync(hosts, '');
    const mounts = taskMounts({ data, volumes, documents: taskDocuments(join(directory, 'run')) });
    const id = newTaskId();
    used.push(id);
    const container = containerSpec('web', {
      mounts: [mountOf({ type: 'bind', source: hosts, target: '/etc/hosts' }), mountOf({})],
    });
    const made = await mounts.prepare({
      wanted: {
        task: { id, project: 'shop', address: '10.1.0.7' } as Task,
        template: taskTemplate(container),
      },
      image: { config: { ...emptyImage, volumes: ['/cache'] } },
      rootfs: [{ type: 'bind', source: image, options: ['rbind'] }],
      etc: {
        network: 'cluster',
        hostname: 'web-1',
        fullName: '1.web.shop.test',
        addresses: ['10.1.0.7'],
        gateway: '10.1.0.1',
        nameserver: '10.1.0.1',
        search: ['shop.test'],
        links: [],
      },
      contents: [],
    });
    expect(made.map(({ target }) => target)).toEqual([
      '/etc/hostname',
      '/etc/resolv.conf',
      '/etc/hosts',
      '/srv/data',
      '/cache',
    ]);
    expect(readFileSync(made[1]!.source, 'utf8')).toBe('nameserver 10.1.0.1\nsearch shop.test\n');
    const beside = newTaskId();
    used.push(beside);
    const shared = await mounts.prepare({
      wanted: { task: { id: beside } as Task, template: taskTemplate(containerSpec('sidecar')) },
      image: { config: emptyImage },
      rootfs: [{ type: 'bind', source: image, options: ['rbind'] }],
      etc: { of: id },
      contents: [],
    });
    expect(shared.map(({ source }) => source)).toEqual(expect.arrayContaining([made[0]!.source, made[1]!.source]));
    expect(await mounts.held()).toEqual([id]);
    await mounts.release(id);
    await mounts.release(id);
    expect(await mounts.held()).toEqual([]);
  });
});
