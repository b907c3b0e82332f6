/** What people are told when records change. */
import { describe, expect, it } from 'vitest';
import { eventsOf } from '#control-plane/events/events-of.ts';
import type { Applied } from '#control-plane/store/records.ts';
import { nodeId } from '#proto/model/ids.ts';
import { aCluster, aNetwork, aNode, aService, aTask, aTemplate } from '#test/support/builders.ts';

const told = (...changes: Applied[]) =>
  eventsOf({ revision: 7, changes }, 1_000).map(
    ({ kind, action, name, message }) => `${kind} ${action} ${name}: ${message}`,
  );
const web = aService('web');
const task = { ...aTask('web1'), state: 'running' as const };

describe('events', () => {
  it('carry the revision and the time', () => {
    expect(
      eventsOf({ revision: 7, changes: [{ table: 'service', key: web.id, before: undefined, after: web }] }, 1_000),
    ).toMatchObject([{ revision: 7, atMs: 1_000, kind: 'service', id: web.id }]);
  });

  it('tell what became of a service', () => {
    const change = (after: typeof web | undefined, before: typeof web | undefined = web): Applied => ({
      table: 'service',
      key: web.id,
      before,
      after,
    });
    expect(told({ table: 'service', key: web.id, before: undefined, after: web })).toEqual([
      'service created demo/web: 3 replicas of web:1',
    ]);
    expect(told(change({ ...web, spec: { ...web.spec, replicas: 5 }, updatedAtMs: 9 }))).toEqual([
      'service scaled demo/web: from 3 to 5 replicas',
    ]);
    const template = aTemplate({ container: { ...web.spec.template.container, image: 'web:2' } });
    expect(told(change({ ...web, revision: 2, spec: { ...web.spec, template } }))).toEqual([
      'service updated demo/web: revision 2: web:1 is now web:2',
    ]);
    expect(
      told(change({ ...web, rollout: { ...web.rollout, state: 'paused', message: 'web.1 is unhealthy' } })),
    ).toEqual(['service rollout-paused demo/web: web.1 is unhealthy']);
    expect(told(change({ ...web, removing: true }))).toEqual([
      'service removing demo/web: its tasks are being stopped',
    ]);
    expect(told(change(undefined))).toEqual(['service removed demo/web: removed']);
    expect(told(change(web))).toEqual([]);
  });

  it('tell where a task stands, why it failed and that it is told to stop, not each small step', () => {
    const change = (
      after: typeof task | Record<string, unknown>,
      before: typeof task | Record<string, unknown> = {},
    ): Applied =>
      ({ table: 'task', key: task.id, before: { ...task, ...before }, after: { ...task, ...after } }) as Applied;
    expect(told({ table: 'task', key: task.id, before: undefined, after: { ...task, why: 'scaled to 3' } })).toEqual([
      'task created web.1: scaled to 3',
    ]);
    expect(told(change({ state: 'failed', error: 'exit code 3' }))).toEqual(['task failed web.1: exit code 3']);
    expect(told(change({ state: 'failed', oomKilled: true }))).toEqual([
      'task failed web.1: killed for want of memory',
    ]);
    expect(told(change({ wanted: 'shutdown', why: 'scaled to 1' }))).toEqual(['task stopping web.1: scaled to 1']);
    expect(told(change({ health: 'unhealthy', message: 'no answer' }, { health: 'healthy' }))).toEqual([
      'task unhealthy web.1: no answer',
    ]);
    expect(told(change({ state: 'starting' }, { state: 'ready' }))).toEqual([]);
    expect(told({ table: 'task', key: task.id, before: task, after: undefined })).toEqual([]);
  });

  it('tell how nodes are', () => {
    const h1 = aNode('h1');
    const change = (after: Partial<typeof h1>): Applied => ({
      table: 'node',
      key: h1.id,
      before: h1,
      after: { ...h1, ...after },
    });
    expect(told({ table: 'node', key: h1.id, before: undefined, after: h1 })).toEqual([
      `node joined h1: ${h1.address}`,
    ]);
    expect(told(change({ state: 'down', message: 'silent for 1.5 s' }))).toEqual(['node down h1: silent for 1.5 s']);
    expect(told(change({ availability: 'drain' }))).toEqual(['node drain h1: availability was active']);
    expect(told(change({ labels: { zone: 'a' } }))).toEqual(['node labelled h1: zone=a']);
    expect(told(change({ bootId: 'other' }))).toEqual(['node rebooted h1: its tasks of before have ended']);
    expect(told({ table: 'node', key: h1.id, before: h1, after: undefined })).toEqual([
      'node removed h1: removed from the cluster',
    ]);
    expect(h1.id).toBe(nodeId(h1.id));
  });

  it('tell of networks, and not of the guard that goes with each change of them', () => {
    const [before, after] = [aNetwork('front'), aNetwork('front', [], { internal: true })];
    const change = (fields: { before?: typeof before; after?: typeof after }): Applied => ({
      ...{ table: 'network', key: 'front', before: undefined, after: undefined },
      ...fields,
    });
    expect(told(change({ after }))).toEqual(['cluster network-created front: network front']);
    expect(told(change({ before, after }))).toEqual(['cluster network-updated front: network front']);
    expect(told(change({ before }))).toEqual(['cluster network-removed front: network front']);
    const guard = { name: 'networks', touchedAtMs: 1 };
    expect(told({ table: 'guard', key: 'networks', before: undefined, after: guard })).toEqual([]);
  });

  it('never tell a secret', () => {
    const credential = { registry: 'registry:5000', username: 'ann', password: 'correct horse' };
    const lines = told({ table: 'credential', key: 'registry:5000', before: undefined, after: credential });
    expect(lines).toEqual(['cluster login registry:5000: login for registry:5000']);
  });

  it('tell what is wrong with a ready node, that it is well again, and where its subnet has gone', () => {
    const h1 = aNode('h1');
    const change = (after: Partial<typeof h1>, before: Partial<typeof h1> = {}): Applied => ({
      table: 'node',
      key: h1.id,
      before: { ...h1, ...before },
      after: { ...h1, ...after },
    });
    expect(told(change({ message: 'subnet x is taken' }))).toEqual(['node warned h1: subnet x is taken']);
    expect(told(change({}, { message: 'subnet x is taken' }))).toEqual(['node well h1: no more: subnet x is taken']);
    expect(told(change({ subnet: '10.192.9.0/24' }))).toEqual(['node subnet h1: 10.192.9.0/24, was 10.192.1.0/24']);
    expect(told(change({ subnet: '10.192.9.0/24' }, { subnet: '' }))).toEqual([]);
    expect(told(change({ foreignNetworks: ['10.0.0.0/8'], address6: 'fd00::1' }))).toEqual([]);
  });

  it('tell which settings of the cluster changed; an enrolment, which writes them unchanged, is none', () => {
    const cluster = aCluster();
    const change = (after: Partial<typeof cluster>): Applied => ({
      table: 'cluster',
      key: 'config',
      before: cluster,
      after: { ...cluster, ...after },
    });
    expect(told(change({}))).toEqual([]);
    expect(told(change({ encryption: 'wireguard', encapsulation: 'always' }))).toEqual([
      'cluster updated config: encapsulation always, was auto; encryption wireguard, was off',
    ]);
  });
});
