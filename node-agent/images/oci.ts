/** Pure: manifests, indexes and configs of images, read strictly, in the OCI and the Docker form. */
import { createHash } from 'node:crypto';
import { Fault } from '#proto/kernel/errors.ts';
import type { Platform } from '#proto/model/node.ts';
import type { ImageConfig } from '../runtime/runtime.ts';
import { isDigest } from './reference.ts';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What an image's config blob says. `diffIds`: digests of the unpacked layers, bottom first. */
export interface ConfigBlob {
  readonly platform: Platform;
  readonly diffIds: readonly string[];
  readonly config: ImageConfig;
}

export const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

/** Layer types that are understood, by what containerd is told they are: its own names, so that it picks the decompressor. */
const layerTypes: Readonly<Record<string, string>> = {
  'application/vnd.oci.image.layer.v1.tar': 'application/vnd.oci.image.layer.v1.tar',
  'application/vnd.oci.image.layer.v1.tar+gzip': 'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd': 'application/vnd.oci.image.layer.v1.tar+zstd',
  'application/vnd.docker.image.rootfs.diff.tar': 'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip': 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd': 'application/vnd.oci.image.layer.v1.tar+zstd',
};

/** Limits that keep an image from taking the agent's memory. */
export const limits = { documentBytes: 4 * 1024 * 1024, layers: 256 } as const;

/** The digest of some bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The id of a stack of layers: containerd's name for its snapshot. */
export function chainIdOf(diffIds: readonly string[]): string {
  let chain = '';
  for (const diffId of diffIds) chain = chain === '' ? diffId : digestOf(Buffer.from(`${chain} ${diffId}`));
  return chain;
}

/** True for the media types of an index. */
export function isIndexType(mediaType: string): boolean {
  return mediaType === mediaTypes.index || mediaType === mediaTypes.dockerIndex;
}

/** True for the media types of a manifest. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === mediaTypes.manifest || mediaType === mediaTypes.dockerManifest;
}

/**
 * Reads a manifest or an index. The media type is the one it states, else `mediaType`, else it shows by its fields; a document that
 * is both is refused (CVE-2021-41190). `where` names it in faults: "registry:5000/web:1".
 */
export function parseDocument(
  bytes: Uint8Array,
  mediaType: string,
  where: string,
): { readonly index: readonly IndexEntry[] } | { readonly manifest: Manifest } {
  const document = parseJson(bytes, where);
  if (document.manifests !== undefined && (document.layers !== undefined || document.config !== undefined))
    throw corrupt(where, 'it is both an index and a manifest');
  if (document.schemaVersion === 1)
    throw new Fault('unsupported', `${where}: manifest schema 1 is obsolete`, {
      remedy: 'push the image again with a current tool',
    });
  const type = typeof document.mediaType === 'string' ? document.mediaType : mediaType;
  if (isIndexType(type) || (!isManifestType(type) && Array.isArray(document.manifests))) {
    return { index: array(document.manifests, `${where}: manifests`).map((entry) => indexEntry(entry, where)) };
  }
  const layers = array(document.layers, `${where}: layers`);
  if (layers.length > limits.layers)
    throw new Fault('unsupported', `${where}: ${layers.length} layers, at most ${limits.layers}`);
  return {
    manifest: {
      config: descriptor(document.config, where),
      layers: layers.map((layer) => layerDescriptor(layer, where)),
    },
  };
}

/** The entry of an index for this platform: the exact variant, else one without, else the highest lower one. */
export function pickPlatform(entries: readonly IndexEntry[], platform: Platform, where: string): IndexEntry {
  const usable = entries.filter(
    (entry) =>
      (isManifestType(entry.mediaType) || entry.mediaType === '') &&
      entry.platform?.os === platform.os &&
      entry.platform.architecture === platform.architecture &&
      entry.platform.variant <= (platform.variant || defaultVariant(platform.architecture)),
  );
  const best = usable.sort((a, b) => b.platform!.variant.localeCompare(a.platform!.variant))[0];
  if (best) return best;
  const offered = entries
    .map((entry) => platformText(entry.platform))
    .filter((text) => text && !text.startsWith('unknown'));
  throw new Fault(
    'unsupported',
    `${where} has no image for ${platformText(platform)}, only for ${[...new Set(offered)].join(', ') || 'none'}`,
    {
      remedy: 'build it for this platform, or constrain the service to nodes of another',
    },
  );
}

