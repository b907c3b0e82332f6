/** What `gantry rollout status` and `gantry history` say, and who they say asked. */
import { describe, expect, it } from 'vitest';
import { history } from '#control-plane/api/history.ts';
import { statusOf } from '#control-plane/api/rollout-status.ts';
import { resume, rollback, scale } from '#control-plane/api/services.ts';
import { createService, updateService, type WishContext } from '#control-plane/reconcilers/service-changes.ts';
import { type HistoryEntry, ServiceRequest } from '#proto/gen/gantry/v1/operator.ts';
import { containerSpec, defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { aNode, aService, aSpec, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';
import { operatorLab } from '#test/support/operator.ts';

const withImage = (image: string, env: readonly string[] = []) =>
  aTemplate({ container: containerSpec(image, { env }) });

describe('the status of a rollout', () => {
  const update: ServiceSpec['update'] = {
    ...defaults.update,
    monitorMs: 4_000,
    gates: [
      { kind: 'canary', count: 1, percent: 0, holdMs: 10_000 },
      { kind: 'pause', count: 0, percent: 50, holdMs: 0 },
    ],
  };

  function updating(): { cluster: DecidedCluster; web: Service } {
    const web = aService('web', { replicas: 4, update });
    const cluster = new DecidedCluster(
      ['h1', 'h2'].map((name) => aNode(name)),
      [web],
    );
    cluster.settle(web);
    cluster.commit(updateService(cluster.wish, web.id, { ...web.spec, template: withImage('web:2') }));
    return { cluster, web };
  }
  const said = ({ cluster, web }: ReturnType<typeof updating>) =>
    statusOf(cluster.snapshot, cluster.service(web), cluster.now);
  const rows = (status: ReturnType<typeof said>) =>
    status.seats.map(({ task, revision, stage, waitsFor }) => `${task} ${revision} ${stage}: ${waitsFor}`);

  it('names each seat, what it waits for, and the gates', () => {
    const made = updating();
    made.cluster.decide(made.web);
    expect(rows(said(made)).slice(0, 2)).toEqual(['web.1 1 moving: the new task: assigned', 'web.2 1 old: its turn']);
    made.cluster.obey(made.web);
    made.cluster.decide(made.web);
    expect(rows(said(made))[0]).toBe('web.1 2 moving: h1 to stop the old task');
    made.cluster.settle(made.web);
    made.cluster.now += 1_000;
    expect(rows(said(made)).slice(0, 2)).toEqual([
      'web.1 2 watched: to be well for another 3 s',
      'web.2 1 old: its turn',
    ]);
    made.cluster.now += 4_000;
    made.cluster.settle(made.web);
    const held = said(made);
    expect(rows(held).slice(0, 2)).toEqual(['web.1 2 new: ', 'web.2 1 old: the gate to be opened']);
    expect(held.summary).toMatch(
      /^web is at version 2, held, for 9 s: canary: 1 of 4 seats runs? .*; 1 of 4 seats run revision 2$/,
    );
    expect(held.gates).toEqual([
      { name: 'canary at 1', seats: 1, state: 'here', opens: 'in 9 s, or gantry rollout resume web' },
      { name: 'pause at 50%', seats: 2, state: 'ahead', opens: 'gantry rollout resume web' },
    ]);
  });

  it('has nothing to wait for when all is done', () => {
    const web = aService('web', { replicas: 1 });
    const cluster = new DecidedCluster([aNode('h1')], [web]);
    cluster.settle(web);
    expect(rows(said({ cluster, web }))).toEqual(['web.1 1 new: ']);
    expect(said({ cluster, web }).summary).toBe(
      'web is at version 1; it has had no rollout yet; 1 of 1 seats run revision 1',
    );
  });
});

describe('the history of a service', () => {
  async function changed(): Promise<{ lab: ReturnType<typeof operatorLab>; told: () => HistoryEntry[] }> {
    const lab = operatorLab();
    const commit = async (decide: (context: WishContext) => ReturnType<typeof createService>, by = '') => {
      const context = { snapshot: lab.store.snapshot, now: Date.now(), newId: () => 'w'.repeat(25), by };
      await lab.store.seen(await lab.store.commit(decide(context)));
    };
    const env = ['COLOUR=red', 'DB_PASSWORD=hidden1', 'URL=http://ann:hidden2@db/'];
    await commit((context) => createService(context, aSpec('web', { template: withImage('web:1', env) })));
    const [service] = [...lab.store.snapshot.all('service')];
    const next = {
      ...service!.spec,
      template: withImage('web:2', ['COLOUR=blue', 'DB_PASSWORD=hidden3', 'URL=http://ann:hidden4@db/', 'EXTRA=']),
    };
    await commit((context) => updateService(context, service!.id, next), 'ann');
    return { lab, told: () => history(lab.parts, { service: 'web' }).entries };
  }

  it('says what changed, by whom, and nothing that looks secret', async () => {
    const { told } = await changed();
    expect(
      told().map(({ version, by, outcome, current, previous }) => ({ version, by, outcome, current, previous })),
    ).toEqual([
      { version: 2, by: 'ann', outcome: 'updating', current: true, previous: false },
      { version: 1, by: '', outcome: 'completed', current: false, previous: true },
    ]);
    expect(told()[0]!.changes).toEqual([
      'image: web:1 → web:2',
      'environment: COLOUR red → blue',
      'environment: DB_PASSWORD changed',
      'environment: URL changed',
      'environment: EXTRA none → ""',
    ]);
    expect(JSON.stringify(told())).not.toMatch(/hidden/);
  });

  it('has scalings and rollbacks with the operator who asked', async () => {
    const { lab, told } = await changed();
    await scale(lab.parts, { replicas: { web: 5 } }, 'bob');
    await rollback(lab.parts, { services: ['web'], toVersion: 0 }, 'bob');
    expect(told().map(({ version, kind, why, by, outcome }) => [version, kind, why, by, outcome])).toEqual([
      [4, 'rollback', 'to version 1: asked for', 'bob', 'updating'],
      [3, 'scale', 'scaled to 5', 'bob', 'rolled-back'],
      [2, 'apply', 'applied', 'ann', 'replaced'],
      [1, 'apply', 'created', '', 'completed'],
    ]);
    expect(lab.store.snapshot.serviceNamed('demo', 'web')!.spec).toMatchObject({ replicas: 5 });
    await expect(rollback(lab.parts, { services: ['web'], toVersion: 0 })).rejects.toThrow(
      'service demo/web went back already, from version 3 to 4',
    );
    await expect(rollback(lab.parts, { services: ['web', 'db'], toVersion: 2 })).rejects.toThrow(
      'version numbers are those of one service',
    );
    await expect(resume(lab.parts, ServiceRequest.create({ services: ['web'] }))).rejects.toThrow(
      'is under way already',
    );
  });
});
