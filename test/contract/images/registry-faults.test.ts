/** Registries that lie, break, drip and ask for passwords: what is pulled is right, or the fault says what was wrong. */
import type http from 'node:http';
import nodeHttp from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ContainerdImages, containerdImages } from '#node-agent/images/containerd-images.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { startContainerd, type TestContainerd } from '#test/support/containerd.ts';
import {
  closeServer,
  listen,
  type Spoiler,
  startRegistry,
  startSpoiledRegistry,
  startTokenRegistry,
  type TestRegistry,
  testLogin,
} from '#test/support/registry.ts';
import { hostPlatform, pushImage, type SampleImage, sampleImage } from '#test/support/sample-image.ts';

let containerd: TestContainerd;
let registry: TestRegistry;
const open: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  containerd = await startContainerd();
  registry = await startRegistry();
});
afterAll(async () => {
  for (const part of open) await part.stop();
  await registry?.stop();
  await containerd?.stop();
});

async function images(hosts: readonly string[], authHosts: Record<string, string> = {}): Promise<ContainerdImages> {
  const made = await containerdImages({
    socket: containerd.socket,
    platform: hostPlatform,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    insecureRegistries: hosts,
    authHosts,
    stallMs: 400,
  });
  open.push({ stop: async () => made.close() });
  return made;
}

let counter = 0;
/** A fresh image behind a registry that spoils some answers. */
async function spoiled(make: (image: SampleImage) => Spoiler) {
  const image = await sampleImage({ files: { unique: `${counter++} ${'x'.repeat(200_000)}` }, compression: 'none' });
  await pushImage(image, registry.host, 'web', String(counter));
  const proxy = await startSpoiledRegistry(registry.host, make(image));
  open.push(proxy);
  return { image, proxy, reference: `${proxy.host}/web:${counter}`, store: await images([proxy.host]) };
}
const isLayer = (request: http.IncomingMessage, image: SampleImage) =>
  request.url!.endsWith(`/blobs/${image.layers[0]!.digest}`);
const request = (reference: string) => ({ reference, digest: '', pullPolicy: 'always' as const });

describe('a registry that breaks', () => {
  it('a blob cut short goes on where it broke', async () => {
    let cuts = 0;
    const { image, proxy, reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image) || request.headers.range || cuts++ > 0) return false;
      const { bytes } = image.layers[0]!;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 300_000), () => response.destroy());
      return true;
    });
    expect((await store.ensure(request(reference))).digest).toBe(image.root.digest);
    const ranges = proxy.requests.map(({ headers }) => headers.range).filter(Boolean);
    expect(ranges).toHaveLength(1);
    expect(Number(/bytes=(\d+)-/.exec(ranges[0]!)![1])).toBeGreaterThan(0);
  });

  it('a registry that knows no ranges is read from the start again', async () => {
    let cuts = 0;
    const { image, reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image)) return false;
      const { bytes } = image.layers[0]!;
      response.writeHead(200, { 'content-length': bytes.length });
      if (cuts++ === 0) response.write(bytes.subarray(0, 300_000), () => response.destroy());
      else response.end(bytes);
      return true;
    });
    expect((await store.ensure(request(reference))).digest).toBe(image.root.digest);
  });

  it('F23: a blob of other bytes is corrupt, and a later honest pull succeeds', async () => {
    let lies = true;
    const { image, reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image) || !lies) return false;
      const bytes = Buffer.from(image.layers[0]!.bytes);
      bytes[bytes.length - 5_000]! ^= 1;
      response.end(bytes);
      return true;
    });
    await expect(store.ensure(request(reference))).rejects.toMatchObject({ code: 'corrupt' });
    lies = false;
    expect((await store.ensure(request(reference))).digest).toBe(image.root.digest);
  });

  it('a manifest that is not its digest is corrupt', async () => {
    const { image, reference, store } = await spoiled((image) => (request, response) => {
      if (!request.url!.includes('/manifests/')) return false;
      response.writeHead(200, { 'content-type': image.root.mediaType });
      response.end(Buffer.concat([image.root.bytes, Buffer.from(' ')]));
      return true;
    });
    await expect(store.ensure({ ...request(reference), digest: image.root.digest })).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  it('429 is waited out as the registry asks', async () => {
    let refusals = 0;
    const { image, reference, store } = await spoiled(() => (request, response) => {
      if (!request.url!.includes('/manifests/') || refusals >= 2) return false;
      refusals++;
      response.writeHead(429, { 'retry-after': '0' }).end();
      return true;
    });
    expect((await store.ensure(request(reference))).digest).toBe(image.root.digest);
    expect(refusals).toBe(2);
  });

  it('a connection that stalls in the middle is dropped and resumed', async () => {
    let stalls = 0;
    const { image, reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image) || stalls++ > 0) return false;
      response.writeHead(200, { 'content-length': image.layers[0]!.bytes.length });
      response.write(image.layers[0]!.bytes.subarray(0, 100_000));
      return true;
    });
    expect((await store.ensure(request(reference))).digest).toBe(image.root.digest);
  });

  it('F23: a registry that drips is given up', async () => {
    const { reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image)) return false;
      response.writeHead(200, { 'content-length': image.layers[0]!.bytes.length });
      const timer = setInterval(() => response.write('x'), 100);
      response.on('close', () => clearInterval(timer));
      return true;
    });
    const failure = await store.ensure(request(reference)).catch((error: unknown) => error);
    // What dripped in is not the layer: it ends as broken bytes or as a stall, never as an image.
    expect(failure).toMatchObject({ code: expect.stringMatching(/unavailable|corrupt/) });
  });

  it('one that never answers is unavailable within seconds', async () => {
    const { reference, store } = await spoiled(() => () => true);
    await expect(store.ensure(request(reference))).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('a blob longer than its manifest says is corrupt', async () => {
    const { reference, store } = await spoiled((image) => (request, response) => {
      if (!isLayer(request, image)) return false;
      response.end(Buffer.concat([image.layers[0]!.bytes, Buffer.alloc(10_000)]));
      return true;
    });
    await expect(store.ensure(request(reference))).rejects.toMatchObject({ code: 'corrupt' });
  });
});

