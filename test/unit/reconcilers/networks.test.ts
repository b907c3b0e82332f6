/** What tasks are reached by: addresses of their networks, of their hosts, or of the tasks they are beside; and when networks go. */
import { describe, expect, it } from 'vitest';
import { reapUnused } from '#control-plane/reconcilers/network-changes.ts';
import {
  removeService,
  rollbackService,
  scaleService,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import type { NetworkAttachment } from '#proto/model/network.ts';
import { containerSpec, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { aNetwork, aNode, aRevision, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nodes = () => ['h1', 'h2', 'h3'].map((name) => aNode(name));
const on = (network: string, ipv4Address = ''): NetworkAttachment => ({ network, aliases: [], ipv4Address });
const joined = (...networks: NetworkAttachment[]) => aTemplate({ networks });

function clusterOf(networks: Parameters<typeof aNetwork>[], ...services: Service[]): DecidedCluster {
  const cluster = new DecidedCluster(nodes());
  for (const network of networks) cluster.put('network', aNetwork(...network));
  for (const service of services) {
    cluster.put('service', service);
    cluster.put('revision', aRevision(service));
  }
  return cluster;
}

const addressesOf = (tasks: readonly Task[]) =>
  tasks.map(({ addresses }) => addresses.map(({ address }) => address).join());

describe('a task on networks with subnets', () => {
  it('has an address of each beside its own, never the gateway’s nor one that is set aside', () => {
    const web = aService('web', { replicas: 2, template: joined(on('back'), on('plain'), on('front')) });
    const cluster = clusterOf([['back'], ['plain'], ['front']], web);
    const subnet = { subnet: '172.28.0.0/24', gateway: '', ipRange: '', reserved: ['172.28.0.2'] };
    cluster.put('network', aNetwork('back', [], { subnets: [subnet] }));
    const part = { subnet: '172.29.0.0/24', gateway: '172.29.0.129', ipRange: '172.29.0.128/26', reserved: [] };
    cluster.put('network', aNetwork('front', [], { subnets: [part] }));
    cluster.decide(web);
    expect(cluster.tasks(web).map(({ address }) => address)).toEqual(['10.192.1.2', '10.192.2.2']);
    expect(cluster.tasks(web)[0]!.addresses).toEqual([
      { network: 'back', address: '172.28.0.3' },
      { network: 'front', address: '172.29.0.128' },
    ]);
    expect(addressesOf(cluster.tasks(web))[1]).toBe('172.28.0.4,172.29.0.130');
  });

  it('waits with the reason where all addresses are taken, and goes on when one is free', () => {
    const web = aService('web', { replicas: 6, template: joined(on('back')) });
    const cluster = clusterOf([['back', ['172.28.0.0/29']]], web);
    cluster.settle(web);
    const waiting = cluster.active(web).filter(({ nodeId }) => nodeId === '');
    expect(waiting.map(({ message }) => message)).toEqual(['all addresses of network back are taken (172.28.0.0/29)']);
    expect(cluster.decide(web).unplaced).toBe(1);
    cluster.report(cluster.active(web)[0]!, { state: 'shutdown', wanted: 'shutdown' });
    cluster.settle(web);
    expect(new Set(addressesOf(cluster.active(web).filter(({ nodeId }) => nodeId !== ''))).size).toBe(5);
  });

  it('has the fixed address, also when its node is lost, and nobody else gets it', () => {
    const db = aService('db', { replicas: 1, template: joined(on('back', '172.28.0.3')) });
    const web = aService('web', { replicas: 4, template: joined(on('back')) });
    const cluster = clusterOf([['back', ['172.28.0.0/24']]], db, web);
    cluster.decide(web);
    expect(addressesOf(cluster.tasks(web))).toEqual(['172.28.0.2', '172.28.0.4', '172.28.0.5', '172.28.0.6']);
    cluster.settle(db);
    expect(addressesOf(cluster.tasks(db))).toEqual(['172.28.0.3']);
    const [before] = cluster.tasks(db);
    cluster.put('node', { ...cluster.snapshot.node(before!.nodeId as never)!, state: 'down' });
    cluster.settle(db);
    const [after] = cluster.active(db);
    expect(after!.nodeId).not.toBe(before!.nodeId);
    expect(addressesOf([after!])).toEqual(['172.28.0.3']);
  });

  it('waits for the fixed address while its forerunner has it, and while another task does', () => {
    const web = aService('web', { replicas: 1, template: joined(on('back')) });
    const cluster = clusterOf([['back', ['172.28.0.0/24']]], web);
    cluster.settle(web);
    const db = aService('db', { replicas: 1, template: joined(on('back', '172.28.0.2')) });
    cluster.put('service', db);
    cluster.put('revision', aRevision(db));
    cluster.settle(db);
    expect(cluster.tasks(db)[0]!.message).toBe('address 172.28.0.2 of network back is still in use');
    cluster.report(cluster.tasks(web)[0]!, { state: 'failed' });
    cluster.settle(db);
    expect(addressesOf(cluster.active(db))).toEqual(['172.28.0.2']);
  });

  it('is not scaled beyond one task where its address is fixed', () => {
    const db = aService('db', { replicas: 1, template: joined(on('back', '172.28.0.3')) });
    const cluster = clusterOf([['back', ['172.28.0.0/24']]], db);
    expect(() => scaleService(cluster.wish, db.id, 2)).toThrow('has the fixed address 172.28.0.3, for one task only');
  });
});

describe('a task without a network of its own', () => {
  it('on its host’s network has its host’s address, and takes none of the node’s', () => {
    const agent = aService('agent', { mode: 'global', replicas: 0, template: aTemplate({ networkMode: 'host' }) });
    const cluster = clusterOf([], agent);
    cluster.put('node', { ...aNode('h1'), subnet: '' });
    cluster.settle(agent);
    expect(cluster.active(agent).map(({ nodeName, address, state }) => [nodeName, address, state])).toEqual([
      ['h1', '10.90.0.1', 'running'],
      ['h2', '10.90.0.2', 'running'],
      ['h3', '10.90.0.3', 'running'],
    ]);
  });

  it('with none has no address', () => {
    const job = aService('job', { replicas: 1, template: aTemplate({ networkMode: 'none' }) });
    const cluster = clusterOf([], job);
    cluster.settle(job);
    expect(cluster.active(job)).toMatchObject([{ address: '', addresses: [], state: 'running' }]);
  });
});

describe('a service that has the network of another one', () => {
  const side = (spec: Partial<ServiceSpec> = {}) =>
    aService('side', { ...spec, template: aTemplate({ networkMode: 'service:web' }) });
  const places = (tasks: readonly Task[]) => tasks.map(({ slot, nodeName, address }) => [slot, nodeName, address]);

  it('waits for its tasks, and is beside them slot by slot', () => {
    const [web, beside] = [aService('web', { replicas: 3 }), side({ replicas: 3 })];
    const cluster = clusterOf([], web, beside);
    cluster.decide(beside);
    expect(cluster.tasks(beside).map(({ message }) => message)).toEqual([
      'waits for task web.1, whose network it is to have',
      'waits for task web.2, whose network it is to have',
      'waits for task web.3, whose network it is to have',
    ]);
    cluster.settle(web);
    cluster.settle(beside);
    expect(places(cluster.active(beside))).toEqual(places(cluster.active(web)));
  });

  it('is beside the tasks of a global one on every node', () => {
    const web = aService('web', { mode: 'global', replicas: 0 });
    const beside = side({ mode: 'global', replicas: 0 });
    const cluster = clusterOf([], web, beside);
    cluster.settle(web);
    cluster.settle(beside);
    expect(places(cluster.active(beside))).toEqual(places(cluster.active(web)));
    expect(cluster.active(beside)).toHaveLength(3);
  });

  it('has its task replaced when the other one’s is, on whatever node that goes to', () => {
    const [web, beside] = [aService('web', { replicas: 1 }), side({ replicas: 1 })];
    const cluster = clusterOf([], web, beside);
    cluster.settle(web);
    cluster.settle(beside);
    const [old] = cluster.active(beside);
    const [owner] = cluster.active(web);
    cluster.put('node', { ...cluster.snapshot.node(owner!.nodeId as never)!, availability: 'drain' });
    cluster.settle(web);
    cluster.settle(beside);
    const [next] = cluster.active(beside);
    expect(next!.id).not.toBe(old!.id);
    expect(places([next!])).toEqual(places(cluster.active(web)));
    expect(cluster.tasks(beside)[0]!.why).toBe('task web.1, whose network it has, is no longer there');
  });

  it('gives the address back only when the last of them has ended', () => {
    const [web, beside] = [aService('web', { replicas: 1 }), side({ replicas: 1 })];
    const other = aService('other', {
      replicas: 1,
      placement: { ...web.spec.placement, constraints: ['node.hostname == h1'] },
    });
    const cluster = clusterOf([], web, beside, other);
    cluster.settle(web);
    cluster.settle(beside);
    const [task] = cluster.active(beside);
    cluster.report(task!, { state: 'failed' });
    cluster.now += 120_000;
    cluster.settle(other);
    expect(cluster.active(other)[0]!.address).not.toBe(cluster.active(web)[0]!.address);
  });
});

describe('networks of a project', () => {
  const reap = (cluster: DecidedCluster) => cluster.commit(reapUnused(cluster.wish));
  const names = (cluster: DecidedCluster) => [...cluster.snapshot.all('network')].map(({ spec }) => spec.name).sort();

  it('go with the last service on them, not before its last task, and never where they were made by hand', () => {
    const web = aService('web', { replicas: 1, template: joined(on('back'), on('mine')) });
    const cluster = clusterOf([['back'], ['mine', [], { project: '' }], ['idle']], web);
    cluster.settle(web);
    reap(cluster);
    expect(names(cluster)).toEqual(['back', 'mine']);
    cluster.commit(removeService(cluster.wish, web.id));
    reap(cluster);
    expect(names(cluster)).toEqual(['back', 'mine']);
    cluster.settle(web);
    reap(cluster);
    expect(names(cluster)).toEqual(['mine']);
    expect(reapUnused(cluster.wish)).toEqual([]);
  });

  it('stay while tasks of an older revision are on them, and while a rollback may come back to them', () => {
    const web = aService('web', { replicas: 1, template: joined(on('old')) });
    const cluster = clusterOf([['old'], ['new']], web);
    cluster.settle(web);
    const change = (...networks: NetworkAttachment[]) =>
      cluster.commit(
        updateService(cluster.wish, web.id, { ...cluster.service(web).spec, template: joined(...networks) }),
      );
    change(on('new'));
    reap(cluster);
    expect(names(cluster)).toEqual(['new', 'old']);
    cluster.commit(rollbackService(cluster.wish, web.id));
    change(on('new'));
    cluster.commit(
      updateService(cluster.wish, web.id, {
        ...cluster.service(web).spec,
        template: { ...joined(on('new')), container: containerSpec('web:2') },
      }),
    );
    reap(cluster);
    expect(cluster.tasks(web).some((task) => isActive(task) && task.revision === 1)).toBe(true);
    expect(names(cluster)).toEqual(['new', 'old']);
    for (let at = 0; at < 10; at++) {
      cluster.settle(web);
      cluster.now += 10_000;
    }
    reap(cluster);
    // What the update came from is still the way back, until there is another one.
    expect(names(cluster)).toEqual(['new', 'old']);
    cluster.commit(updateService(cluster.wish, web.id, { ...cluster.service(web).spec, labels: { a: 'b' } }));
    reap(cluster);
    expect(names(cluster)).toEqual(['new']);
    cluster.commit([{ table: 'network', key: 'new', value: undefined, expect: 0 }]);
    expect(() => rollbackService(cluster.wish, web.id)).toThrow('network new, which service demo/web was on, is gone');
  });
});
