/** Seats that are handed over stop-first: what runs goes on until what follows is prepared on its node, in the room that it leaves. */
import { describe, expect, it } from 'vitest';
import { taskItem } from '#control-plane/dispatch/assign.ts';
import { restartService, setAvailability, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { Node } from '#proto/model/node.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec, defaults, type Service, type ServiceSpec, type TaskTemplate } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNetwork, aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const policy = (fields: Partial<ServiceSpec['update']> = {}) => ({ ...defaults.update, monitorMs: 1_000, ...fields });
const template = (image: string, fields: Partial<TaskTemplate> = {}) =>
  aTemplate({ container: containerSpec(image), ...fields });
const cores = (cpuMillis: number) => ({ reservations: { ...noResources, cpuMillis } });

interface Made {
  readonly cluster: DecidedCluster;
  readonly web: Service;
}

function running(spec: Partial<ServiceSpec> = {}, nodes: readonly Node[] = [aNode('h1'), aNode('h2')]): Made {
  const web = aService('web', { replicas: 1, template: template('web:1'), update: policy(), ...spec });
  const cluster = new DecidedCluster(nodes, [web]);
  cluster.settle(web);
  return { cluster, web };
}

function update({ cluster, web }: Made, fields: Partial<ServiceSpec> = { template: template('web:2') }): void {
  cluster.commit(updateService(cluster.wish, web.id, { ...cluster.service(web).spec, ...fields }));
  look({ cluster, web });
}

/** What it comes to when agents do nothing: each task's revision, state, and what is wanted of it. */
function look({ cluster, web }: Made): string[] {
  while (cluster.decide(web).changes.length > 0);
  return cluster.tasks(web).map(({ revision, state, wanted }) => `${revision} ${state} ${wanted}`);
}

const newest = ({ cluster, web }: Made): Task => cluster.tasks(web).at(-1)!;

describe('an update that stops first', () => {
  it('stops the old task when the new one is prepared, and runs that when the old one has ended', () => {
    const made = running();
    update(made);
    expect(look(made)).toEqual(['1 running running', '2 assigned ready']);
    made.cluster.report(newest(made), { state: 'preparing' });
    expect(look(made)).toEqual(['1 running running', '2 preparing ready']);
    made.cluster.report(newest(made), { state: 'ready' });
    expect(look(made)).toEqual(['1 running shutdown', '2 ready ready']);
    made.cluster.report(made.cluster.tasks(made.web)[0]!, { state: 'shutdown' });
    expect(look(made)).toEqual(['1 shutdown shutdown', '2 ready running']);
  });

  it('places what is prepared as if who it follows had gone: nothing is out of balance afterwards', () => {
    const other = aService('other', { replicas: 1 });
    const web = aService('web', { replicas: 2, template: template('web:1'), update: policy() });
    const cluster = new DecidedCluster([aNode('h1'), aNode('h2'), aNode('h3')], [web, other]);
    cluster.settle(web);
    cluster.settle(other);
    const nodes = () => cluster.active(web).map(({ slot, nodeName }) => `${slot} on ${nodeName}`);
    expect([nodes(), cluster.active(other)[0]!.nodeName]).toEqual([['1 on h1', '2 on h2'], 'h3']);
    for (const parallelism of [1, 2]) {
      const image = template(`web:by-${parallelism}`);
      const made = { cluster, web };
      update(made, { template: image, update: policy({ parallelism }) });
      for (let turn = 0; turn < 2; turn++) {
        cluster.settle(web);
        cluster.now += 2_000;
        look(made);
      }
      expect(cluster.active(web).map(({ revision }) => revision)).toEqual([parallelism + 1, parallelism + 1]);
      expect(nodes().sort()).toEqual(['1 on h1', '2 on h2']);
    }
  });

  it('goes back when the image cannot be had, and the old task never noticed', () => {
    const made = running({ update: policy({ failureAction: 'rollback' }) });
    const [old] = made.cluster.tasks(made.web);
    update(made);
    made.cluster.report(newest(made), { state: 'rejected', error: 'registry has no web:2' });
    look(made);
    made.cluster.settle(made.web);
    made.cluster.now += 10_000;
    look(made);
    const { rollout } = made.cluster.service(made.web);
    expect(rollout).toMatchObject({
      state: 'rolled-back',
      message: expect.stringMatching(/web\.1 \(\w+\) of revision 2 on h\d: registry has no web:2/),
    });
    expect(made.cluster.active(made.web)).toEqual([old]);
  });

  it('that is paused, or goes back, ends what waits; the old task goes on, and is followed by its like', () => {
    const made = running();
    update(made);
    made.cluster.report(newest(made), { state: 'preparing', error: 'registry does not answer' });
    made.cluster.now += 6_000;
    expect(look(made)).toEqual(['1 running running', '2 preparing shutdown']);
    expect(made.cluster.service(made.web).rollout).toMatchObject({
      state: 'paused',
      message: expect.stringContaining('registry does not answer'),
    });
    made.cluster.obey(made.web);
    const [old] = made.cluster.active(made.web);
    made.cluster.report(old!, { state: 'failed', startedAtMs: 1, finishedAtMs: 60_000 });
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 1, wanted: 'running' }]);
  });

  it('tries a wrong image ever more rarely, also where the clock of the leader was set back', () => {
    const made = running({ update: policy({ failureAction: 'continue' }) });
    update(made);
    made.cluster.now -= 900;
    const waits: number[] = [];
    for (let time = 0; time < 5; time++) {
      made.cluster.now += 20;
      made.cluster.report(newest(made), { state: 'rejected', error: 'registry has no web:2' });
      look(made);
      const { startAfterMs, createdAtMs, wanted } = newest(made);
      waits.push(startAfterMs === 0 ? 0 : startAfterMs - createdAtMs);
      expect(wanted).toBe('ready');
    }
    expect(waits).toEqual([0, 250, 500, 1_000, 2_000]);
    expect(made.cluster.active(made.web)[0]).toMatchObject({ revision: 1, state: 'running', wanted: 'running' });
  });

  it('runs what waits at once where the old task ends meanwhile', () => {
    const made = running();
    update(made);
    made.cluster.report(made.cluster.tasks(made.web)[0]!, { state: 'failed', startedAtMs: 1, finishedAtMs: 60_000 });
    expect(look(made)).toEqual(['1 failed running', '2 assigned running']);
  });

  it('waits for nothing where no old task runs', () => {
    const made = running();
    const [old] = made.cluster.tasks(made.web);
    made.cluster.report(old!, { state: 'failed' });
    look(made);
    update(made);
    expect(look(made)).toEqual(['1 failed running', '1 assigned shutdown']);
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 2 }]);
  });

  it('is a restart, too', () => {
    const made = running();
    made.cluster.commit(restartService(made.cluster.wish, made.web.id));
    expect(look(made)).toEqual(['1 running running', '2 assigned ready']);
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 2, state: 'running' }]);
  });

  it('begins anew for a revision that overtakes it', () => {
    const made = running();
    update(made);
    update(made, { template: template('web:3') });
    made.cluster.obey(made.web);
    expect(look(made)).toEqual(['1 running shutdown', '2 shutdown shutdown', '3 ready ready']);
  });

  it('says at once that no node takes the new task, and stops nothing', () => {
    const made = running();
    update(made, { template: template('web:2', cores(64_000)) });
    expect(look(made)).toEqual(['1 running running', '2 pending ready']);
    expect(newest(made).message).toContain('without room for 64 cores of CPU');
    made.cluster.now += 16_000;
    look(made);
    expect(made.cluster.service(made.web).rollout.state).toBe('paused');
    made.cluster.settle(made.web);
    expect(look(made)).toEqual(['1 running running']);
  });

  it('does not keep what must leave its node', () => {
    const made = running();
    const [old] = made.cluster.tasks(made.web);
    update(made);
    made.cluster.commit(setAvailability(made.cluster.wish, aNode(old!.nodeName).id, 'drain'));
    look(made);
    expect(made.cluster.tasks(made.web).find(({ id }) => id === old!.id)!.wanted).toBe('shutdown');
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 2, state: 'running' }]);
    expect(newest(made).nodeName).not.toBe(old!.nodeName);
  });
});

