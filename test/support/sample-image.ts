/** Small real images out of Debian's static busybox: as an OCI archive, a Docker archive, or pushed to a registry. */
import { createHash } from 'node:crypto';
import { createWriteStream, readFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { pack } from 'tar-stream';

export interface SampleOptions {
  /** Layers in all; the first has busybox, each further one a file /layer-N. Default 1. */
  readonly layers?: number;
  /** Default gzip. */
  readonly compression?: 'none' | 'gzip' | 'zstd';
  /** Docker's media types instead of OCI's. */
  readonly docker?: boolean;
  /** An index of this platform and a foreign one, instead of a manifest. */
  readonly index?: boolean;
  readonly architecture?: string;
  /** Merged into the config's `config`: Cmd, Env, Healthcheck … */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Further files of the last layer. */
  readonly files?: Readonly<Record<string, string | Buffer>>;
}

export interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Buffer;
}

export interface SampleImage {
  /** What a reference to it means: the index or the manifest. */
  readonly root: Blob;
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  /** The other manifests of the index. */
  readonly others: readonly Blob[];
  readonly diffIds: readonly string[];
}

/** What Node calls x64, as OCI calls it. */
export const hostArchitecture: string = process.arch === 'x64' ? 'amd64' : process.arch;
export const hostPlatform = { os: 'linux', architecture: hostArchitecture, variant: '' };

const applets = [
  'sh',
  'sleep',
  'cat',
  'echo',
  'ls',
  'httpd',
  'nc',
  'wget',
  'true',
  'false',
  'env',
  'id',
  'hostname',
  'mount',
  'kill',
  'seq',
  'date',
  'ps',
  'stty',
  'head',
  'tail',
  'yes',
  'dd',
  'test',
  'touch',
  'mkdir',
  'rm',
  'printf',
  'nslookup',
  'ping',
  'ip',
  'vi',
  'grep',
  'wc',
  'tr',
  'stat',
  'chmod',
  'df',
  'free',
  'top',
  'usleep',
  'timeout',
  'sync',
  'expr',
  'uname',
  'whoami',
  'pwd',
  'cut',
  'sed',
  'awk',
  'sort',
  'find',
  'xargs',
  'md5sum',
  'od',
  'readlink',
  'ln',
  'cp',
  'mv',
  'tee',
];

/** Builds an image in memory. */
export async function sampleImage(options: SampleOptions = {}): Promise<SampleImage> {
  const { layers: count = 1, compression = 'gzip', docker = false } = options;
  const layers: Blob[] = [];
  const diffIds: string[] = [];
  for (let index = 0; index < count; index++) {
    const tar = await layerTar(index, index === count - 1 ? (options.files ?? {}) : {});
    diffIds.push(digestOf(tar));
    layers.push(blob(layerType(compression, docker), compress(tar, compression)));
  }
  const architecture = options.architecture ?? hostArchitecture;
  const config = json(
    docker ? 'application/vnd.docker.container.image.v1+json' : 'application/vnd.oci.image.config.v1+json',
    {
      architecture,
      os: 'linux',
      config: { Env: ['PATH=/bin:/usr/bin'], Cmd: ['/bin/sh'], ...options.config },
      rootfs: { type: 'layers', diff_ids: diffIds },
    },
  );
  const manifestType = docker
    ? 'application/vnd.docker.distribution.manifest.v2+json'
    : 'application/vnd.oci.image.manifest.v1+json';
  const manifest = json(manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config: descriptorOf(config),
    layers: layers.map(descriptorOf),
  });
  if (!options.index) return { root: manifest, manifest, config, layers, diffIds, others: [] };
  const indexType = docker
    ? 'application/vnd.docker.distribution.manifest.list.v2+json'
    : 'application/vnd.oci.image.index.v1+json';
  const foreign = json(manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config: descriptorOf(config),
    layers: [],
  });
  const entries = [
    { ...descriptorOf(foreign), platform: { os: 'linux', architecture: 'riscv64' } },
    { ...descriptorOf(manifest), platform: { os: 'linux', architecture } },
  ];
  return {
    root: json(indexType, { schemaVersion: 2, mediaType: indexType, manifests: entries }),
    manifest,
    config,
    layers,
    others: [foreign],
    diffIds,
  };
}

/** Writes an OCI image layout as a tar, as `buildx --output type=oci` does. */
export async function writeOciArchive(image: SampleImage, path: string, name: string): Promise<void> {
  const tar = pack();
  const written = pipeline(tar, createWriteStream(path));
  tar.entry({ name: 'oci-layout' }, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const blobs = new Map([...image.layers, image.config, image.manifest, image.root].map((one) => [one.digest, one]));
  for (const { digest, bytes } of blobs.values()) tar.entry({ name: `blobs/sha256/${digest.slice(7)}` }, bytes);
  const annotations = { 'io.containerd.image.name': name };
  tar.entry(
    { name: 'index.json' },
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...descriptorOf(image.root), annotations }] }),
  );
  tar.finalize();
  await written;
}

