/** Reads image archives (OCI layout or `docker save`, in a tar) in place: nothing is extracted, entries are read where they lie in the file. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { finished } from 'node:stream/promises';
import { extract } from 'tar-stream';
import { Fault } from '#proto/kernel/errors.ts';
import { type Descriptor, digestOf, limits, mediaTypes, parseJson } from './oci.ts';
import type { BlobSource, Root } from './pull.ts';
import { isDigest } from './reference.ts';

export interface Archive {
  readonly roots: readonly (Root & { readonly names: readonly string[] })[];
  readonly source: BlobSource;
  close(): Promise<void>;
}

interface Entry {
  readonly offset: number;
  readonly size: number;
}

const maxEntries = 100_000;

/** Opens an archive. Faults: `not-found`, `invalid` (no image archive), `corrupt`. */
export async function openArchive(path: string): Promise<Archive> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Fault(error.code === 'ENOENT' ? 'not-found' : 'invalid', `${path} cannot be read: ${error.code}`, {
      cause: error,
    });
  });
  try {
    const reader = new ArchiveReader(path, file, await entriesOf(path));
    const roots = reader.has('index.json') ? await reader.ociRoots() : await reader.dockerRoots();
    return { roots, source: reader.source(), close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Where each entry's bytes lie. Links count only within `docker save`'s own layout: they are looked up by name, never followed on disk. */
async function entriesOf(path: string): Promise<ReadonlyMap<string, Entry>> {
  const entries = new Map<string, Entry>();
  const links: [string, string][] = [];
  const input = createReadStream(path, { highWaterMark: 1024 * 1024 });
  const tar = extract();
  let failure: unknown;
  tar.on('entry', (header, stream, next) => {
    const name = header.name.replace(/^\.\//, '').replace(/\/$/, '');
    const { byteOffset } = header as { byteOffset?: number };
    if (entries.size >= maxEntries) failure = new Fault('invalid', `${path} has more than ${maxEntries} entries`);
    else if (header.type === 'file' && byteOffset !== undefined)
      entries.set(name, { offset: byteOffset, size: header.size ?? 0 });
    else if ((header.type === 'symlink' || header.type === 'link') && header.linkname)
      links.push([name, resolveLink(name, header.linkname, header.type)]);
    stream.on('end', next);
    stream.on('error', () => {}); // The whole archive fails with it, below.
    stream.resume();
    if (failure) input.destroy(failure as Error);
  });
  tar.on('error', (error) => input.destroy(error));
  try {
    input.pipe(tar);
    await Promise.all([finished(tar), finished(input)]);
  } catch (error) {
    if (failure) throw failure;
    throw new Fault('invalid', `${path} is not a tar archive, or is cut short`, {
      cause: error,
      remedy: 'make it with docker save, skopeo or buildx; it must not be compressed',
    });
  }
  for (const [name, target] of links) {
    const entry = entries.get(target);
    if (entry) entries.set(name, entry);
  }
  return entries;
}

function resolveLink(name: string, target: string, type: string): string {
  const parts = type === 'symlink' && !target.startsWith('/') ? name.split('/').slice(0, -1) : [];
  for (const part of target.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '.' && part !== '') parts.push(part);
  }
  return parts.join('/');
}

class ArchiveReader {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #entries: ReadonlyMap<string, Entry>;
  /** Blobs by digest, where their place is not told by their name: all of them in a Docker archive. */
  readonly #byDigest = new Map<string, Entry>();
  readonly #made = new Map<string, Buffer>();

  constructor(path: string, file: FileHandle, entries: ReadonlyMap<string, Entry>) {
    this.#path = path;
    this.#file = file;
    this.#entries = entries;
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  async ociRoots(): Promise<Archive['roots']> {
    const index = parseJson(await this.#small(this.#entry('index.json')), `${this.#path}: index.json`);
    const roots: (Root & { names: string[] })[] = [];
    for (const value of Array.isArray(index.manifests) ? (index.manifests as Record<string, unknown>[]) : []) {
      const { digest, mediaType } = value;
      if (typeof digest !== 'string' || !isDigest(digest))
        throw new Fault('corrupt', `${this.#path}: index.json names "${String(digest)}"`);
      const annotations = (value.annotations ?? {}) as Record<string, unknown>;
      const name = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name'];
      const bytes = await this.#small(this.#blob(digest));
      if (digestOf(bytes) !== digest) throw new Fault('corrupt', `${this.#path}: ${digest} has other bytes`);
      roots.push({
        digest,
        mediaType: typeof mediaType === 'string' ? mediaType : '',
        bytes,
        names: typeof name === 'string' && name !== '' ? [name] : [],
      });
    }
    if (roots.length === 0) throw new Fault('invalid', `${this.#path} names no image in its index.json`);
    return roots;
  }

  /** `docker save` has no OCI manifest: one is made, of the same config and the layers as they lie there. */
  async dockerRoots(): Promise<Archive['roots']> {
    if (!this.has('manifest.json'))
      throw new Fault('invalid', `${this.#path} is no image archive: it has neither index.json nor manifest.json`, {
        remedy: 'make it with docker save, skopeo or buildx',
      });
    const bytes = await this.#small(this.#entry('manifest.json'));
    const { images } = parseJson(Buffer.from(`{"images":${bytes.toString('utf8')}}`), `${this.#path}: manifest.json`);
    if (!Array.isArray(images) || images.length === 0)
      throw new Fault('corrupt', `${this.#path}: manifest.json names no image`);
    const roots: (Root & { names: string[] })[] = [];
    for (const image of images as { Config?: unknown; Layers?: unknown; RepoTags?: unknown }[]) {
      if (typeof image.Config !== 'string' || !Array.isArray(image.Layers))
        throw new Fault('corrupt', `${this.#path}: manifest.json lacks Config or Layers`);
      const config = await this.#register(image.Config, mediaTypes.config);
      const layers: Descriptor[] = [];
      for (const layer of image.Layers as string[])
        layers.push(await this.#register(layer, await this.#layerType(layer)));
      const manifest = Buffer.from(
        JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.manifest, config, layers }),
      );
      const digest = digestOf(manifest);
      this.#made.set(digest, manifest);
      const names = Array.isArray(image.RepoTags)
        ? image.RepoTags.filter((tag): tag is string => typeof tag === 'string')
        : [];
      roots.push({ digest, mediaType: mediaTypes.manifest, bytes: manifest, names });
    }
    return roots;
  }

  source(): BlobSource {
    return {
      name: this.#path,
      labels: {},
      document: async ({ digest }) => this.#made.get(digest) ?? this.#small(this.#blob(digest)),
      blob: ({ digest }, offset) => this.#read(this.#blob(digest), offset),
    };
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    throw new Fault('not-found', `${this.#path} has no ${name}: it is not whole`, { remedy: 'make the archive again' });
  }

  #blob(digest: string): Entry {
    return this.#byDigest.get(digest) ?? this.#entry(`blobs/sha256/${digest.slice('sha256:'.length)}`);
  }

  async #register(name: string, mediaType: string): Promise<Descriptor> {
    const entry = this.#entry(name);
    const hash = createHash('sha256');
    for await (const chunk of this.#read(entry, 0)) hash.update(chunk);
    const digest = `sha256:${hash.digest('hex')}`;
    this.#byDigest.set(digest, entry);
    return { mediaType, digest, size: entry.size };
  }

  async #layerType(name: string): Promise<string> {
    const head = Buffer.alloc(4);
    await this.#file.read(head, 0, 4, this.#entry(name).offset);
    if (head[0] === 0x1f && head[1] === 0x8b) return 'application/vnd.oci.image.layer.v1.tar+gzip';
    if (head.readUInt32LE(0) === 0xfd2fb528) return 'application/vnd.oci.image.layer.v1.tar+zstd';
    return 'application/vnd.oci.image.layer.v1.tar';
  }

  async #small(entry: Entry): Promise<Buffer> {
    if (entry.size > limits.documentBytes)
      throw new Fault('corrupt', `${this.#path}: a document of ${entry.size} bytes`);
    const chunks: Buffer[] = [];
    for await (const chunk of this.#read(entry, 0)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async *#read(entry: Entry, from: number): AsyncGenerator<Buffer> {
    for (let position = from; position < entry.size; ) {
      const chunk = Buffer.allocUnsafe(Math.min(256 * 1024, entry.size - position));
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, entry.offset + position);
      if (bytesRead === 0) throw new Fault('corrupt', `${this.#path} is cut short`);
      position += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  }
}