describe('logins', () => {
  const login = (host: string) => ({ registry: host, ...testLogin });

  it('a password registry takes its own login, says what is missing without one, and refuses a wrong one', async () => {
    const locked = await startRegistry('basic');
    open.push(locked);
    const image = await sampleImage({ files: { locked: 'basic' } });
    await pushImage(image, locked.host, 'secret', '1', locked.pushHeaders);
    const store = await images([locked.host]);
    const reference = `${locked.host}/secret:1`;
    await expect(store.ensure(request(reference))).rejects.toMatchObject({
      code: 'unauthenticated',
      remedy: expect.stringContaining('gantry login'),
    });
    await expect(
      store.ensure({ ...request(reference), credential: { ...login(locked.host), password: 'wrong' } }),
    ).rejects.toMatchObject({ code: 'unauthenticated' });
    await expect(store.ensure({ ...request(reference), credential: login('elsewhere:5000') })).rejects.toMatchObject({
      code: 'unauthenticated',
    });
    expect((await store.ensure({ ...request(reference), credential: login(locked.host) })).digest).toBe(
      image.root.digest,
    );
  });

  it('a token registry is answered with a token from its own service, asked for once', async () => {
    const tokens = await startTokenRegistry();
    open.push(tokens);
    const image = await sampleImage({ layers: 3, files: { locked: 'token' } });
    await pushImage(image, tokens.host, 'secret', '1');
    const store = await images([tokens.host]);
    expect((await store.ensure({ ...request(`${tokens.host}/secret:1`), credential: login(tokens.host) })).digest).toBe(
      image.root.digest,
    );
    expect(tokens.shown).toHaveLength(1);
    await expect(store.ensure(request(`${tokens.host}/secret:1`))).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('a realm on a strange host gets no login', async () => {
    const heard: (string | undefined)[] = [];
    const thief = nodeHttp.createServer((request, response) => {
      heard.push(request.headers.authorization);
      response.end(JSON.stringify({ token: 'x' }));
    });
    const thiefHost = await listen(thief);
    open.push({ stop: () => closeServer(thief) });
    const { proxy, reference } = await spoiled(() => (_request, response) => {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${thiefHost}/token",service="s"` }).end();
      return true;
    });
    const store = await images([proxy.host, thiefHost]);
    await expect(store.ensure({ ...request(reference), credential: login(proxy.host) })).rejects.toMatchObject({
      code: 'forbidden',
    });
    expect(heard).toEqual([]);
  });

  it('a redirect takes no login along, and none goes to a host in plain HTTP that nobody named', async () => {
    const heard: (string | undefined)[] = [];
    let bytes: Buffer = Buffer.alloc(0);
    const elsewhere = nodeHttp.createServer((request, response) => {
      heard.push(request.headers.authorization);
      response.end(bytes);
    });
    const elsewhereHost = await listen(elsewhere);
    open.push({ stop: () => closeServer(elsewhere) });
    const { image, proxy, reference, store } = await spoiled((image) => (request, response) => {
      if (!request.headers.authorization) response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
      else if (isLayer(request, image)) response.writeHead(307, { location: `http://${elsewhereHost}/blob` }).end();
      else return false;
      return true;
    });
    bytes = image.layers[0]!.bytes;
    const asked = { ...request(reference), credential: login(proxy.host) };
    await expect(store.ensure(asked)).rejects.toMatchObject({
      code: 'forbidden',
      message: expect.stringContaining('TLS'),
    });
    const trusting = await images([proxy.host, elsewhereHost]);
    expect((await trusting.ensure(asked)).digest).toBe(image.root.digest);
    expect(heard).toEqual([undefined]);
  });

  it('a registry that is not configured as insecure is not spoken to in plain HTTP', async () => {
    const store = await images([]);
    await expect(store.ensure(request(`${registry.host}/web:1`))).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('TLS'),
    });
  });
});
