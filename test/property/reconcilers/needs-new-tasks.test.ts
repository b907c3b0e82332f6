/** Which edits of a spec replace tasks, against the rule in plain words; and what is planned is what then happens. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { planTasks } from '#control-plane/controllers/plan.ts';
import { needsNewTasks } from '#control-plane/reconcilers/new-tasks.ts';
import { updateService } from '#control-plane/reconcilers/service-changes.ts';
import { containerSpec, defaults, type Port, type ServiceSpec } from '#proto/model/service.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

interface Edit {
  readonly name: string;
  /** In plain words: tasks of before are none of after. */
  readonly replaces: boolean;
  make(spec: ServiceSpec): ServiceSpec;
}

const port = (published: number, mode: Port['mode']): Port => ({ target: 80, published, protocol: 'tcp', mode });
const withContainer = (spec: ServiceSpec, fields: Partial<ServiceSpec['template']['container']>): ServiceSpec => ({
  ...spec,
  template: { ...spec.template, container: { ...spec.template.container, ...fields } },
});

const edits: readonly Edit[] = [
  {
    name: 'labels',
    replaces: false,
    make: (spec) => ({ ...spec, labels: { ...spec.labels, a: `${spec.replicas}x` } }),
  },
  { name: 'more replicas', replaces: false, make: (spec) => ({ ...spec, replicas: spec.replicas + 1 }) },
  { name: 'restart', replaces: false, make: (spec) => ({ ...spec, restart: { ...spec.restart, maxAttempts: 7 } }) },
  { name: 'update', replaces: false, make: (spec) => ({ ...spec, update: { ...spec.update, parallelism: 9 } }) },
  { name: 'rollback', replaces: false, make: (spec) => ({ ...spec, rollback: { ...spec.rollback, delayMs: 9 } }) },
  {
    name: 'gates',
    replaces: false,
    make: (spec) => ({
      ...spec,
      update: { ...spec.update, gates: [{ kind: 'pause', count: 1, percent: 0, holdMs: 0 }] },
    }),
  },
  { name: 'aliases', replaces: false, make: (spec) => ({ ...spec, aliases: [...spec.aliases, 'www'] }) },
  { name: 'callers', replaces: false, make: (spec) => ({ ...spec, allowFrom: { services: ['db'] } }) },
  {
    name: 'ingress port',
    replaces: false,
    make: (spec) => ({ ...spec, ports: [...spec.ports, port(8080, 'ingress')] }),
  },
  {
    name: 'a constraint that all meet',
    replaces: false,
    make: (spec) => ({ ...spec, placement: { ...spec.placement, constraints: ['node.labels.zone != x'] } }),
  },
  { name: 'host port', replaces: true, make: (spec) => ({ ...spec, ports: [...spec.ports, port(9090, 'host')] }) },
  { name: 'image', replaces: true, make: (spec) => withContainer(spec, { image: 'web:9' }) },
  { name: 'environment', replaces: true, make: (spec) => withContainer(spec, { env: ['A=b'] }) },
  { name: 'command', replaces: true, make: (spec) => withContainer(spec, { command: ['run'] }) },
];

it('makes new tasks of an edit exactly where the rule says so, and plan says the same', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.constantFrom(...edits), { minLength: 1, maxLength: 6 }), (chosen) => {
      const web = aService('web', {
        replicas: 2,
        template: aTemplate({ container: containerSpec('web:1') }),
        update: { ...defaults.update, parallelism: 0, monitorMs: 0 },
      });
      const cluster = new DecidedCluster(
        ['h1', 'h2', 'h3', 'h4'].map((name) => aNode(name)),
        [web],
      );
      cluster.settle(web);
      const old = new Set(cluster.active(web).map(({ id }) => id));
      const next = chosen.reduce((spec, edit) => edit.make(spec), web.spec);
      const replaces = chosen.some((edit) => edit.replaces);
      expect(needsNewTasks(web.spec, next)).toBe(replaces);
      const changes = updateService(cluster.wish, web.id, next);
      const planned = planTasks(cluster.snapshot, changes, cluster.now).get(web.id)!;
      cluster.commit(changes);
      for (let round = 0; round < 4; round++) {
        cluster.settle(web);
        // Gates are opened, one after the other.
        const { rollout, ...service } = cluster.service(web);
        if (rollout.state === 'held')
          cluster.put('service', { ...service, rollout: { ...rollout, state: 'updating', gatesPassed: 9 } });
      }
      const kept = cluster.active(web).filter(({ id }) => old.has(id)).length;
      expect(kept, chosen.map(({ name }) => name).join(', ')).toBe(replaces ? 0 : old.size);
      const begun = cluster.active(web).length - kept;
      expect(planned.filter(({ action }) => action === 'start')).toHaveLength(begun);
      expect(planned.filter(({ action }) => action === 'stop')).toHaveLength(old.size - kept);
    }),
    { numRuns: 300 },
  );
});
