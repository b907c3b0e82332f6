/** Tasks of higher priority, and those that leave for them and come back. */
import { describe, expect, it } from 'vitest';
import { explainTask } from '#control-plane/controllers/plan.ts';
import { scaleService } from '#control-plane/reconcilers/service-changes.ts';
import { defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

/** Each node has room for two tasks. */
const template = aTemplate({ reservations: { cpuMillis: 2_000, memoryBytes: 0, pids: 0, generic: [] } });
const nodes = () => ['h1', 'h2'].map((name) => aNode(name));

function cluster(...services: readonly [string, Partial<ServiceSpec>][]): { made: DecidedCluster; of: Service[] } {
  const of = services.map(([name, spec]) => aService(name, { template, ...spec }));
  return { made: new DecidedCluster(nodes(), of), of };
}

/** Looks at all services, and lets agents obey, until nothing changes. */
function settle(made: DecidedCluster, services: readonly Service[]): void {
  for (let round = 0; round < 30; round++) {
    const counts = services.map((service) => made.decide(service).changes.length + made.obey(service));
    if (counts.every((count) => count === 0)) return;
  }
  throw new Error('it does not come to rest');
}

const states = (made: DecidedCluster, service: Service) => made.active(service).map(({ state }) => state);

describe('a task of higher priority', () => {
  it('has one of lower priority leave, which says for whom, waits, and comes back when there is room', () => {
    const { made, of } = cluster(['web', { replicas: 4 }], ['api', { replicas: 0, priority: 100 }]);
    const [web, api] = of as [Service, Service];
    settle(made, of);
    expect(states(made, web)).toEqual(['running', 'running', 'running', 'running']);
    made.commit(scaleService(made.wish, api.id, 1));
    made.decide(api);
    expect(made.active(api)[0]).toMatchObject({
      state: 'pending',
      message: expect.stringMatching(/^preempts web\.\d \(.{5}\) on h1$/),
    });
    settle(made, of);
    expect(states(made, api)).toEqual(['running']);
    expect(states(made, web).sort()).toEqual(['pending', 'running', 'running', 'running']);
    const gone = made.tasks(web).find(({ state }) => state === 'shutdown');
    expect(gone?.why).toBe('preempted by demo/api (priority 100)');
    const waiting = made.active(web).find(({ state }) => state === 'pending');
    expect(waiting?.why).toMatch(/^replaces web\.\d \(.{5}\): preempted by demo\/api \(priority 100\)$/);
    expect(waiting?.message).toBe('no node fits (2 in all): 2 without room for 2 cores of CPU');
    made.commit(scaleService(made.wish, api.id, 0));
    settle(made, of);
    expect(states(made, web)).toEqual(['running', 'running', 'running', 'running']);
  });

  it('keeps its place while the others leave, also from those that start first', () => {
    const update = { ...defaults.update, order: 'start-first' as const };
    const { made, of } = cluster(['web', { replicas: 4, update }], ['api', { replicas: 2, priority: 1 }]);
    const [web, api] = of as [Service, Service];
    made.settle(web);
    settle(made, of);
    expect(states(made, api)).toEqual(['running', 'running']);
    expect(states(made, web).filter((state) => state === 'pending')).toHaveLength(2);
    expect(made.tasks(web).filter(({ why }) => why.startsWith('preempted'))).toHaveLength(2);
  });

  it('never has those of its own or of a higher priority leave', () => {
    const { made, of } = cluster(['web', { replicas: 4, priority: 100 }], ['api', { replicas: 1, priority: 100 }]);
    settle(made, of);
    expect(states(made, of[0]!)).toEqual(['running', 'running', 'running', 'running']);
    expect(made.active(of[1]!)[0]?.message).toMatch(/^no node fits/);
  });

  it('takes the least important, though a more important one would do', () => {
    const { made, of } = cluster(
      ['low', { replicas: 2, priority: 1 }],
      ['mid', { replicas: 2, priority: 2 }],
      ['api', { replicas: 1, priority: 3 }],
    );
    settle(made, of);
    expect(made.tasks(of[0]!).some(({ why }) => why === 'preempted by demo/api (priority 3)')).toBe(true);
    expect(states(made, of[1]!)).toEqual(['running', 'running']);
  });

  it('is explained with who would leave on each node, and where nobody would', () => {
    const { made, of } = cluster(
      ['web', { replicas: 2, placement: { ...defaults.placement, constraints: ['node.hostname == h1'] } }],
      ['top', { replicas: 2, priority: 9, placement: { ...defaults.placement, constraints: ['node.hostname == h2'] } }],
      ['api', { replicas: 1, priority: 9 }],
    );
    const [web, top, api] = of as [Service, Service, Service];
    settle(made, [web, top]);
    made.decide(api);
    const { rules, rows } = explainTask(made.snapshot, made.active(api)[0]!);
    expect(rules.at(-1)).toBe('priority');
    expect(rows.map(({ verdicts }) => verdicts.at(-1))).toEqual(['', 'nothing below 9 leaves it room']);
    expect(rows[0]!.rank).toMatch(/; web\.\d \(.{5}\) would leave$/);
    expect(explainTask(made.snapshot, made.active(web)[0]!).rules).not.toContain('priority');
  });

  it('that is not wanted any more gives up its place, and nobody leaves for it', () => {
    const { made, of } = cluster(['web', { replicas: 4 }], ['api', { replicas: 1, priority: 9 }]);
    const [web, api] = of as [Service, Service];
    made.settle(web);
    made.decide(api);
    made.commit(scaleService(made.wish, api.id, 0));
    made.decide(api);
    settle(made, of);
    expect(states(made, web)).toEqual(['running', 'running', 'running', 'running']);
    expect(made.tasks(web)).toHaveLength(4);
  });
});