describe('what is prepared', () => {
  const alone = (fields: Partial<TaskTemplate>, spec: Partial<ServiceSpec> = {}) =>
    running({ template: template('web:1', fields), ...spec }, [aNode('h1')]);
  const guest = aService('guest', { replicas: 1, template: template('guest:1', cores(1_000)) });
  const joined = (made: Made): Task => {
    made.cluster.put('service', guest);
    made.cluster.put('revision', {
      ...made.cluster.snapshot.revisionOf(made.web.id, 1)!,
      serviceId: guest.id,
      template: guest.spec.template,
    });
    made.cluster.decide(guest);
    return made.cluster.tasks(guest)[0]!;
  };

  it('has the room of the old task where the node has no more, and nobody else gets it', () => {
    const made = alone(cores(3_500));
    update(made, { template: template('web:2', cores(3_500)) });
    expect(look(made)).toEqual(['1 running running', '2 assigned ready']);
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)).toMatchObject({ cpuMillis: 3_500, tasks: 2 });
    expect(joined(made).state).toBe('pending');
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 2, state: 'running' }]);
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)).toMatchObject({ cpuMillis: 3_500, tasks: 1 });
    made.cluster.decide(guest);
    expect(joined(made).state).toBe('pending');
  });

  it('takes no more of its node than it needs beyond that', () => {
    const made = alone(cores(2_000));
    update(made, { template: template('web:2', cores(2_500)) });
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)!.cpuMillis).toBe(2_500);
    expect(joined(made).state).toBe('assigned');
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)!.cpuMillis).toBe(3_500);
    made.cluster.settle(made.web);
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)!.cpuMillis).toBe(3_500);
  });

  it('gets the host port and the device of the old task, and its node hears of the port when it is to run', () => {
    const generic = [{ kind: 'gpu', count: 1, names: [] }];
    const capacity = { ...aNode('h1').capacity, generic: [{ kind: 'gpu', count: 1, names: ['g0'] }] };
    const made = running(
      {
        template: template('web:1', { reservations: { ...noResources, generic } }),
        ports: [{ target: 80, published: 80, protocol: 'tcp', mode: 'host' }],
      },
      [aNode('h1', { capacity })],
    );
    update(made, { template: template('web:2', { reservations: { ...noResources, generic } }) });
    expect(newest(made)).toMatchObject({ nodeName: 'h1', generic: [{ kind: 'gpu', count: 1, names: ['g0'] }] });
    expect(made.cluster.books.ledger.usageOf(aNode('h1').id)!.generic.get('gpu')!.count).toBe(1);
    expect(taskItem(made.cluster.snapshot, newest(made))!.task.hostPorts).toEqual([]);
    made.cluster.settle(made.web);
    expect(made.cluster.active(made.web)).toMatchObject([{ revision: 2, state: 'running' }]);
    expect(taskItem(made.cluster.snapshot, newest(made))!.task.hostPorts).toHaveLength(1);
  });

  it('waits on the one node that may have a replica more', () => {
    const placement = { ...defaults.placement, maxReplicasPerNode: 1 };
    const made = running({ replicas: 2, placement, update: policy({ parallelism: 2 }) });
    update(made);
    expect(look(made)).toHaveLength(4);
    expect(made.cluster.active(made.web).every(({ nodeId }) => nodeId !== '')).toBe(true);
    made.cluster.settle(made.web);
    expect(
      made.cluster
        .active(made.web)
        .map(({ nodeName }) => nodeName)
        .sort(),
    ).toEqual(['h1', 'h2']);
  });

  const networks = [{ network: 'demo_back', aliases: [], ipv4Address: '10.7.0.9', priority: 0 }];
  const withFixedAddress = (node: Node): Made => {
    const web = aService('web', { replicas: 1, template: template('web:1', { networks }), update: policy() });
    const cluster = new DecidedCluster([node], [web]);
    cluster.put('network', aNetwork('demo_back', ['10.7.0.0/24']));
    cluster.settle(web);
    return { cluster, web };
  };

  it('has its fixed address when it is to run, and before that none', () => {
    const made = withFixedAddress(aNode('h1'));
    update(made, { template: template('web:2', { networks }) });
    expect(look(made)).toEqual(['1 running running', '2 assigned ready']);
    expect(newest(made)).toMatchObject({ address: '', addresses: [] });
    made.cluster.report(newest(made), { state: 'ready' });
    expect(look(made)).toEqual(['1 running shutdown', '2 ready ready']);
    made.cluster.report(made.cluster.tasks(made.web)[0]!, { state: 'shutdown' });
    expect(look(made)).toEqual(['1 shutdown shutdown', '2 ready running']);
    expect(newest(made)).toMatchObject({ addresses: [{ network: 'demo_back', address: '10.7.0.9' }] });
    expect(newest(made).address).toMatch(/^10\.192\.1\./);
  });

  it('is begun when the old task has ended where its agent prepares nothing without an address, and that is said', () => {
    const made = withFixedAddress(aNode('h1', { components: {} }));
    const { cluster, web } = made;
    update(made, { template: template('web:2', { networks }) });
    expect(look(made)).toEqual(['1 running shutdown', '2 pending running']);
    expect(cluster.tasks(web)[0]!.why).toMatch(/revision 2 replaces revision 1 \(it goes first: .*10\.7\.0\.9/);
    cluster.settle(web);
    expect(cluster.active(web)).toMatchObject([{ revision: 2, state: 'running' }]);
  });
});