/** Writes what `docker save` wrote before Docker 25: manifest.json, plain layers, no OCI manifest. Wants an image of `compression: none`. */
export async function writeDockerArchive(image: SampleImage, path: string, tags: readonly string[]): Promise<void> {
  const tar = pack();
  const written = pipeline(tar, createWriteStream(path));
  const config = `${image.config.digest.slice(7)}.json`;
  tar.entry({ name: config }, image.config.bytes);
  const names: string[] = [];
  for (const [index, layer] of image.layers.entries()) {
    names.push(`${index}/layer.tar`);
    tar.entry({ name: `${index}/layer.tar` }, layer.bytes);
  }
  tar.entry({ name: 'manifest.json' }, JSON.stringify([{ Config: config, RepoTags: tags, Layers: names }]));
  tar.finalize();
  await written;
}

/** Pushes to `http://HOST:PORT/REPOSITORY:TAG`. `headers` carry a login where one is wanted. */
export async function pushImage(
  image: SampleImage,
  host: string,
  repository: string,
  tag: string,
  headers: Record<string, string> = {},
): Promise<void> {
  const base = `http://${host}/v2/${repository}`;
  const put = async (url: string, body: Buffer, contentType: string, method = 'PUT') => {
    const response = await fetch(url, {
      method,
      headers: { ...headers, 'content-type': contentType },
      body: new Uint8Array(body),
    });
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`);
    await response.arrayBuffer();
    return response;
  };
  for (const { digest, bytes } of [...image.layers, image.config]) {
    const started = await put(`${base}/blobs/uploads/`, Buffer.alloc(0), 'application/octet-stream', 'POST');
    const location = new URL(started.headers.get('location')!, base);
    location.searchParams.set('digest', digest);
    await put(location.href, bytes, 'application/octet-stream');
  }
  for (const { digest, bytes, mediaType } of [...image.others, image.manifest])
    await put(`${base}/manifests/${digest}`, bytes, mediaType);
  await put(`${base}/manifests/${tag}`, image.root.bytes, image.root.mediaType);
}

/** `sha256:…` of some bytes. */
export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

async function layerTar(index: number, files: Readonly<Record<string, string | Buffer>>): Promise<Buffer> {
  const tar = pack();
  const chunks: Buffer[] = [];
  tar.on('data', (chunk) => chunks.push(chunk as Buffer));
  const ended = new Promise<void>((resolve) => tar.on('end', () => resolve()));
  const mtime = new Date(0);
  if (index === 0) {
    for (const name of ['bin', 'dev', 'etc', 'proc', 'run', 'sys', 'var', 'www'])
      tar.entry({ name, type: 'directory', mode: 0o755, mtime });
    tar.entry({ name: 'tmp', type: 'directory', mode: 0o1777, mtime });
    tar.entry({ name: 'bin/busybox', mode: 0o755, mtime }, readFileSync('/bin/busybox'));
    for (const name of applets) tar.entry({ name: `bin/${name}`, type: 'symlink', linkname: 'busybox', mtime });
    tar.entry(
      { name: 'etc/passwd', mtime },
      'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
    );
    tar.entry({ name: 'etc/group', mtime }, 'root:x:0:\nnogroup:x:65534:\n');
  } else tar.entry({ name: `layer-${index}`, mtime }, `layer ${index}\n`);
  for (const [name, content] of Object.entries(files)) tar.entry({ name, mode: 0o755, mtime }, content as Buffer);
  tar.finalize();
  await ended;
  return Buffer.concat(chunks);
}

function compress(tar: Buffer, compression: 'none' | 'gzip' | 'zstd'): Buffer {
  return compression === 'gzip' ? gzipSync(tar, { level: 1 }) : compression === 'zstd' ? zstdCompressSync(tar) : tar;
}

function layerType(compression: 'none' | 'gzip' | 'zstd', docker: boolean): string {
  const plain = docker ? 'application/vnd.docker.image.rootfs.diff.tar' : 'application/vnd.oci.image.layer.v1.tar';
  return compression === 'none' ? plain : `${plain}${docker ? '.' : '+'}${compression}`;
}

function blob(mediaType: string, bytes: Buffer): Blob {
  return { mediaType, digest: digestOf(bytes), bytes };
}

function json(mediaType: string, value: unknown): Blob {
  return blob(mediaType, Buffer.from(JSON.stringify(value)));
}

function descriptorOf({ mediaType, digest, bytes }: Blob): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size: bytes.length };
}
