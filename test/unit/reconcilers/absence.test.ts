/** A node that falls silent and comes back: what happens to its tasks' seats meanwhile, and which of two is kept. */
import { describe, expect, it } from 'vitest';
import { removeNode, removeService, scaleService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { Node } from '#proto/model/node.ts';
import { containerSpec, defaults, emptyMount, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { isServing, type Task } from '#proto/model/task.ts';
import { aCluster, aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

/** Three nodes, a service that runs on them, and the third node's silence. */
class Story {
  readonly cluster: DecidedCluster;
  readonly web: Service;

  constructor(spec: Partial<ServiceSpec> = {}) {
    this.web = aService('web', spec);
    this.cluster = new DecidedCluster(
      ['h1', 'h2', 'h3'].map((name) => aNode(name)),
      [this.web],
    );
    this.cluster.put('cluster', aCluster());
    this.settle();
  }

  settle(): this {
    this.cluster.settle(this.web);
    this.cluster.now += 1_000;
    return this;
  }

  node(fields: Partial<Node>): this {
    this.cluster.put('node', { ...this.cluster.snapshot.node(aNode('h3').id)!, ...fields });
    return this;
  }
  cut(): this {
    return this.node({ state: 'down', unaccounted: true }).settle();
  }
  /** Its beats are heard, and then its agent. */
  heal(fields: Partial<Node> = {}): this {
    this.node({ state: 'ready' }).settle();
    return this.node({ unaccounted: false, ...fields }).settle();
  }

  on(nodeName: string): Task[] {
    return this.cluster.tasks(this.web).filter((task) => task.nodeName === nodeName);
  }
  get original(): Task {
    return this.on('h3')[0]!;
  }
  /** `slot node`, of those that hold a seat. */
  get seated(): string[] {
    return this.cluster.active(this.web).map(({ slot, nodeName }) => `${slot} ${nodeName || 'nowhere'}`);
  }
  get successor(): Task {
    return this.cluster.tasks(this.web).findLast(({ slot }) => slot === this.original.slot)!;
  }
  changeImage(): this {
    const template = aTemplate({ container: containerSpec('web:2') });
    const { spec } = this.cluster.service(this.web);
    this.cluster.commit(updateService(this.cluster.wish, this.web.id, { ...spec, template }));
    return this.settle();
  }
}

const mounting = aTemplate({
  container: { ...containerSpec('web:1'), mounts: [emptyMount('volume', 'data', '/data')] },
});

const spread = ['1 h1', '2 h2', '3 h3'];

describe('a task whose node is down', () => {
  it('keeps its seat, also where a lower one is free', () => {
    const story = new Story({ replicas: 3 });
    const { cluster, web } = story;
    cluster.report(cluster.active(web).find(({ slot }) => slot === 1)!, { health: 'unhealthy' });
    cluster.commit(scaleService(cluster.wish, web.id, 2));
    story.settle();
    const here = cluster.active(web).find(({ nodeName }) => nodeName === 'h3')!;
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([2, 3]);
    story.cut();
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([2, 3]);
    story.heal();
    expect(cluster.active(web).map(({ id }) => id)).toContain(here.id);
  });

  it('keeps its state, its address and its reservation, serves nobody, and is replaced at once', () => {
    const story = new Story();
    const { address } = story.original;
    story.cut();
    expect(story.original).toMatchObject({
      state: 'running',
      wanted: 'running',
      address,
      why: 'node h3 is down',
      absence: { bootId: 'boot-1' },
    });
    expect(isServing({ ...story.original, address: '10.0.0.1' })).toBe(false);
    expect(story.seated).toEqual(['1 h1', '2 h2', '3 h1']);
    expect(story.successor.why).toMatch(/^replaces web\.3 \(.{5}\): node h3 is down$/);
  });

  it('is kept when the node is back with it, and the younger one stops: the spread is as before', () => {
    const story = new Story().cut();
    const { id } = story.original;
    story.heal();
    expect(story.seated).toEqual(spread);
    expect(story.original).toMatchObject({ id, state: 'running', why: 'node h3 is back, and it is still there' });
    expect(story.original.absence).toBeUndefined();
    const younger = story.cluster.tasks(story.web).find(({ slot, nodeName }) => slot === 3 && nodeName === 'h1')!;
    const why = expect.stringMatching(/^web\.3 \(.{5}\) is back on h3$/);
    expect(younger).toMatchObject({ state: 'shutdown', why, duplicate: true });
  });

  it('is kept before its successor is up, too', () => {
    const story = new Story();
    story.node({ state: 'down', unaccounted: true }).cluster.decide(story.web);
    expect(story.successor.state).toBe('assigned');
    story.node({ state: 'ready', unaccounted: false }).cluster.decide(story.web);
    expect(story.successor).toMatchObject({ wanted: 'shutdown', nodeName: 'h1' });
    expect(story.settle().seated).toEqual(spread);
  });

  it('goes when it is back and not well, where its successor is', () => {
    const story = new Story().cut();
    story.cluster.report(story.original, { health: 'unhealthy' });
    expect(story.heal().seated).toEqual(['1 h1', '2 h2', '3 h1']);
    expect(story.original).toMatchObject({ state: 'shutdown', why: expect.stringMatching(/holds its slot$/) });
  });

  it('is lost where the node comes back with another boot, or ended meanwhile', () => {
    const rebooted = new Story().cut().heal({ bootId: 'boot-2' });
    expect(rebooted.original).toMatchObject({ state: 'orphaned', why: 'node h3 was started anew' });
    expect(rebooted.seated).toEqual(['1 h1', '2 h2', '3 h1']);
    const ended = new Story().cut();
    ended.cluster.report(ended.original, { state: 'failed', exitCode: 1, absence: undefined });
    expect(ended.heal().seated).toEqual(['1 h1', '2 h2', '3 h1']);
  });

  it('is lost after a day, or as soon as the cluster says, and keeps its address out of use until the node is back', () => {
    const story = new Story().cut();
    story.cluster.now += 86_400_000 - 5_000;
    expect(story.settle().original.state).toBe('running');
    story.cluster.now += 5_000;
    expect(story.settle().original).toMatchObject({ state: 'orphaned', why: 'node h3 did not come back' });
    const hasty = new Story();
    hasty.cluster.put('cluster', aCluster({ orphanAfterMs: 0 }));
    expect(hasty.cut().original).toMatchObject({ state: 'orphaned', why: 'node h3 is down' });
  });

  it('is lost with its node, its service and its seat', () => {
    const noNode = new Story().cut();
    noNode.cluster.commit(removeNode(noNode.cluster.wish, aNode('h3').id, false));
    expect(noNode.settle().original).toMatchObject({ state: 'orphaned', why: 'node h3 is gone' });
    const noService = new Story().cut();
    noService.cluster.commit(removeService(noService.cluster.wish, noService.web.id));
    noService.cluster.decide(noService.web);
    expect(noService.original.state).toBe('orphaned');
    noService.cluster.obey(noService.web);
    noService.cluster.decide(noService.web);
    expect(noService.cluster.snapshot.service(noService.web.id)).toBeUndefined();
    const noSeat = new Story().cut();
    noSeat.cluster.commit(scaleService(noSeat.cluster.wish, noSeat.web.id, 2));
    expect(noSeat.settle().seated).toHaveLength(2);
    expect(noSeat.cluster.tasks(noSeat.web).some(({ absence }) => absence)).toBe(
      noSeat.seated.some((one) => one.startsWith('3')),
    );
  });

  it('is lost at once where it was to stop anyway, or its successor takes its fixed address or begins its volume anew', () => {
    const stopping = new Story();
    stopping.cluster.report(stopping.original, { wanted: 'shutdown' });
    expect(stopping.cut().original.state).toBe('orphaned');
    const anew = new Story({ volumeLoss: 'recreate', template: mounting });
    anew.cut();
    expect(anew.cluster.tasks(anew.web).some(({ absence }) => absence)).toBe(false);
  });

  it('is of an older revision after a rollout that it missed, and stops', () => {
    const story = new Story({ update: { ...defaults.update, monitorMs: 0 } }).cut();
    for (let turn = 0; turn < 6; turn++) story.changeImage();
    story.heal();
    expect(story.original).toMatchObject({ state: 'shutdown', why: expect.stringMatching(/replaces revision 1/) });
    expect(new Set(story.cluster.active(story.web).map(({ revision }) => revision)).size).toBe(1);
    expect(story.cluster.active(story.web)).toHaveLength(3);
  });

  it('is not kept beside another of its revision, however long the rollout that waits for both takes', () => {
    const story = new Story({ update: { ...defaults.update, order: 'start-first', parallelism: 0 } }).cut();
    const { cluster, web } = story;
    const { spec } = cluster.service(web);
    const template = aTemplate({ container: containerSpec('web:2') });
    cluster.commit(updateService(cluster.wish, web.id, { ...spec, template }));
    story.node({ state: 'ready' }).cluster.decide(web);
    story.node({ unaccounted: false }).cluster.decide(web);
    const last = cluster.active(web).filter(({ slot }) => slot === 3);
    expect(last.map(({ revision, nodeName, state }) => [revision, nodeName, state])).toEqual([
      [1, 'h3', 'running'],
      [2, expect.any(String), 'assigned'],
    ]);
  });

  it('that ends after it came back is restarted by its policy, as if nobody had taken its place', () => {
    const story = new Story({ restart: { ...defaults.restart, condition: 'none' } }).cut().heal();
    story.cluster.report(story.original, { state: 'failed', exitCode: 1 });
    expect(story.settle().seated).toEqual(['1 h1', '2 h2']);
    expect(story.original.why).toBe('not restarted: exit code 1, and the policy is none');
  });
});

describe('a seat that only its node can fill', () => {
  it('waits for a volume on the lost node, and the task that has it goes on there', () => {
    const placement = { ...defaults.placement, constraints: ['node.hostname==h3'] };
    const story = new Story({ replicas: 1, template: mounting, placement });
    expect(story.seated).toEqual(['1 h3']);
    const { id } = story.original;
    expect(story.cut().seated).toEqual(['1 nowhere']);
    // Its beats are heard, and nobody knows yet what runs there.
    expect(story.node({ state: 'ready' }).settle().seated).toEqual(['1 nowhere']);
    expect(story.cluster.active(story.web)[0]!.message).toContain('is back, and has not said yet what runs there');
    expect(story.heal().seated).toEqual(['1 h3']);
    expect(story.original).toMatchObject({ id, wanted: 'running' });
    expect(story.cluster.tasks(story.web)).toHaveLength(1);
  });

  it('of a global service is not filled twice', () => {
    const story = new Story({ mode: 'global', replicas: 0 });
    const { id } = story.original;
    story.cut();
    expect(story.on('h3')).toMatchObject([{ id, absence: {} }]);
    expect(story.node({ state: 'ready' }).settle().on('h3')).toHaveLength(1);
    story.heal();
    expect(story.on('h3')).toMatchObject([{ id, state: 'running', wanted: 'running' }]);
  });
});
