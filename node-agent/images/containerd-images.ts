/** `Images` on containerd: content, snapshots, leases and collection are its own; what is fetched, checked and kept is decided here. */

import { ImagesService } from '#proto/gen/containerd/images.ts';
import { type Info, SnapshotsService } from '#proto/gen/containerd/snapshots.ts';
import { VersionService } from '#proto/gen/containerd/version.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import type { Platform } from '#proto/model/node.ts';
import { Limiter } from '../limiter.ts';
import type { ImageConfig, RootfsMount } from '../runtime/runtime.ts';
import { openArchive } from './archive.ts';
import { type Containerd, containerdClient, snapshotter } from './containerd-client.ts';
import { ContentStore } from './content.ts';
import type { Image, ImageRecords, ImageRequest, Images } from './images.ts';
import { chainIdOf, type Descriptor } from './oci.ts';
import { type BlobSource, Puller, type PullParts, planPull, type Root, withLease } from './pull.ts';
import { formatReference, parseReference, type Reference } from './reference.ts';
import { type Registry, registryClient } from './registry.ts';
import { SingleFlight } from './single-flight.ts';
import { Unpacker } from './unpack.ts';

export interface ContainerdImagesParts {
  /** Of containerd: /run/containerd/containerd.sock */
  readonly socket: string;
  readonly platform: Platform;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** HOST:PORT or networks that are spoken to in plain HTTP. */
  readonly insecureRegistries?: readonly string[];
  readonly authHosts?: Readonly<Record<string, string>>;
  readonly stallMs?: number;
}

export type ContainerdImages = Images & { readonly records: ImageRecords; close(): void };

const taskLabel = 'gantry.task';
const imageLabel = 'gantry.image';
/** On images that came from an archive: nobody could give them again. */
const importedLabel = 'gantry.imported';
const parallelDownloads = 6;
/** From an image's being ensured to its task's layer, at the longest. */
const onItsWayMs = 120_000;

/** Connects to containerd; Fault `unavailable` where it does not answer. */
export async function containerdImages(parts: ContainerdImagesParts): Promise<ContainerdImages> {
  const containerd = containerdClient(parts.socket, parts.clock);
  await containerd.call(VersionService.version, {}, { timeoutMs: 10_000 }).catch((error) => {
    containerd.close();
    throw error;
  });
  return new ContainerdImageStore(parts, containerd);
}

class ContainerdImageStore implements Images {
  readonly #parts: ContainerdImagesParts;
  readonly #containerd: Containerd;
  readonly #content: ContentStore;
  readonly #unpacker: Unpacker;
  readonly #registry: Registry;
  readonly #pullParts: PullParts;
  readonly #puller: Puller;
  /** Images known to be whole, by digest. Emptied of one when a task finds its layers gone. */
  readonly #whole = new Map<string, Image>();
  readonly #pulls = new SingleFlight<Image, string>();
  readonly #ensuredAt = new Map<string, number>();

