/** Brings an image into containerd from wherever its blobs come: documents first, layers side by side, each unpacked as it lands. */

import { LeasesService } from '#proto/gen/containerd/leases.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { Platform } from '#proto/model/node.ts';
import type { Limiter } from '../limiter.ts';
import { type Containerd, snapshotter } from './containerd-client.ts';
import type { ContentStore } from './content.ts';
import type { Image } from './images.ts';
import {
  type ConfigBlob,
  chainIdOf,
  type Descriptor,
  digestOf,
  limits,
  type Manifest,
  mediaTypes,
  parseConfig,
  parseDocument,
  pickPlatform,
} from './oci.ts';
import { SingleFlight } from './single-flight.ts';
import { layerSteps, type Unpacker } from './unpack.ts';

/** Where the blobs of an image come from: a registry, or an archive. */
export interface BlobSource {
  /** A manifest, an index or a config, whole. */
  document(descriptor: Descriptor): Promise<Buffer>;
  blob(descriptor: Descriptor, offset: number, signal: AbortSignal): AsyncIterable<Buffer>;
  /** `containerd.io/distribution.source.HOST` and the like, kept with each blob. */
  readonly labels: Readonly<Record<string, string>>;
  /** For messages: "registry:5000/web:1". */
  readonly name: string;
}

/** The document an image's reference means. */
export interface Root {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

export interface PullParts {
  readonly containerd: Containerd;
  readonly content: ContentStore;
  readonly unpacker: Unpacker;
  readonly downloads: Limiter;
  readonly platform: Platform;
  readonly clock: Clock;
  readonly random: Random;
}

/** An image's documents, read and checked. */
export interface Plan {
  readonly root: Descriptor;
  readonly manifestDigest: string;
  readonly manifest: Manifest;
  readonly config: ConfigBlob;
  /** What was read, to be written to the content store; the root is last. */
  readonly documents: readonly {
    readonly descriptor: Descriptor;
    readonly bytes: Buffer;
    readonly labels: Record<string, string>;
  }[];
}

const leaseLifetimeMs = 24 * 3_600_000;

/** Runs `work` under a lease: nothing it makes is collected before it ends. A lease that a dead agent left ends after a day. */
export async function withLease<T>(
  parts: Pick<PullParts, 'containerd' | 'clock' | 'random'>,
  work: (lease: string) => Promise<T>,
): Promise<T> {
  const id = `gantry-${newId(parts.random)}`;
  const expires = new Date(parts.clock.now() + leaseLifetimeMs).toISOString();
  await parts.containerd.call(LeasesService.create, { id, labels: { 'containerd.io/gc.expire': expires } });
  try {
    return await work(id);
  } finally {
    await parts.containerd.call(LeasesService.delete, { id, sync: false }).catch(() => {});
  }
}

/** Reads the documents of an image: the index, where there is one, the manifest for this platform, and its config. */
export async function planPull(root: Root, platform: Platform, source: BlobSource): Promise<Plan> {
  const documents: { descriptor: Descriptor; bytes: Buffer; labels: Record<string, string> }[] = [];
  const rootDescriptor = { digest: root.digest, mediaType: root.mediaType, size: root.bytes.length };
  let descriptor = rootDescriptor;
  let { bytes } = root;
  let document = parseDocument(bytes, root.mediaType, source.name);
  if ('index' in document) {
    const entry = pickPlatform(document.index, platform, source.name);
    documents.push({ descriptor, bytes, labels: { 'containerd.io/gc.ref.content.m.0': entry.digest } });
    bytes = await checkedDocument(source, entry);
    descriptor = { digest: entry.digest, mediaType: entry.mediaType || mediaTypes.manifest, size: bytes.length };
    document = parseDocument(bytes, descriptor.mediaType, source.name);
    if ('index' in document) throw new Fault('unsupported', `${source.name}: an index within an index`);
  }
  const { manifest } = document;
  const layers = Object.fromEntries(
    manifest.layers.map((layer, index) => [`containerd.io/gc.ref.content.l.${index}`, layer.digest]),
  );
  documents.push({
    descriptor,
    bytes,
    labels: { 'containerd.io/gc.ref.content.config': manifest.config.digest, ...layers },
  });
  const configBytes = await checkedDocument(source, manifest.config);
  const config = parseConfig(configBytes, platform, source.name);
  if (config.diffIds.length > 0) {
    const labels = { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: chainIdOf(config.diffIds) };
    documents.push({ descriptor: manifest.config, bytes: configBytes, labels });
  } else documents.push({ descriptor: manifest.config, bytes: configBytes, labels: {} });
  return { root: rootDescriptor, manifestDigest: descriptor.digest, manifest, config, documents: documents.reverse() };
}

async function checkedDocument(source: BlobSource, descriptor: Descriptor): Promise<Buffer> {
  if (descriptor.size > limits.documentBytes)
    throw new Fault(
      'corrupt',
      `${source.name}: ${descriptor.digest} is ${descriptor.size} bytes, too long for a document`,
    );
  const bytes = await source.document(descriptor);
  const digest = digestOf(bytes);
  if (digest === descriptor.digest) return bytes;
  throw new Fault('corrupt', `${source.name}: ${descriptor.digest} arrived as ${digest}`, {
    remedy: 'push the image again',
  });
}

/** Fetches and unpacks what is missing of an image, below the lease; then containerd keeps all of it for the root document. */
export class Puller {
  readonly #parts: PullParts;
  readonly #blobs = new SingleFlight<void, number>();

