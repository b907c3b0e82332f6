/** `Images` in memory, on the clock it is handed: for tests and the simulation. */

import type { Image, ImageRequest, Images } from '#node-agent/images/images.ts';
import { formatReference, parseReference } from '#node-agent/images/reference.ts';
import type { RootfsMount } from '#node-agent/runtime/runtime.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { digestOf } from './sample-image.ts';

export const plainConfig: Image['config'] = {
  entrypoint: [],
  command: ['/bin/sh'],
  env: ['PATH=/bin:/usr/bin'],
  user: '',
  workingDir: '',
  volumes: [],
  stopSignal: '',
  labels: {},
  exposedPorts: [],
  healthCheck: undefined,
};

/** A registry of images that nodes' fakes share; empty `images` and `any: true` has every name. */
export interface FakeRegistry {
  readonly images: Map<string, Image>;
  /** Names nobody put there mean a plain image. */
  readonly any: boolean;
  /** Of these it says that it has none. */
  lacks?: (name: string) => boolean;
  /** Set: every request fails with it. */
  failure: Fault | undefined;
  pulls: number;
}

/** A registry that has every image, until told otherwise. */
export function fakeRegistry(any = true): FakeRegistry {
  return { images: new Map(), any, failure: undefined, pulls: 0 };
}

/** An image of that config, whose digest follows from the text. */
export function fakeImage(seed: string, config: Partial<Image['config']> = {}): Image {
  const digest = digestOf(Buffer.from(seed));
  return { digest, chainId: digestOf(Buffer.from(`chain of ${digest}`)), config: { ...plainConfig, ...config } };
}

export class FakeImages implements Images {
  readonly #clock: Clock;
  readonly #registry: FakeRegistry;
  readonly #pullMs: number;
  readonly #byName = new Map<string, Image>();
  readonly #resolvedAt = new Map<string, number>();
  readonly #byDigest = new Map<string, Image>();
  readonly #rootfs = new Map<TaskId, Image>();
  /** What archives hold, by path. */
  readonly archives = new Map<string, readonly { readonly name: string; readonly image: Image }[]>();

  constructor(clock: Clock, registry: FakeRegistry = fakeRegistry(), pullMs = 0) {
    this.#clock = clock;
    this.#registry = registry;
    this.#pullMs = pullMs;
  }

  async ensure(request: ImageRequest): Promise<Image> {
    const reference = parseReference(request.reference);
    const digest = request.digest || reference.digest;
    const name = formatReference(digest ? { ...reference, digest } : reference);
    const present = digest ? this.#byDigest.get(digest) : this.#byName.get(name);
    const { maxAgeMs = 0 } = request;
    const stale = maxAgeMs > 0 && this.#clock.now() - (this.#resolvedAt.get(name) ?? 0) >= maxAgeMs;
    if (present && (digest || (request.pullPolicy !== 'always' && !stale))) return present;
    if (request.pullPolicy === 'never')
      throw new Fault('not-found', `${name} is not on this node, and its pull policy is "never"`);
    request.onProgress?.(`asking ${reference.registry} for ${name}`);
    this.#registry.pulls++;
    if (this.#pullMs > 0) await this.#clock.sleep(this.#pullMs, request.signal);
    request.signal?.throwIfAborted();
    if (this.#registry.failure) throw this.#registry.failure;
    const image = this.#find(formatReference(reference), digest);
    if (!image) throw new Fault('not-found', `${reference.registry} has no ${name}`);
    this.#keep(name, image);
    return image;
  }

  async config(request: ImageRequest): Promise<Image['config']> {
    const reference = parseReference(request.reference);
    if (this.#registry.failure) throw this.#registry.failure;
    const image = this.#find(formatReference(reference), request.digest || reference.digest);
    if (!image) throw new Fault('not-found', `${reference.registry} has no ${request.reference}`);
    return image.config;
  }

  #find(name: string, digest: string): Image | undefined {
    if (this.#registry.lacks?.(name)) return undefined;
    if (!digest) return this.#registry.images.get(name) ?? (this.#registry.any ? fakeImage(name) : undefined);
    for (const image of this.#registry.images.values()) if (image.digest === digest) return image;
    return this.#registry.any ? { ...fakeImage(digest), digest } : undefined;
  }

  #keep(name: string, image: Image): void {
    this.#resolvedAt.set(name, this.#clock.now());
    this.#byName.set(name, image);
    this.#byDigest.set(image.digest, image);
  }

  async prepareRootfs(task: TaskId, image: Image): Promise<readonly RootfsMount[]> {
    if (!this.#byDigest.has(image.digest)) throw new Fault('unavailable', `the layers of ${image.digest} were removed`);
    this.#rootfs.set(task, image);
    return [{ type: 'overlay', source: 'overlay', options: [`upperdir=/fake/${task}`] }];
  }

  async release(task: TaskId): Promise<void> {
    this.#rootfs.delete(task);
  }

  async rootfs(): Promise<readonly TaskId[]> {
    return [...this.#rootfs.keys()];
  }

  async importArchive(path: string): Promise<readonly string[]> {
    const images = this.archives.get(path);
    if (!images) throw new Fault('not-found', `${path} cannot be read: ENOENT`);
    for (const { name, image } of images) this.#keep(formatReference(parseReference(name)), image);
    return images.map(({ name }) => formatReference(parseReference(name)));
  }

  async version(): Promise<string> {
    return 'fake';
  }
}
