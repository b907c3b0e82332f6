/** Where tasks may run and what of nodes they are given, as a Compose file says it. */
import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import { bad, errorsOf, resolveInput, specsOf, web } from '#test/support/compose.ts';

const placement = (lines: string) => `deploy: { placement: { ${lines} } }`;
const reserving = (lines: string) => `deploy: { resources: { reservations: { ${lines} } } }`;
const generic = (lines: string) => web(lines).template.reservations.generic;

describe('affinities', () => {
  it('name a service of the project or of another one, on a node where nothing else is said, required', () => {
    const text = `name: shop
services:
  db: { image: db }
  web:
    image: web
    deploy:
      placement:
        x-strategy: binpack
        x-affinity: [{ service: db }, { service: ops/cache, scope: node.labels.zone, mode: preferred }]
        x-anti-affinity: [{ service: web, scope: node.labels.zone }]`;
    const [, spec] = specsOf(resolve(resolveInput(text)));
    expect(spec?.placement).toMatchObject({
      strategy: 'binpack',
      affinities: [
        { service: 'shop/db', scope: 'node', apart: false, preferred: false },
        { service: 'ops/cache', scope: 'node.labels.zone', apart: false, preferred: true },
        { service: 'shop/web', scope: 'node.labels.zone', apart: true, preferred: false },
      ],
    });
  });

  it.each([
    [placement('x-affinity: [{ service: bd }]'), 'there is no service "bd" in the file → '],
    [placement('x-affinity: [{ scope: node }]'), 'it names no service → add service: NAME, or PROJECT/NAME'],
    [placement('x-affinity: { service: db }'), 'x-affinity must be a list'],
    [placement('x-affinity: [{ service: a/b/c }]'), '"a/b/c" cannot name a service → write NAME, or PROJECT/NAME'],
    [placement('x-affinity: [{ service: a/b, scope: zone }]'), '"zone" is nothing that nodes share → write node'],
    [placement('x-affinity: [{ service: a/b, mode: must }]'), '"must" is not one of required, preferred'],
    [placement('x-affinity: [{ service: a/b, wheight: 1 }]'), 'unknown key "wheight"'],
    [placement('x-strategy: pack'), '"pack" is not one of spread, binpack'],
    [
      placement('x-anti-affinity: [{ service: web, mode: preferred }]'),
      'what its own tasks would rather do is not an affinity → use preferences: - spread: …, or mode: required',
    ],
    [
      placement('x-affinity: [{ service: a/b }], x-anti-affinity: [{ service: a/b }]'),
      'it cannot be with a/b and apart from it in one node → keep one of the two',
    ],
    [
      'deploy: { mode: global, placement: { x-affinity: [{ service: a/b }] } }',
      'a global service has a task on each node: it is near everybody → use constraints, or replicas',
    ],
  ])('%s is refused', (lines, why) => {
    expect(bad(lines).join()).toContain(why);
  });

  it('is refused at its place', () => {
    const text =
      'services:\n  web:\n    image: web\n    deploy:\n      placement:\n        x-affinity: [{ service: bd }]\n';
    expect(errorsOf(text)[0]).toMatch(/^compose.yaml:6:22 services.web.deploy.placement.x-affinity\[0\]: /);
  });
});

describe('generic resources', () => {
  it('are asked by kind and number, or by name', () => {
    expect(
      generic(reserving('generic_resources: [{ discrete_resource_spec: { kind: NVIDIA-GPU, value: 2 } }]')),
    ).toEqual([{ kind: 'NVIDIA-GPU', count: 2, names: [] }]);
    expect(
      generic(reserving('devices: [{ capabilities: [compute, gpu], count: 1 }, { capabilities: [fpga] }]')),
    ).toEqual([
      { kind: 'gpu', count: 1, names: [] },
      { kind: 'fpga', count: 0, names: [] },
    ]);
    expect(generic(reserving('devices: [{ capabilities: [gpu], device_ids: [a, /dev/b] }]'))).toEqual([
      { kind: 'gpu', count: 2, names: ['a', '/dev/b'] },
    ]);
  });

  it('of gpus are all, or as devices', () => {
    expect(generic('gpus: all')).toEqual([{ kind: 'gpu', count: 0, names: [] }]);
    expect(generic('gpus: [{ count: 2 }]')).toEqual([{ kind: 'gpu', count: 2, names: [] }]);
  });

  it('say that no driver is asked', () => {
    const text = 'services: { web: { image: web, gpus: [{ driver: nvidia, count: 1 }] } }';
    const { warnings } = resolve(resolveInput(text)) as { warnings: readonly { message: string }[] };
    expect(warnings[0]?.message).toMatch(/the driver nvidia is not asked/);
  });

  it.each([
    ['gpus: 2', 'gpus must be all, or a list'],
    [reserving('generic_resources: [{ discrete_resource_spec: { value: 2 } }]'), '"" is not a kind of resources'],
    [reserving('generic_resources: [{ discrete_resource_spec: { kind: gpu, value: 0 } }]'), '0 is not a whole number'],
    [reserving('generic_resources: [{ named_resource_spec: { kind: gpu } }]'), 'unknown key "named_resource_spec"'],
    [reserving('devices: [{ count: 1 }]'), 'this device has no capabilities'],
    [reserving('devices: [{ capabilities: [gpu], count: 1, device_ids: [a] }]'), 'exclude each other'],
    [reserving('devices: [{ capabilities: [gpu], options: { a: b } }]'), 'no driver is there to read them'],
    [`gpus: all\n${reserving('devices: [{ capabilities: [gpu] }]')}`, 'gpu is asked for at services.web.gpus too'],
  ])('%s is refused', (lines, why) => {
    expect(bad(lines).join()).toContain(why);
  });
});
