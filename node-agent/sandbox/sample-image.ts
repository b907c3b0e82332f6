/** A real image that needs no network: busybox and a small web responder, built here layer by layer and pushed by the registry's own protocol. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { type Header, pack } from 'tar-stream';
import { Fault } from '#proto/kernel/errors.ts';
import { exchange } from './exchange.ts';
import { firstManager, registryName } from './layout.ts';
import type { Sandbox } from './sandbox.ts';
import { managerAddress } from './topology.ts';

/** What the image does: answer on port 8080, or end at once with code 1. */
export type SampleKind = 'serve' | 'broken';

/** An image as content: blobs by digest, and the manifest that names them. */
export interface BuiltImage {
  readonly digest: string;
  readonly manifest: Buffer;
  readonly blobs: ReadonlyMap<string, Buffer>;
}

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const configType = 'application/vnd.oci.image.config.v1+json';
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** The web responder: one request per busybox nc -e; every answer names the task and the version. */
function responder(version: string): string {
  return `#!/bin/sh
read -r method path rest
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
case "$path" in
/healthz) body=ok ;;
/exit) body=bye ;;
*) body="hello from $(hostname), version ${version}" ;;
esac
printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s\\n' "$((\${#body} + 1))" "$body"
echo "$method $path" >&2
[ "$path" != /exit ] || kill -USR1 1
`;
}

/** PID 1: passes SIGTERM on to nobody but ends at once, as a stop expects. */
function entry(kind: SampleKind, version: string): string {
  if (kind === 'broken') return `#!/bin/sh\necho 'version ${version} cannot start' >&2\nexit 1\n`;
  return `#!/bin/sh
trap 'echo "asked to stop"; kill $server; exit 0' TERM INT
trap 'kill $server; exit 3' USR1
echo "version ${version} listens on 8080 as $(hostname)"
nc -ll -p 8080 -e /bin/responder &
server=$!
wait $server
`;
}

/** Builds the image for this machine's architecture. Throws `precondition` without busybox-static. */
export async function buildSampleImage(version: string, kind: SampleKind = 'serve'): Promise<BuiltImage> {
  const base = await layerOf((add) => {
    for (const dir of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root'])
      add({ name: `${dir}/`, type: 'directory', mode: 0o755 });
    add({ name: 'bin/busybox', mode: 0o755 }, busybox());
    for (const applet of applets) add({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox' });
    add(
      { name: 'etc/passwd', mode: 0o644 },
      'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
    );
    add({ name: 'etc/group', mode: 0o644 }, 'root:x:0:\nnogroup:x:65534:\n');
  });
  const program = await layerOf((add) => {
    add({ name: 'bin/responder', mode: 0o755 }, responder(version));
    add({ name: 'bin/entry', mode: 0o755 }, entry(kind, version));
  });
  const layers = [base, program];
  const config = Buffer.from(
    JSON.stringify({
      created: '2026-01-01T00:00:00Z',
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: {
        Entrypoint: ['/bin/entry'],
        Env: ['PATH=/bin', `VERSION=${version}`],
        ExposedPorts: { '8080/tcp': {} },
        StopSignal: 'SIGTERM',
      },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
      history: layers.map(() => ({ created_by: 'gantry sandbox push' })),
    }),
  );
  const descriptor = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: descriptor(configType, config),
      layers: layers.map((layer) => descriptor(layerType, layer.bytes)),
    }),
  );
  const blobs = new Map([config, ...layers.map((layer) => layer.bytes)].map((bytes) => [digestOf(bytes), bytes]));
  return { digest: digestOf(manifest), manifest, blobs };
}

/** What `NAME:TAG` means in the sandbox's registry; that registry in front is as good. Faults: `invalid`. */
export function registryImage(image: string): { readonly repository: string; readonly tag: string } {
  const within = image.startsWith(`${registryName}/`) ? image.slice(registryName.length + 1) : image;
  const [, repository, tag = 'latest'] =
    /^([a-z0-9][a-z0-9/_.-]*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]*))?$/.exec(within) ?? [];
  if (repository === undefined)
    throw new Fault('invalid', `"${image}" is not an image name of this registry`, { remedy: 'write NAME:TAG' });
  return { repository, tag };
}

/** Builds and pushes `image` ("hello:1") to the sandbox's registry; resolves to its full name. A tag `broken` ends at once. */
export async function pushSampleImage(sandbox: Pick<Sandbox, 'layout'>, image: string): Promise<string> {
  const { repository, tag } = registryImage(image);
  const built = await buildSampleImage(tag, tag.startsWith('broken') ? 'broken' : 'serve');
  await pushImage(sandbox, repository, tag, built);
  return `${registryName}/${repository}:${tag}`;
}

/** Pushes any image, blobs first. Rejects with `unavailable` where the registry does not answer. */
export async function pushImage(
  sandbox: Pick<Sandbox, 'layout'>,
  repository: string,
  tag: string,
  image: BuiltImage,
): Promise<void> {
  const registry = {
    gateway: sandbox.layout.gatewaySocket,
    target: `${managerAddress(firstManager)}:5000`,
    host: registryName,
  };
  const send = (method: string, path: string, type: string, body: Buffer) =>
    exchange(registry, { method, path, type, body });
  for (const [digest, bytes] of image.blobs) {
    if ((await send('HEAD', `/v2/${repository}/blobs/${digest}`, '', Buffer.alloc(0))).status === 200) continue;
    const begun = await send('POST', `/v2/${repository}/blobs/uploads/`, '', Buffer.alloc(0));
    const location = new URL(begun.location ?? '', `http://${registryName}`);
    location.searchParams.set('digest', digest);
    const put = await send('PUT', `${location.pathname}${location.search}`, 'application/octet-stream', bytes);
    if (put.status !== 201) throw new Fault('internal', `the registry refused the blob ${digest}: HTTP ${put.status}`);
  }
  const put = await send('PUT', `/v2/${repository}/manifests/${tag}`, manifestType, image.manifest);
  if (put.status !== 201)
    throw new Fault('internal', `the registry refused the manifest of ${repository}:${tag}: HTTP ${put.status}`);
}

const applets = (
  'sh ash cat echo ls ps sleep env id hostname nc wget ping ip mount umount true false kill grep sed awk cut head tail wc ' +
  'date dd df du find free mkdir mv cp rm rmdir ln chmod chown touch test tr sort uniq seq stat tar gzip gunzip top vi ' +
  'nslookup netstat telnet sync uname uptime whoami yes xargs md5sum sha256sum stty tty ulimit nproc printf readlink'
).split(' ');

function busybox(): Buffer {
  try {
    return readFileSync('/bin/busybox');
  } catch (cause) {
    throw new Fault('precondition', 'the sample image needs /bin/busybox', {
      cause,
      remedy: 'apt-get install busybox-static',
    });
  }
}

async function layerOf(
  fill: (add: (header: Partial<Header> & { name: string }, content?: Buffer | string) => void) => void,
): Promise<{ readonly bytes: Buffer; readonly diffId: string }> {
  const layer = pack();
  // A time of its own for each build would be another image each time.
  fill((header, content) => layer.entry({ ...header, mtime: new Date(0) }, content ?? ''));
  layer.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of layer) chunks.push(chunk as Buffer);
  const tar = Buffer.concat(chunks);
  return { bytes: gzipSync(tar, { level: 6 }), diffId: digestOf(tar) };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
