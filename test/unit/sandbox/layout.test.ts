/** Names and addresses of a sandbox, and what its sample image is made of. */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { layoutOf, sandboxRoot } from '#node-agent/sandbox/layout.ts';
import { buildSampleImage } from '#node-agent/sandbox/sample-image.ts';

test.for(['', '..', 'a/b', 'A', '-a', 'a'.repeat(32)])('"%s" names no sandbox', (name) => {
  expect(() => layoutOf(name, '/x')).toThrow('cannot name a sandbox');
});

test('a root too deep for unix sockets is refused with the way out', () => {
  expect(() => layoutOf('a', `/${'deep/'.repeat(15)}`)).toThrow('too long for unix sockets');
});

test('the environment may move the root', () => {
  expect(sandboxRoot({})).toBe('/var/lib/gantry/sandbox');
  expect(sandboxRoot({ GANTRY_SANDBOX_ROOT: '/x' })).toBe('/x');
});

test('the sample image names its blobs by their digests, and is the same each time it is built', async () => {
  const [one, again, other] = [await buildSampleImage('1'), await buildSampleImage('1'), await buildSampleImage('2')];
  const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  expect(one.digest).toBe(sha256(one.manifest));
  const manifest = JSON.parse(one.manifest.toString()) as {
    config: { digest: string; size: number };
    layers: { digest: string; size: number }[];
  };
  for (const { digest, size } of [manifest.config, ...manifest.layers]) {
    const blob = one.blobs.get(digest) as Buffer;
    expect(sha256(blob)).toBe(digest);
    expect(blob.length).toBe(size);
  }
  expect(again.digest).toBe(one.digest);
  expect(other.digest).not.toBe(one.digest);
});