/** Reads a config blob and checks that it is for this platform. */
export function parseConfig(bytes: Uint8Array, platform: Platform, where: string): ConfigBlob {
  const blob = parseJson(bytes, `${where}: config`);
  const found = { os: text(blob.os), architecture: text(blob.architecture), variant: text(blob.variant) };
  if ((found.os && found.os !== platform.os) || (found.architecture && found.architecture !== platform.architecture))
    throw new Fault('unsupported', `${where} is for ${platformText(found)}, this node is ${platformText(platform)}`, {
      remedy: 'build it for this platform, or constrain the service to nodes of another',
    });
  const diffIds = array(record(blob.rootfs).diff_ids ?? [], `${where}: rootfs.diff_ids`).map((id) => {
    if (typeof id !== 'string' || !isDigest(id)) throw corrupt(where, `rootfs.diff_ids has "${String(id)}"`);
    return id;
  });
  return { platform: found, diffIds, config: imageConfig(record(blob.config)) };
}

/** The known keys of a config, and nothing else: it comes from strangers. */
function imageConfig(config: Readonly<Record<string, unknown>>): ImageConfig {
  const check =
    config.Healthcheck === undefined || config.Healthcheck === null ? undefined : record(config.Healthcheck);
  const ms = (value: unknown) => (typeof value === 'number' && value > 0 ? Math.ceil(value / 1e6) : 0);
  return {
    entrypoint: texts(config.Entrypoint),
    command: texts(config.Cmd),
    env: texts(config.Env),
    user: text(config.User),
    workingDir: text(config.WorkingDir),
    volumes: Object.keys(record(config.Volumes)),
    stopSignal: text(config.StopSignal),
    labels: Object.fromEntries(
      Object.entries(record(config.Labels)).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
    ),
    exposedPorts: Object.keys(record(config.ExposedPorts)),
    healthCheck:
      check && texts(check.Test).length > 0
        ? {
            test: texts(check.Test),
            intervalMs: ms(check.Interval),
            timeoutMs: ms(check.Timeout),
            startPeriodMs: ms(check.StartPeriod),
            startIntervalMs: ms(check.StartInterval),
            retries: typeof check.Retries === 'number' ? check.Retries : 0,
          }
        : undefined,
  };
}

function layerDescriptor(value: unknown, where: string): Descriptor {
  const layer = descriptor(value, where);
  const mediaType = layerTypes[layer.mediaType];
  if (mediaType) return { ...layer, mediaType };
  throw new Fault('unsupported', `${where}: a layer of type "${layer.mediaType}"`, {
    remedy:
      layer.mediaType.includes('foreign') || layer.mediaType.includes('nondistributable')
        ? 'layers kept outside the registry are never fetched'
        : 'layers are tar, tar+gzip or tar+zstd',
  });
}

function indexEntry(value: unknown, where: string): IndexEntry {
  const entry = record(value);
  const platform = entry.platform === undefined ? undefined : record(entry.platform);
  return {
    ...descriptor(value, where),
    platform: platform && {
      os: text(platform.os),
      architecture: text(platform.architecture),
      variant: text(platform.variant),
    },
    annotations: record(entry.annotations) as Record<string, string>,
  };
}

function descriptor(value: unknown, where: string): Descriptor {
  const { mediaType, digest, size } = record(value);
  if (typeof digest !== 'string' || !isDigest(digest))
    throw corrupt(where, `"${String(digest)}" is not a sha256 digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw corrupt(where, `${digest} has no size`);
  return { mediaType: text(mediaType), digest, size };
}

/** A document as JSON; `corrupt` where it is none, `exhausted` where it is too long to be one. */
export function parseJson(bytes: Uint8Array, where: string): Readonly<Record<string, unknown>> {
  if (bytes.length > limits.documentBytes)
    throw corrupt(where, `a document of ${bytes.length} bytes, at most ${limits.documentBytes}`);
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw corrupt(where, 'not a JSON object');
}

/** `linux/arm64/v8`. */
export function platformText(platform: Platform | undefined): string {
  return platform ? [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/') : '';
}

function defaultVariant(architecture: string): string {
  return architecture === 'arm64' ? 'v8' : architecture === 'arm' ? 'v7' : architecture === 'amd64' ? 'v1' : '';
}

function corrupt(where: string, why: string): Fault {
  return new Fault('corrupt', `${where}: ${why}`, { remedy: 'push the image again' });
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function array(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw new Fault('corrupt', `${what} is missing`, { remedy: 'push the image again' });
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function texts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
}
