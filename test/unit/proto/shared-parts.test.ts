/** Holds both ends to the same digests of the same items, however they came to hold them. */
import { describe, expect, it } from 'vitest';
import { Inventory } from '#node-agent/inventory.ts';
import { Journal, type JournalFile } from '#node-agent/journal.ts';
import { Assignment } from '#proto/gen/gantry/v1/agent.ts';
import type { AssignmentItem, Endpoint } from '#proto/model/assignment.ts';
import { assignmentKey } from '#proto/model/assignment.ts';
import { assignmentFromWire, assignmentToWire } from '#proto/model/wire.ts';
import { digestsIn, PartDigests, partCount, partOf } from '#proto/shared-parts.ts';
import { endpoint as anEndpoint, backend, clusterNetwork, peer } from '#test/support/endpoint.ts';

const endpoint = (name: string, fields: Partial<Endpoint> = {}): AssignmentItem => {
  return { kind: 'endpoint', ...anEndpoint(name, fields) };
};
const items: readonly AssignmentItem[] = [
  endpoint('web', { ports: [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }], sticky: 'client' }),
  endpoint('db', {
    backends: [backend('10.192.1.2'), backend('10.192.1.3', { serving: false })],
    holdMs: 5_000,
    counted: true,
    aliases: ['b', 'a'],
  }),
  { kind: 'peer', ...peer('h2', '10.90.0.2', '10.192.1.0/24', { segment: 'rack-1' }) },
  { kind: 'network', ...clusterNetwork('shop/back', { labels: { tier: 'back', '7': 'seven' } }) },
];
function digestsOf(items: readonly AssignmentItem[]): PartDigests {
  const digests = new PartDigests();
  for (const item of items) digests.put(assignmentToWire(item));
  return digests;
}
const overWire = (item: AssignmentItem) =>
  assignmentFromWire(Assignment.decode(Assignment.encode(assignmentToWire(item)).finish()))!;

describe('digests of parts', () => {
  it('do not follow from the order of items, nor from what else was there meanwhile', () => {
    const digests = digestsOf([...items].reverse());
    digests.put(assignmentToWire(endpoint('gone')));
    digests.put(assignmentToWire(endpoint('web', { vip: '10.224.7.7' })));
    digests.put(assignmentToWire(items[0]!));
    digests.remove(assignmentKey(endpoint('gone')));
    expect(digests.all()).toEqual(digestsOf(items).all());
  });

  it.each([
    ['other content', endpoint('web')],
    ['another item', endpoint('more')],
  ])('differ by %s, in its part alone', (_, item) => {
    const [before, after] = [digestsOf(items), digestsOf(items)];
    after.put(assignmentToWire(item));
    const parts = Array.from({ length: partCount }, (_, part) => part);
    expect(parts.filter((part) => before.of(part) !== after.of(part))).toEqual([partOf(assignmentKey(item))]);
  });

  it('are read as they were written, and those of another number of parts are none', () => {
    const digests = digestsOf(items);
    expect(digestsIn(digests.all())).toEqual(Array.from({ length: partCount }, (_, part) => digests.of(part)));
    expect(digestsIn(Buffer.alloc(0))).toBeUndefined();
    expect(digestsIn(digests.all().subarray(16))).toBeUndefined();
  });

  it('are the same of what was received, and of what an agent finds in its journal', () => {
    const told = digestsOf(items).all();
    const received = items.map(overWire);
    expect(new Inventory(received).held()).toEqual(told);
    expect(new Inventory(journalled(received)).held()).toEqual(told);
  });

  it('are others where an older agent wrote its journal without what is not at its default', () => {
    const older = JSON.parse(
      JSON.stringify(overWire(items[1]!), (key, value) => (key === 'holdMs' ? undefined : value)),
    );
    const [read] = journalled([older]);
    expect(read).toMatchObject({ holdMs: 0, counted: true });
    expect(new Inventory([read!]).held()).not.toEqual(digestsOf([items[1]!]).all());
  });

  it('are not of words that only a newer agent wrote', () => {
    const newer = { ...items[1]!, mode: 'anycast' } as unknown as AssignmentItem;
    expect(journalled([newer, items[0]!]).map(assignmentKey)).toEqual([assignmentKey(items[0]!)]);
  });
});

/** As the next run of an agent reads them. */
function journalled(items: readonly AssignmentItem[]): AssignmentItem[] {
  let text = '';
  const file: JournalFile = {
    read: () => text,
    append: (line) => {
      text += line;
    },
    replace: (whole) => {
      text = whole;
    },
  };
  new Journal(file).setItems(items, []);
  return new Journal(file).items();
}