  constructor(parts: ContainerdImagesParts, containerd: Containerd) {
    this.#parts = parts;
    this.#containerd = containerd;
    this.#content = new ContentStore(containerd, parts.socket);
    this.#unpacker = new Unpacker(containerd, parts.random);
    this.#registry = registryClient(parts);
    const { platform, clock, random } = parts;
    const downloads = new Limiter(parallelDownloads);
    this.#pullParts = {
      containerd,
      content: this.#content,
      unpacker: this.#unpacker,
      downloads,
      platform,
      clock,
      random,
    };
    this.#puller = new Puller(this.#pullParts);
  }

  async ensure(request: ImageRequest): Promise<Image> {
    const image = await this.#ensure(request);
    this.#ensuredAt.set(image.digest, this.#parts.clock.monotonic());
    return image;
  }

  async #ensure(request: ImageRequest): Promise<Image> {
    const reference = parseReference(request.reference);
    const pinned = request.digest || reference.digest;
    const wanted = pinned === '' ? reference : { ...reference, digest: pinned };
    if (pinned !== '' || (request.pullPolicy !== 'always' && !(await this.#isStale(reference, request)))) {
      const image = await this.#present(wanted);
      if (image) return image;
    }
    const name = formatReference(wanted);
    if (request.pullPolicy === 'never')
      throw new Fault('not-found', `${name} is not on this node, and its pull policy is "never"`, {
        remedy: 'import or pull it there, or use pull_policy: missing',
      });
    const login = request.credential ? `${request.credential.username}:${request.credential.password}` : '';
    return this.#pulls.run(`${name} ${login}`, (signal, notify) => this.#pull(wanted, request, signal, notify), {
      signal: request.signal,
      onNote: request.onProgress,
    });
  }

  async config(request: ImageRequest): Promise<ImageConfig> {
    const reference = parseReference(request.reference);
    const wanted = request.digest ? { ...reference, digest: request.digest } : reference;
    const present = await this.#present(wanted);
    if (present) return present.config;
    const access = { credential: request.credential, signal: request.signal ?? new AbortController().signal };
    const root = await this.#registry.document(wanted, access);
    const plan = await planPull(root, this.#parts.platform, this.#registrySource(wanted, access));
    return plan.config.config;
  }

  /** The image, where all of it is here already. */
  async #present(reference: Reference): Promise<Image | undefined> {
    const digest = reference.digest || (await this.#named(formatReference(reference)));
    if (!digest) return undefined;
    const known = this.#whole.get(digest);
    if (known) return known;
    const root = await this.#content.document(digest);
    if (!root) return undefined;
    try {
      const source = this.#localSource(formatReference(reference));
      const plan = await planPull({ digest, mediaType: '', bytes: root }, this.#parts.platform, source);
      const chainId = chainIdOf(plan.config.diffIds);
      if (chainId !== '' && !(await this.#unpacker.has(chainId))) {
        for (const layer of plan.manifest.layers) if (!(await this.#content.has(layer.digest))) return undefined;
        await withLease(this.#pullParts, (lease) => this.#puller.pull(plan, source, lease));
      }
      return this.#remember({ digest, config: plan.config.config, chainId });
    } catch (error) {
      if (isFault(error, 'not-found', 'corrupt')) return undefined;
      throw error;
    }
  }

  async #pull(
    reference: Reference,
    request: ImageRequest,
    signal: AbortSignal,
    notify: (message: string) => void,
  ): Promise<Image> {
    const name = formatReference(reference);
    const access = { credential: request.credential, signal };
    const beganAt = this.#parts.clock.monotonic();
    notify(`asking ${reference.registry} for ${name}`);
    const root = await this.#registry.document(reference, access);
    const pinned = { ...reference, tag: '', digest: root.digest };
    const source = this.#registrySource(reference, access);
    const image = await withLease(this.#pullParts, async (lease) => {
      const plan = await planPull(root, this.#parts.platform, source);
      const image = await this.#puller.pull(plan, source, lease, { signal, onBytes: progressLines(name, notify) });
      await this.#name(formatReference(pinned), plan.root);
      if (reference.digest === '') await this.#name(name, plan.root);
      return image;
    });
    this.#parts.log.info('pulled an image', {
      image: name,
      durationMs: Math.round(this.#parts.clock.monotonic() - beganAt),
    });
    return this.#remember(image);
  }

  #remember(image: Image): Image {
    this.#whole.set(image.digest, image);
    return image;
  }

  #registrySource(
    reference: Reference,
    access: { credential?: ImageRequest['credential']; signal: AbortSignal },
  ): BlobSource {
    const registry = this.#registry;
    const content = this.#content;
    return {
      name: formatReference(reference),
      labels: { [`containerd.io/distribution.source.${reference.registry}`]: reference.repository },
      async document(descriptor) {
        const local = await content.document(descriptor.digest).catch(() => undefined);
        if (local) return local;
        const isManifest = /manifest|index/.test(descriptor.mediaType);
        if (isManifest) return (await registry.document({ ...reference, digest: descriptor.digest }, access)).bytes;
        const chunks: Buffer[] = [];
        for await (const chunk of registry.blob(reference, descriptor, 0, access)) chunks.push(chunk);
        return Buffer.concat(chunks);
      },
      blob: (descriptor, offset, signal) =>
        registry.blob(reference, descriptor, offset, { credential: access.credential, signal }),
    };
  }

  /** What is here, and nothing else. */
  #localSource(name: string): BlobSource {
    const missing = (digest: string) => new Fault('not-found', `${name}: ${digest} is not on this node`);
    return {
      name,
      labels: {},
      document: async ({ digest }) => {
        const bytes = await this.#content.document(digest);
        if (!bytes) throw missing(digest);
        return bytes;
      },
      // biome-ignore lint/correctness/useYield: there is nothing to give; a blob that is asked for has gone meanwhile.
      async *blob({ digest }) {
        throw missing(digest);
      },
    };
  }

  /** Its tag was resolved longer ago than its user allows. */
  async #isStale(reference: Reference, { maxAgeMs = 0, pullPolicy }: ImageRequest): Promise<boolean> {
    if (maxAgeMs === 0 || pullPolicy === 'never') return false;
    const resolvedAt = (await this.#record(formatReference(reference)))?.updatedAt;
    return resolvedAt !== undefined && this.#parts.clock.now() - resolvedAt.seconds * 1_000 >= maxAgeMs;
  }

  async #named(name: string): Promise<string | undefined> {
    return (await this.#record(name))?.target?.digest;
  }

  async #record(name: string) {
    try {
      return (await this.#containerd.call(ImagesService.get, { name })).image;
    } catch (error) {
      if (isFault(error, 'not-found')) return undefined;
      throw error;
    }
  }

  async #name(name: string, target: Descriptor, labels: Record<string, string> = {}): Promise<void> {
    const image = {
      name,
      labels,
      target: { ...target, annotations: {} },
      createdAt: undefined,
      updatedAt: undefined,
    };
    try {
      await this.#containerd.call(ImagesService.create, { image });
    } catch (error) {
      if (!isFault(error, 'exists')) throw error;
      await this.#containerd.call(ImagesService.update, { image, updateMask: ['target'] });
    }
  }

  async prepareRootfs(task: TaskId, image: Image): Promise<readonly RootfsMount[]> {
    const labels = {
      'containerd.io/gc.root': new Date(this.#parts.clock.now()).toISOString(),
      [taskLabel]: task,
      [imageLabel]: image.digest,
    };
    try {
      const made = await this.#containerd.call(SnapshotsService.prepare, {
        snapshotter,
        key: task,
        parent: image.chainId,
        labels,
      });
      return made.mounts;
    } catch (error) {
      if (isFault(error, 'exists'))
        return (await this.#containerd.call(SnapshotsService.mounts, { snapshotter, key: task })).mounts;
      if (!isFault(error, 'not-found')) throw error;
      this.#whole.delete(image.digest);
      throw new Fault('unavailable', `the layers of ${image.digest} were removed from containerd`, {
        cause: error,
        remedy: 'they are pulled again with the next try',
      });
    }
  }

  async release(task: TaskId): Promise<void> {
    try {
      await this.#containerd.call(SnapshotsService.remove, { snapshotter, key: task });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  async #taskSnapshots(): Promise<readonly Info[]> {
    const found: Info[] = [];
    for await (const { info } of this.#containerd.stream(SnapshotsService.list, { snapshotter, filters: [] }))
      found.push(...info.filter(({ labels }) => labels[taskLabel] !== undefined));
    return found;
  }

  async rootfs(): Promise<readonly TaskId[]> {
    return (await this.#taskSnapshots()).map(({ labels }) => taskId(labels[taskLabel]!));
  }

  async importArchive(path: string): Promise<readonly string[]> {
    const archive = await openArchive(path);
    try {
      const names: string[] = [];
      for (const root of archive.roots) names.push(...(await this.#importOne(root, archive.source)));
      this.#parts.log.info('imported an archive', { path, count: names.length });
      return names;
    } finally {
      await archive.close();
    }
  }

  #importOne(root: Root & { readonly names: readonly string[] }, source: BlobSource): Promise<readonly string[]> {
    return withLease(this.#pullParts, async (lease) => {
      const plan = await planPull(root, this.#parts.platform, source);
      const whole = root.names.map(parseReference);
      const names = whole.flatMap((reference) => [
        formatReference(reference),
        formatReference({ ...reference, tag: '', digest: root.digest }),
      ]);
      const image = await this.#puller.pull(plan, source, lease);
      for (const name of names.length > 0 ? names : [root.digest])
        await this.#name(name, plan.root, { [importedLabel]: 'true' });
      this.#remember(image);
      return whole.length > 0 ? whole.map(formatReference) : [root.digest];
    });
  }

  async version(): Promise<string> {
    return (await this.#containerd.call(VersionService.version, {})).version;
  }

  readonly records: ImageRecords = {
    list: async () =>
      (await this.#containerd.call(ImagesService.list, { filters: [] })).images
        .filter(({ labels }) => labels[importedLabel] === undefined)
        .map(({ name, target, createdAt }) => ({
          name,
          digest: target?.digest ?? '',
          createdAtMs: (createdAt?.seconds ?? 0) * 1000,
        })),
    inUse: async () => {
      const since = this.#parts.clock.monotonic() - onItsWayMs;
      for (const [digest, at] of this.#ensuredAt) if (at < since) this.#ensuredAt.delete(digest);
      const held = (await this.#taskSnapshots()).map(({ labels }) => labels[imageLabel]!);
      return new Set([...held, ...this.#ensuredAt.keys()]);
    },
    remove: async (name) => {
      const digest = await this.#named(name);
      await this.#containerd.call(ImagesService.delete, { name, sync: true });
      if (digest) this.#whole.delete(digest);
    },
  };

  close(): void {
    this.#registry.close();
    this.#containerd.close();
  }
}

/** Says how far a download is, at every twentieth of it. */
function progressLines(name: string, notify: (message: string) => void): (done: number, total: number) => void {
  let last = -1;
  return (done, total) => {
    const part = total === 0 ? 20 : Math.floor((done * 20) / total);
    if (part !== last)
      notify(`pulling ${name.replace(/@sha256:[0-9a-f]+$/, '')}: ${megabytes(done)} of ${megabytes(total)} MB`);
    last = part;
  };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0);
}
