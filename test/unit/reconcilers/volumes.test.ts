/** A named volume binds its services to the node that has the data, and that node's loss is said, never papered over. */
import { describe, expect, it } from 'vitest';
import { explainTask, planTasks } from '#control-plane/controllers/plan.ts';
import {
  createService,
  removeNode,
  scaleService,
  setAvailability,
} from '#control-plane/reconcilers/service-changes.ts';
import { containerSpec, emptyMount, type Service, type ServiceSpec } from '#proto/model/service.ts';
import type { Volume } from '#proto/model/volume.ts';
import { aNode, aRevision, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nodes = () => ['h1', 'h2', 'h3'].map((name) => aNode(name));
const mounting = (...volumes: string[]) =>
  aTemplate({
    container: containerSpec('db:1', {
      mounts: volumes.map((name) => emptyMount('volume', name, `/${name || 'tmp'}`)),
    }),
  });
const aDatabase = (name: string, fields: Partial<ServiceSpec> = {}, volumes = ['demo_data']) =>
  aService(name, { replicas: 1, template: mounting(...volumes), ...fields }, { vip: `10.224.0.${name.length + 1}` });

function running(...services: Service[]): DecidedCluster {
  const cluster = new DecidedCluster(nodes(), services);
  for (const service of services) cluster.settle(service);
  return cluster;
}
const volume = (cluster: DecidedCluster, name = 'demo_data') => cluster.snapshot.get('volume', name)?.value;
const places = (cluster: DecidedCluster, service: Service) => cluster.active(service).map(({ nodeName }) => nodeName);

/** The node falls silent, and every service is looked at. */
function lose(cluster: DecidedCluster, name: string, ...services: Service[]): void {
  cluster.put('node', { ...cluster.snapshot.node(aNode(name).id)!, state: 'down' });
  for (const service of services) cluster.settle(service);
}

describe('a named volume', () => {
  it('is written down in the commit that places the first task', () => {
    const db = aDatabase('db');
    const cluster = new DecidedCluster(nodes(), [db]);
    const { changes } = cluster.decide(db);
    expect(changes.map(({ table }) => table).sort()).toEqual(['task', 'volume']);
    expect(volume(cluster)).toEqual({
      name: 'demo_data',
      nodeId: aNode('h1').id,
      nodeName: 'h1',
      createdAtMs: cluster.now,
    } satisfies Volume);
  });

  it('keeps all replicas on one node, those that come later too', () => {
    const db = aDatabase('db', { replicas: 3 });
    const cluster = running(db);
    expect(places(cluster, db)).toEqual(['h1', 'h1', 'h1']);
    cluster.commit(scaleService(cluster.wish, db.id, 5));
    cluster.settle(db);
    expect(new Set(places(cluster, db))).toEqual(new Set(['h1']));
  });

  it('brings services that share it to one node, though both are decided before either is committed', () => {
    const [db, backup] = [aDatabase('db'), aDatabase('backup')];
    const cluster = new DecidedCluster(nodes(), [db, backup]);
    const decisions = [cluster.consider(db), cluster.consider(backup)];
    const tasks = decisions.flatMap(({ changes }) =>
      changes.flatMap((change) => (change.table === 'task' ? [change.value!] : [])),
    );
    expect(tasks.map(({ nodeName }) => nodeName)).toEqual(['h1', 'h1']);
    // Each would stand alone, were the other's commit to fail.
    for (const { changes } of decisions) {
      expect(changes.filter(({ table }) => table === 'volume')).toMatchObject([{ key: 'demo_data', expect: 0 }]);
    }
  });

  it('outlives its service, and draws the next one that mounts it', () => {
    const db = aDatabase('db');
    const cluster = running(db);
    cluster.commit([{ table: 'service', key: db.id, value: { ...cluster.service(db), removing: true }, expect: 0 }]);
    cluster.settle(db);
    expect(cluster.snapshot.service(db.id)).toBeUndefined();
    cluster.put('volume', { ...volume(cluster)!, nodeId: aNode('h2').id, nodeName: 'h2' });
    const [change] = createService(cluster.wish, aDatabase('db').spec);
    cluster.commit(createService(cluster.wish, aDatabase('db').spec));
    expect(change!.table).toBe('service');
    const again = cluster.snapshot.serviceNamed('demo', 'db')!;
    cluster.settle(again);
    expect(places(cluster, again)).toEqual(['h2']);
  });

  it('binds no global service, and an anonymous one nobody', () => {
    const everywhere = aService('all', { mode: 'global', replicas: 0, template: mounting('demo_data') });
    const scratch = aDatabase('scratch', { replicas: 3 }, ['']);
    const cluster = running(everywhere, scratch);
    expect(places(cluster, everywhere)).toEqual(['h1', 'h2', 'h3']);
    expect(new Set(places(cluster, scratch)).size).toBe(3);
    expect(cluster.snapshot.count('volume')).toBe(0);
  });

  it('that is not where the other one is leaves no node, in words', () => {
    const [a, b] = [aDatabase('a', {}, ['x']), aDatabase('bb', {}, ['y'])];
    const cluster = running(a, b);
    cluster.put('volume', { ...volume(cluster, 'y')!, nodeId: aNode('h2').id, nodeName: 'h2' });
    const both = aDatabase('both', {}, ['x', 'y']);
    cluster.put('service', both);
    cluster.put('revision', aRevision(both));
    cluster.settle(both);
    expect(cluster.active(both)).toMatchObject([
      { state: 'pending', message: 'volume x is on h1 and volume y on h2: no node has both' },
    ]);
  });

  it('is where a plan puts its tasks', () => {
    const db = aDatabase('db');
    const cluster = running(db);
    cluster.put('volume', { ...volume(cluster)!, nodeId: aNode('h3').id, nodeName: 'h3' });
    const changes = createService(cluster.wish, aSpec('more', { replicas: 2, template: mounting('demo_data') }));
    const [tasks] = planTasks(cluster.snapshot, changes, cluster.now).values();
    expect(tasks!.map(({ node }) => node)).toEqual(['h3', 'h3']);
  });
});

describe('when the node of a volume', () => {
  it('is down, its service is pending with the reason, and runs there again when it is back', () => {
    const db = aDatabase('db');
    const cluster = running(db);
    lose(cluster, 'h1', db);
    const [waiting] = cluster.active(db);
    expect(waiting).toMatchObject({ state: 'pending', message: 'volume demo_data is on h1, which is down' });
    const { rules, rows } = explainTask(cluster.snapshot, waiting!);
    expect(rows.map(({ verdicts }) => verdicts[rules.indexOf('volumes')])).toEqual([
      '',
      'volume demo_data is on h1',
      'volume demo_data is on h1',
    ]);
    cluster.put('node', aNode('h1'));
    cluster.settle(db);
    expect(cluster.active(db)).toMatchObject([{ state: 'running', nodeName: 'h1' }]);
  });

  it('is down, a service that says so begins elsewhere with an empty one, and whoever shares it follows', () => {
    const cache = aDatabase('cache', { volumeLoss: 'recreate', replicas: 2 });
    const reader = aDatabase('reader');
    const cluster = running(cache, reader);
    lose(cluster, 'h1', reader, cache);
    expect(places(cluster, cache)).toEqual(['h2', 'h2']);
    expect(volume(cluster)).toMatchObject({ nodeName: 'h2' });
    cluster.settle(reader);
    expect(places(cluster, reader)).toEqual(['h2']);
    cluster.put('node', aNode('h1'));
    cluster.settle(cache);
    expect(places(cluster, cache)).toEqual(['h2', 'h2']);
  });

  it('is drained, the data is not lost: even then nothing begins anew', () => {
    const cache = aDatabase('cache', { volumeLoss: 'recreate' });
    const cluster = running(cache);
    cluster.commit(setAvailability(cluster.wish, aNode('h1').id, 'drain'));
    cluster.settle(cache);
    expect(cluster.active(cache)).toMatchObject([
      { state: 'pending', message: 'volume demo_data is on h1, which is drained' },
    ]);
  });

  it('is full, the reason is its lack of room', () => {
    const reservations = { cpuMillis: 3_000, memoryBytes: 0, pids: 0, generic: [] };
    const cluster = running(aDatabase('db', { replicas: 2, template: { ...mounting('demo_data'), reservations } }));
    const [db] = [...cluster.snapshot.all('service')];
    expect(cluster.active(db!).map(({ state, message }) => `${state} ${message}`)).toEqual([
      'running ',
      'pending volume demo_data is on h1, which is without room for 3 cores of CPU',
    ]);
  });

  it('leaves the cluster, that needs force and names the volumes, and the service says what it misses', () => {
    const [db, old] = [aDatabase('db'), aDatabase('old', {}, ['demo_old'])];
    const cluster = running(db, old);
    cluster.put('volume', { ...volume(cluster, 'demo_old')!, nodeId: aNode('h1').id, nodeName: 'h1' });
    cluster.commit([{ table: 'service', key: old.id, value: undefined, expect: 0 }]);
    lose(cluster, 'h1', db);
    expect(() => removeNode(cluster.wish, aNode('h1').id)).toThrow(
      'node h1 has the data of volume demo_data, demo_old',
    );
    cluster.commit(removeNode(cluster.wish, aNode('h1').id, true));
    expect(volume(cluster, 'demo_old')).toBeUndefined();
    cluster.settle(db);
    expect(cluster.active(db)).toMatchObject([
      { state: 'pending', message: expect.stringContaining('volume demo_data was on h1, which is no longer a member') },
    ]);
    cluster.put('service', { ...cluster.service(db), spec: { ...db.spec, volumeLoss: 'recreate' } });
    cluster.settle(db);
    expect(places(cluster, db)).toEqual(['h3']);
  });
});