  constructor(parts: PullParts) {
    this.#parts = parts;
  }

  async pull(
    plan: Plan,
    source: BlobSource,
    lease: string,
    {
      signal,
      onBytes,
    }: { readonly signal?: AbortSignal; readonly onBytes?: (done: number, total: number) => void } = {},
  ): Promise<Image> {
    const { unpacker } = this.#parts;
    const steps = layerSteps(plan.manifest.layers, plan.config.diffIds, source.name);
    let total = 0;
    let done = 0;
    const count = (bytes: number) => {
      done += bytes;
      onBytes?.(Math.min(done, total), total);
    };
    const fetches = new Map<string, Promise<void>>();
    for (const { layer } of steps) {
      if (fetches.has(layer.digest)) continue;
      total += layer.size;
      const fetched = this.#fetch(layer, source, lease, signal, count);
      fetched.catch(() => {});
      fetches.set(layer.digest, fetched);
    }
    try {
      for (const step of steps) {
        signal?.throwIfAborted();
        await fetches.get(step.layer.digest);
        await unpacker.unpack(step, lease);
      }
      for (const { descriptor, bytes, labels } of plan.documents)
        await this.#write(descriptor, bytes, { ...source.labels, ...labels }, lease);
    } finally {
      await Promise.allSettled(fetches.values());
    }
    return { digest: plan.root.digest, config: plan.config.config, chainId: chainIdOf(plan.config.diffIds) };
  }

  async #fetch(
    layer: Descriptor,
    source: BlobSource,
    lease: string,
    signal: AbortSignal | undefined,
    onNote: (bytes: number) => void,
  ): Promise<void> {
    const { content, downloads } = this.#parts;
    const write = (signal: AbortSignal | undefined, onBytes?: (bytes: number) => void) =>
      content.write({
        descriptor: layer,
        labels: source.labels,
        lease,
        read: (offset) => source.blob(layer, offset, signal ?? new AbortController().signal),
        signal,
        ...(onBytes && { onBytes }),
      });
    let own = false;
    const job = (signal: AbortSignal, notify: (bytes: number) => void) => {
      own = true;
      return downloads.run(async () => {
        signal.throwIfAborted();
        await write(signal, notify);
      });
    };
    await this.#blobs.run(layer.digest, job, { signal, onNote });
    // Another image's pull fetched it, under its own lease: ours takes it too.
    if (!own) await write(signal);
  }

  #write(descriptor: Descriptor, bytes: Buffer, labels: Record<string, string>, lease: string): Promise<void> {
    const read = async function* (offset: number) {
      yield bytes.subarray(offset);
    };
    return this.#parts.content.write({
      descriptor: { digest: descriptor.digest, size: bytes.length },
      labels,
      lease,
      read,
    });
  }
}
