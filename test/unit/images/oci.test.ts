/** Manifests, indexes and configs of strangers, and where a registry may send us. */
import { describe, expect, it } from 'vitest';
import { checkStep, reachOf } from '#node-agent/images/http-get.ts';
import { chainIdOf, mediaTypes, parseConfig, parseDocument, pickPlatform } from '#node-agent/images/oci.ts';

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const digest = (char: string) => `sha256:${char.repeat(64)}`;
const config = { mediaType: mediaTypes.config, digest: digest('c'), size: 10 };
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digest('1'), size: 10 };

describe('documents', () => {
  it('what is both index and manifest is refused', () => {
    expect(() => parseDocument(bytes({ config, layers: [], manifests: [] }), mediaTypes.manifest, 'x')).toThrow('both');
  });

  it('layers kept outside the registry are refused, and addresses in them never looked at', () => {
    const foreign = {
      ...layer,
      mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
      urls: ['http://169.254.169.254/'],
    };
    expect(() => parseDocument(bytes({ config, layers: [foreign] }), mediaTypes.manifest, 'x')).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
    const document = parseDocument(
      bytes({ config, layers: [{ ...layer, urls: ['http://evil/'] }] }),
      mediaTypes.manifest,
      'x',
    );
    expect(document).toEqual({ manifest: { config, layers: [layer] } });
  });

  it.each([
    ['no JSON', Buffer.from('{')],
    ['a digest that is none', bytes({ config: { ...config, digest: 'sha256:../../x' }, layers: [] })],
    ['a negative size', bytes({ config, layers: [{ ...layer, size: -1 }] })],
    ['no layers', bytes({ config })],
  ])('%s is corrupt', (_, document) => {
    expect(() => parseDocument(document, mediaTypes.manifest, 'x')).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
  });

  it('of an index the best variant that this machine runs is picked', () => {
    const entry = (architecture: string, variant: string, char: string) => ({
      mediaType: mediaTypes.manifest,
      digest: digest(char),
      size: 1,
      annotations: {},
      platform: { os: 'linux', architecture, variant },
    });
    const entries = [
      entry('arm', 'v5', 'a'),
      entry('arm', 'v7', 'b'),
      entry('arm', 'v6', 'c'),
      entry('arm64', 'v8', 'd'),
      entry('amd64', '', 'e'),
    ];
    expect(pickPlatform(entries, { os: 'linux', architecture: 'arm', variant: 'v6' }, 'x').digest).toBe(digest('c'));
    expect(pickPlatform(entries, { os: 'linux', architecture: 'arm', variant: '' }, 'x').digest).toBe(digest('b'));
    expect(pickPlatform(entries, { os: 'linux', architecture: 'arm64', variant: '' }, 'x').digest).toBe(digest('d'));
    expect(pickPlatform(entries, { os: 'linux', architecture: 'amd64', variant: '' }, 'x').digest).toBe(digest('e'));
    expect(() => pickPlatform(entries, { os: 'linux', architecture: 's390x', variant: '' }, 'x')).toThrow(
      'linux/arm/v5',
    );
  });

  it('a config of strange types yields defaults, not a crash', () => {
    const odd = {
      architecture: 'amd64',
      os: 'linux',
      rootfs: { diff_ids: [digest('1')] },
      config: { Env: 'x', Cmd: [1, 'a'], User: {}, Labels: { a: 1, b: 'c' } },
    };
    const { config } = parseConfig(bytes(odd), { os: 'linux', architecture: 'amd64', variant: '' }, 'x');
    expect(config).toMatchObject({ env: [], command: ['a'], user: '', labels: { b: 'c' } });
  });

  it('chain ids are those of the OCI specification', () => {
    expect(chainIdOf([digest('a')])).toBe(digest('a'));
    // printf 'sha256:aaa… sha256:bbb…' | sha256sum
    expect(chainIdOf([digest('a'), digest('b')])).toBe(
      'sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c',
    );
  });
});

describe('where a registry may send us', () => {
  it.each([
    ['8.8.8.8', 0],
    ['10.1.2.3', 1],
    ['192.168.0.1', 1],
    ['fd00::1', 1],
    ['127.0.0.1', 2],
    ['::1', 2],
    ['::ffff:127.0.0.1', 2],
    ['169.254.169.254', 3],
    ['fe80::1', 3],
  ])('%s is of reach %d', (address, reach) => {
    expect(reachOf(address)).toBe(reach);
  });

  it('never from TLS to plain HTTP, and in plain HTTP only to hosts that were named', () => {
    const parts = { insecure: new Set(['registry:5000', 'store:9000']) };
    const step = (from: string, to: string) => () => checkStep(parts, new URL(from), new URL(to));
    expect(step('https://a/x', 'https://b/x')).not.toThrow();
    expect(step('https://a/x', 'http://a/x')).toThrow(expect.objectContaining({ code: 'forbidden' }));
    expect(step('https://a/x', 'http://store:9000/x')).toThrow();
    expect(step('http://registry:5000/x', 'http://store:9000/x')).not.toThrow();
    expect(step('http://registry:5000/x', 'http://other/x')).toThrow();
    expect(step('http://registry:5000/x', 'file:///etc/passwd')).toThrow();
  });
});
