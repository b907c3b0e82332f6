/** Holds what each node is sent, and what a change makes stale, to the state law. */
import { describe, expect, it } from 'vitest';
import {
  endpointOf,
  mark,
  nothingDirty,
  ownItemsOf,
  registryOf,
  servicesOnAny,
} from '#control-plane/dispatch/assign.ts';
import { sharedItem, sharedKeys } from '#control-plane/dispatch/shared-set.ts';
import type { Applied } from '#control-plane/store/records.ts';
import { LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { assignmentKey } from '#proto/model/assignment.ts';
import { serviceId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { containerSpec } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aCluster, aNetwork, aNode, aRevision, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';

const web = aService('web');
const [h1, h2] = [aNode('h1'), aNode('h2')];
const onH1 = { nodeId: h1.id, nodeName: 'h1', address: '10.192.1.2' } as const;

function snapshotOf(...tasks: Task[]): LiveSnapshot {
  const snapshot = new LiveSnapshot();
  for (const node of [h1, h2]) snapshot.apply('node', node.id, node, 1);
  snapshot.apply('service', web.id, web, 1);
  snapshot.apply('revision', `${web.id}/1`, { ...aRevision(web), imageDigest: 'sha256:pinned' }, 1);
  for (const task of tasks) snapshot.apply('task', task.id, task, 1);
  return snapshot;
}

function dirtyAfter(...changes: Applied[]) {
  const dirty = nothingDirty();
  mark(dirty, { revision: 2, changes });
  return dirty;
}
const taskChange = (before: Task | undefined, after: Task | undefined): Applied => ({
  table: 'task',
  key: (after ?? before)!.id,
  before,
  after,
});

describe('the full set of a node', () => {
  it('is all endpoints and nodes, and of its own the live tasks, and the logins they need, opened', () => {
    const mine = aTask('mine', onH1);
    const ended = aTask('ended', { ...onH1, state: 'failed' });
    const other = aTask('other', { ...onH1, nodeId: h2.id });
    const snapshot = snapshotOf(mine, ended, other);
    for (const registry of ['docker.io', 'unused.example']) {
      snapshot.apply('credential', registry, { registry, username: 'u', password: 'sealed' }, 1);
    }
    expect([...sharedKeys(snapshot)]).toEqual([`peer/${h1.id}`, `peer/${h2.id}`, `endpoint/${web.id}`]);
    const items = ownItemsOf(snapshot, h1.id, (one) => ({ ...one, password: 'open' }));
    expect(items.map(assignmentKey)).toEqual(['credential/docker.io', `task/${mine.id}`]);
    expect(items[0]).toMatchObject({ password: 'open' });
    expect(items[1]).toMatchObject({ imageDigest: 'sha256:pinned' });
  });
});

describe('a task', () => {
  it('comes with what the services that it links to are called, listen on and know', () => {
    const db = aService(
      'db',
      {
        ports: [{ target: 5432, published: 0, protocol: 'tcp', mode: 'ingress' }],
        template: aTemplate({ container: containerSpec('db:1', { env: ['USER=web'], expose: [9000] }) }),
      },
      { vip: '10.224.0.9' },
    );
    const links = [
      { service: 'db', alias: 'database' },
      { service: 'gone', alias: 'gone' },
    ];
    const template = aTemplate({ container: containerSpec('web:1', { links }) });
    const snapshot = snapshotOf(aTask('mine', onH1));
    snapshot.apply('revision', `${web.id}/1`, { ...aRevision(web), template }, 1);
    const itemOf = (service: typeof db) => {
      snapshot.apply('service', service.id, service, 1);
      return ownItemsOf(snapshot, h1.id, (one) => one).find((item) => item.kind === 'task')?.links;
    };
    const link = {
      alias: 'database',
      service: 'db',
      vip: '10.224.0.9',
      ports: [
        { number: 5432, protocol: 'tcp' },
        { number: 9000, protocol: 'tcp' },
      ],
      env: ['USER=web'],
      image: 'db:1',
      imageDigest: '',
    };
    expect(itemOf(db)).toEqual([link]);
    expect(itemOf({ ...db, spec: { ...db.spec, endpointMode: 'dnsrr' } })).toEqual([{ ...link, vip: '' }]);
    expect(itemOf({ ...db, removing: true })).toEqual([]);
  });
});

describe('an endpoint', () => {
  it('has the running tasks by slot, serving only where traffic may go', () => {
    const running = aTask('b', { ...onH1, slot: 2 });
    const stopping = aTask('a', { ...onH1, slot: 1, wanted: 'shutdown' });
    const starting = aTask('c', { ...onH1, slot: 3, state: 'starting' });
    const { backends } = endpointOf(snapshotOf(running, stopping, starting), web);
    expect(backends.map(({ slot, serving }) => [slot, serving])).toEqual([
      [1, false],
      [2, true],
    ]);
  });
});

describe('a change', () => {
  const task = aTask('t', { ...onH1, state: 'assigned' });

  it('of what is wanted goes to the node that has the task, and to no other', () => {
    const dirty = dirtyAfter(taskChange(task, { ...task, wanted: 'shutdown' }));
    expect([...dirty.tasks]).toEqual([[h1.id, new Set([task.id])]]);
    expect(dirty.endpoints.size).toBe(0);
  });

  it("that is the agent's own report is not sent back to it", () => {
    expect(dirtyAfter(taskChange(task, { ...task, state: 'preparing', message: 'x' })).tasks.size).toBe(0);
  });

  it('that ends a task takes it from its node, and its backend from all', () => {
    const running = { ...task, state: 'running' } as const;
    const dirty = dirtyAfter(taskChange(running, { ...running, state: 'failed' }));
    expect([...dirty.tasks.keys()]).toEqual([h1.id]);
    expect([...dirty.endpoints]).toEqual([web.id]);
  });

  it('of a service matters only where the network sees it', () => {
    const scaled = { ...web, spec: { ...web.spec, replicas: 9 } };
    const moved = { ...web, vip: '10.224.0.9' };
    const change = (after: typeof web): Applied => ({ table: 'service', key: web.id, before: web, after });
    expect(dirtyAfter(change(scaled)).endpoints.size).toBe(0);
    expect([...dirtyAfter(change(moved)).endpoints]).toEqual([serviceId(idOf('web'))]);
  });

  it('of a node is told to the others where its address or subnet changed', () => {
    const change = (after: typeof h1): Applied => ({ table: 'node', key: h1.id, before: h1, after });
    expect(dirtyAfter(change({ ...h1, state: 'down' })).peers.size).toBe(0);
    const dirty = dirtyAfter(change({ ...h1, subnet: '10.192.9.0/24' }));
    expect([[...dirty.peers], [...dirty.records]]).toEqual([[h1.id], [h1.id]]);
  });
});

describe('the registry of an image', () => {
  it.each([
    ['web:1', 'docker.io'],
    ['library/web', 'docker.io'],
    ['localhost/web', 'localhost'],
    ['registry:5000/web:1', 'registry:5000'],
    ['r.example/a/b@sha256:0', 'r.example'],
  ])('%s is %s', (image, registry) => expect(registryOf(image)).toBe(registry));
});

describe('a network', () => {
  const front = aNetwork('shop_front', [], { ipv6: true });
  const joined = aService('web', {
    template: aTemplate({ networks: [{ network: 'shop_front', aliases: ['www'], ipv4Address: '' }] }),
  });

  it('goes to every node, as the services that are on it, which say whether they have IPv6', () => {
    const snapshot = snapshotOf();
    snapshot.apply('network', front.spec.name, front, 1);
    snapshot.apply('service', joined.id, joined, 1);
    expect([...sharedKeys(snapshot)].slice(2)).toEqual(['network/shop_front', `endpoint/${joined.id}`]);
    expect(sharedItem(snapshot, 'network/shop_front')).toMatchObject({ kind: 'network', spec: { ipv6: true } });
    const endpoint = endpointOf(snapshot, joined);
    expect(endpoint.networks).toEqual([{ network: 'shop_front', aliases: ['www'] }]);
    expect(endpoint.ipv6).toBe(true);
    expect(servicesOnAny(snapshot, new Set(['shop_front']))).toEqual([joined.id]);
  });

  it('is sent when it changes; its services only where their IPv6 does', () => {
    const change = (after: typeof front | undefined, before: typeof front | undefined = front) =>
      dirtyAfter({ table: 'network', key: front.spec.name, before, after });
    const internal = change({ ...front, spec: { ...front.spec, internal: true } });
    expect([...internal.networks]).toEqual(['shop_front']);
    expect([...internal.ipv6]).toEqual([]);
    expect([...change({ ...front, spec: { ...front.spec, ipv6: false } }).ipv6]).toEqual(['shop_front']);
    expect([...change(undefined).networks]).toEqual(['shop_front']);
  });

  it('that a service joins makes its endpoint stale, as callers, stickiness and addresses do', () => {
    const plain = aService('web');
    const other = { ...plain, spec: { ...plain.spec, sticky: 'client' as const } };
    const closed = { ...plain, spec: { ...plain.spec, allowFrom: { services: [] } } };
    for (const after of [joined, other, closed])
      expect([...dirtyAfter({ table: 'service', key: plain.id, before: plain, after }).endpoints]).toEqual([plain.id]);
    const task = aTask('a', onH1);
    const further = { ...task, addresses: [{ network: 'shop_front', address: '172.28.0.2' }] };
    expect([...dirtyAfter(taskChange(task, further)).tasks]).toEqual([[h1.id, new Set([task.id])]]);
  });
});

it('what is true of the whole cluster makes every welcome stale', () => {
  const before = { ...aCluster() };
  const change = (after: typeof before) => dirtyAfter({ table: 'cluster', key: 'config', before, after });
  expect(change({ ...before, encapsulation: 'always' }).cluster).toBe(true);
  expect(change({ ...before }).cluster).toBe(false);
});

describe('the record of a node', () => {
  const records = (before: Node, after: Node | undefined) => [
    ...dirtyAfter({ table: 'node', key: h1.id, before, after }).records,
  ];

  it('is news for its agent where that acts on what has changed, or it has gone', () => {
    expect(records(h1, { ...h1, subnet: '10.192.9.0/24' })).toEqual([h1.id]);
    expect(records(h1, undefined)).toEqual([h1.id]);
    expect(records(h1, { ...h1, unaccounted: true })).toEqual([]);
  });

  it('is always news while it is fenced: the agent is to say that it holds that revision before it has a lease again', () => {
    const fenced = { ...h1, fenced: true };
    expect(records(fenced, { ...fenced, unaccounted: true })).toEqual([h1.id]);
  });
});
