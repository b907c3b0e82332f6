/** What every `Images` must do, asked of the fake and of the real one alike. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Images } from '#node-agent/images/images.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { taskId } from '#proto/model/ids.ts';
import { eventually } from '#test/support/eventually.ts';

export interface ImagesUnderTest {
  readonly images: Images;
  /** Of the registry that `publish` puts to: HOST:PORT */
  readonly host: string;
  /** Puts an image of that command there and returns the digest a reference to it means. */
  publish(repository: string, tag: string, command: string): Promise<string>;
  /** From now on the registry answers nothing. */
  registryDown(): Promise<void>;
  close(): Promise<void>;
}

/** Declares the suite's tests. */
export function imagesContract(open: () => Promise<ImagesUnderTest>): void {
  let under: ImagesUnderTest;
  const task = () => taskId(newId(systemRandom));
  const ensure = (name: string, fields: Partial<Parameters<Images['ensure']>[0]> = {}) =>
    under.images.ensure({ reference: `${under.host}/${name}`, digest: '', pullPolicy: '', ...fields });
  beforeAll(async () => {
    under = await open();
  });
  afterAll(() => under?.close());

  it('an image is found by its tag, with its digest and its config', async () => {
    const digest = await under.publish('web', '1', 'one');
    const image = await ensure('web:1');
    expect(image.digest).toBe(digest);
    expect(image.config.command).toEqual(['one']);
    expect(image.chainId).toMatch(/^sha256:/);
  });

  it('a tag that moved is seen only where the policy says always', async () => {
    const before = await under.publish('moving', 'latest', 'old');
    await ensure('moving');
    const after = await under.publish('moving', 'latest', 'new');
    expect((await ensure('moving', { pullPolicy: 'missing' })).digest).toBe(before);
    expect((await ensure('moving', { pullPolicy: 'always' })).digest).toBe(after);
    expect((await ensure('moving')).digest).toBe(after);
  });

  it('a tag that moved is seen where it was resolved longer ago than is allowed', async () => {
    const before = await under.publish('aging', 'latest', 'old');
    await ensure('aging');
    const after = await under.publish('aging', 'latest', 'new');
    expect((await ensure('aging', { maxAgeMs: 3_600_000 })).digest).toBe(before);
    await eventually(async () => (await ensure('aging', { maxAgeMs: 1_000 })).digest === after);
    expect((await ensure('aging', { digest: before, maxAgeMs: 1 })).digest).toBe(before);
  });

  it('a digest decides, whatever the tag means by now', async () => {
    const pinned = await under.publish('pinned', 'latest', 'first');
    await under.publish('pinned', 'latest', 'second');
    expect((await ensure('pinned', { digest: pinned })).digest).toBe(pinned);
    expect((await ensure(`pinned@${pinned}`, { pullPolicy: 'always' })).config.command).toEqual(['first']);
  });

  it('an image that nobody has is not found, and one that may not be pulled neither', async () => {
    await expect(ensure('nothing:1')).rejects.toMatchObject({ code: 'not-found' });
    await under.publish('present', '1', 'x');
    await expect(ensure('present:1', { pullPolicy: 'never' })).rejects.toMatchObject({ code: 'not-found' });
    await expect(ensure('BAD NAME')).rejects.toMatchObject({ code: 'invalid' });
  });

  it('an aborted pull rejects', async () => {
    await under.publish('aborted', '1', 'x');
    await expect(ensure('aborted:1', { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow();
  });

  it('the same image asked for many times at once is one image', async () => {
    const digest = await under.publish('many', '1', 'x');
    const images = await Promise.all(Array.from({ length: 10 }, () => ensure('many:1')));
    expect(new Set(images.map((image) => image.digest))).toEqual(new Set([digest]));
  });

  it('a task has a layer of its own until it is released, the same one however often it asks', async () => {
    await under.publish('layers', '1', 'x');
    const image = await ensure('layers:1');
    const [a, b] = [task(), task()];
    const mounts = await under.images.prepareRootfs(a, image);
    expect(mounts).toHaveLength(1);
    expect(await under.images.prepareRootfs(a, image)).toEqual(mounts);
    expect(await under.images.prepareRootfs(b, image)).not.toEqual(mounts);
    expect(new Set(await under.images.rootfs())).toEqual(new Set([a, b]));
    await under.images.release(a);
    await under.images.release(a);
    expect(await under.images.rootfs()).toEqual([b]);
    await under.images.release(b);
  });

  it('an archive that is not there is not found', async () => {
    await expect(under.images.importArchive('/nowhere/archive.tar')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('what is present needs no registry, what is not says that it is not reached', async () => {
    await under.publish('offline', '1', 'x');
    const { digest } = await ensure('offline:1');
    await under.registryDown();
    expect((await ensure('offline:1')).digest).toBe(digest);
    expect((await ensure('offline:1', { digest, pullPolicy: 'always' })).digest).toBe(digest);
    expect((await ensure('offline:1', { pullPolicy: 'never' })).digest).toBe(digest);
    await expect(ensure('absent:1')).rejects.toMatchObject({ code: 'unavailable' });
  });
}
