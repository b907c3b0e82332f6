/** The node's image store. Implementations: containerd-images, fake-images (tests, simulator). */
import type { Credential } from '#proto/model/cluster.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { ImageConfig, RootfsMount } from '../runtime/runtime.ts';

export interface ImageRequest {
  /** As the user wrote it. */
  readonly reference: string;
  /** Of the manifest or index the tag meant when it was first resolved; empty: resolve the tag. */
  readonly digest: string;
  readonly pullPolicy: '' | 'missing' | 'always' | 'never';
  /** A tag that this node resolved longer ago is resolved anew; 0 or absent: never. */
  readonly maxAgeMs?: number;
  /** For the registry of the reference, where there is one. */
  readonly credential?: Credential | undefined;
  readonly signal?: AbortSignal;
  /** Called now and then, with a line for people: "pulling web:1.2: 12 of 30 MB". */
  readonly onProgress?: (message: string) => void;
}

export interface Image {
  /** Of the manifest or index the reference resolved to: `sha256:…`. */
  readonly digest: string;
  readonly config: ImageConfig;
  /** The snapshot that holds its top layer. */
  readonly chainId: string;
}

/**
 * Faults: `invalid` (bad reference), `not-found` (no such image), `unauthenticated`, `forbidden`, `corrupt` (a blob is not
 * its digest), `unsupported` (no manifest for this platform), `exhausted` (disk full), `unavailable` (registry not reached).
 * All say which registry and what to do.
 */
export interface Images {
  /** The image, unpacked; asks no registry where it is present and the policy allows. */
  ensure(request: ImageRequest): Promise<Image>;
  /** What the image's config says; of one that is not here its documents are read, and none of its layers. */
  config(request: ImageRequest): Promise<ImageConfig>;
  /** A writable layer over the image for one task, kept until `release`; the same again for the same task. */
  prepareRootfs(task: TaskId, image: Image): Promise<readonly RootfsMount[]>;
  /** Drops the task's layer; nothing where there is none. */
  release(task: TaskId): Promise<void>;
  /** Tasks that have a layer here. */
  rootfs(): Promise<readonly TaskId[]>;
  /** Reads an OCI or Docker archive from disk; returns the references it named. */
  importArchive(path: string): Promise<readonly string[]>;
  /** Version of containerd. */
  version(): Promise<string>;
}

/** What collecting garbage needs beside `Images`. */
export interface ImageRecords {
  /** Names of images that a registry can give again, with the digest each means; imported ones are kept. */
  list(): Promise<readonly { readonly name: string; readonly digest: string; readonly createdAtMs: number }[]>;
  /** Digests that tasks' layers stand on, or were asked for a moment ago: their task is on its way. */
  inUse(): Promise<ReadonlySet<string>>;
  /** Forgets a name; containerd then frees what nothing else refers to. */
  remove(name: string): Promise<void>;
}
