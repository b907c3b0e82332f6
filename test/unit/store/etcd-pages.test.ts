/** Holds the list of all keys to pages of bounded size, whatever lies under them. */
import { expect, it } from 'vitest';
import type { EtcdClient } from '#control-plane/store/etcd-client.ts';
import { pagesOf } from '#control-plane/store/etcd-watch.ts';

interface Asked {
  readonly key: Buffer;
  readonly range_end: Buffer;
  readonly limit: number;
  readonly revision?: number;
}

/** An etcd at revision 7 with these values, in the order of their keys. */
function etcdWith(values: readonly Buffer[]): { readonly client: EtcdClient; readonly asked: Asked[] } {
  const kvs = values.map((value, index) => {
    return { key: Buffer.from(`/x/${String(index).padStart(6, '0')}`), value, mod_revision: '7' };
  });
  const asked: Asked[] = [];
  const range = async (request: Asked) => {
    asked.push(request);
    const first = kvs.findIndex(({ key }) => Buffer.compare(key, request.key) >= 0);
    const page = first < 0 ? [] : kvs.slice(first, first + request.limit);
    return { header: { revision: '7' }, kvs: page, more: first + request.limit < kvs.length };
  };
  return { client: { kv: { range } } as never, asked };
}

async function sizesOf(client: EtcdClient): Promise<{ keys: number[]; bytes: number[] }> {
  const sizes = { keys: [] as number[], bytes: [] as number[] };
  for await (const { entries } of pagesOf(client, '/x/')) {
    sizes.keys.push(entries.length);
    sizes.bytes.push(entries.reduce((sum, { value }) => sum + value.length, 0));
  }
  return sizes;
}

it('F9: small records come by the thousand, and all at the revision of the first page', async () => {
  const { client, asked } = etcdWith(Array<Buffer>(20_000).fill(Buffer.alloc(500)));
  const { keys } = await sizesOf(client);
  expect(keys.reduce((sum, count) => sum + count)).toBe(20_000);
  expect(keys.length).toBeLessThan(16);
  expect(asked.slice(1).every(({ revision }) => revision === 7)).toBe(true);
});

it('F9: large ones come a few at a time, and what is small after them by the thousand again', async () => {
  const mebi = 1 << 20;
  const contents = Array<Buffer>(200).fill(Buffer.alloc(mebi));
  const { client } = etcdWith([...contents, ...Array<Buffer>(5_000).fill(Buffer.alloc(500))]);
  const { keys, bytes } = await sizesOf(client);
  expect(bytes[0]).toBe(10 * mebi);
  expect(Math.max(...bytes.slice(1))).toBeLessThanOrEqual(3 * mebi);
  expect(Math.max(...keys.slice(-3))).toBeGreaterThan(500);
});

it('lists what is empty', async () => {
  const { client } = etcdWith([]);
  expect((await sizesOf(client)).keys).toEqual([0]);
});
