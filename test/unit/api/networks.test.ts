/** Holds apply and `gantry network` to what networks are: made with their first service, everybody's ranges respected, gone when nobody is on them. */
import { describe, expect, it } from 'vitest';
import { apply } from '#control-plane/api/apply.ts';
import { inspect, list } from '#control-plane/api/list.ts';
import { createNetwork, removeNetwork } from '#control-plane/api/networks.ts';
import { ApplyRequest, ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { NetworkSpec } from '#proto/gen/gantry/v1/types.ts';
import { defaultNetworkOf } from '#proto/model/network.ts';
import { aCluster, aNetwork, aNode, aTask } from '#test/support/builders.ts';
import { type OperatorLab, operatorLab } from '#test/support/operator.ts';

function file(text: string, more: Partial<ApplyRequest> = {}): ApplyRequest {
  return ApplyRequest.create({
    files: [{ path: 'compose.yaml', text, missing: false }],
    composeFiles: 1,
    project: 'shop',
    answered: true,
    ...more,
  });
}

const wordsOf = ({ errors }: Awaited<ReturnType<typeof apply>>) =>
  errors.map(({ line, column, path, message, remedy }) => `${line}:${column} ${path}: ${message} → ${remedy}`);
const namesOf = (lab: OperatorLab) => [...lab.store.snapshot.all('network')].map(({ spec }) => spec.name).sort();
const numbersOf = (lab: OperatorLab) => [...lab.store.snapshot.all('network')].map(({ number }) => number).sort();
const web = 'services: { web: { image: "nginx:1" } }';
const withSubnet = (subnet: string, more = '') =>
  `services: { web: { image: "nginx:1", networks: [back] } }\nnetworks: { back: { ipam: { config: [{ subnet: ${subnet}${more} }] } } }`;

describe('apply', () => {
  it('makes the networks that services are on, and no others', async () => {
    const lab = operatorLab();
    const text = `services:
  web: { image: "nginx:1", networks: [front] }
  db: { image: "nginx:1" }
networks: { front: {}, unused: {} }`;
    const planned = await apply(lab.parts, file(text, { dryRun: true }));
    expect(planned.networks).toEqual([
      { action: 'create', name: 'shop_default', details: [] },
      { action: 'create', name: 'shop_front', details: [] },
    ]);
    expect(namesOf(lab)).toEqual([]);
    await apply(lab.parts, file(text));
    expect(namesOf(lab)).toEqual(['shop_default', 'shop_front']);
    expect(numbersOf(lab)).toEqual([1, 2]);
    expect((await apply(lab.parts, file(text))).networks.map(({ action }) => action)).toEqual([
      'unchanged',
      'unchanged',
    ]);
  });

  it('says which networks go with the services that are pruned, and what a service is on now', async () => {
    const lab = operatorLab();
    const rest = 'b: { image: "a:1", networks: [x] } }\nnetworks: { x: {}, y: {} }';
    await apply(lab.parts, file(`services: { a: { image: "a:1", networks: [y] }, ${rest}`));
    const dry = (text: string, prune: boolean) => apply(lab.parts, file(text, { dryRun: true, prune }));
    const { networks } = await dry(`services: { ${rest}`, true);
    expect(networks).toEqual([
      { action: 'unchanged', name: 'shop_x', details: [] },
      { action: 'remove', name: 'shop_y', details: ['no service is on it any more'] },
    ]);
    expect((await dry(`services: { ${rest}`, false)).networks).toHaveLength(1);
    const moved = await dry(
      `services: { ${rest.replace('[x]', '{ y: { aliases: [bee], ipv4_address: 1.2.3.4 } }')}`,
      false,
    );
    expect(moved.errors).toHaveLength(1);
    const joined = await dry(`services: { ${rest.replace('[x]', '{ x: , y: { aliases: [bee] } }')}`, false);
    expect(joined.changes[0]!.details).toEqual(['networks: shop_x → shop_x shop_y (as bee)']);
  });

  it('gives every network a number of its own, however many are made at once', async () => {
    const lab = operatorLab();
    const projects = Array.from({ length: 100 }, (_, at) => `p${at}`);
    const all = await Promise.all(projects.map((project) => apply(lab.parts, file(web, { project }))));
    expect(all.flatMap(({ errors }) => errors)).toEqual([]);
    expect(namesOf(lab)).toEqual(projects.map(defaultNetworkOf).sort());
    expect(new Set(numbersOf(lab)).size).toBe(100);
    expect(Math.max(...numbersOf(lab))).toBe(100);
  });

  it('of two that ask for one range at once refuses the second, naming the first', async () => {
    const lab = operatorLab();
    const both = await Promise.all([
      apply(lab.parts, file(withSubnet('172.28.0.0/16'), { project: 'a' })),
      apply(lab.parts, file(withSubnet('172.28.7.0/24'), { project: 'b' })),
    ]);
    expect(both.flatMap(wordsOf)).toEqual([
      '2:13 networks.back: subnet 172.28.7.0/24 of network b_back overlaps network a_back, 172.28.0.0/16 → choose another one',
    ]);
    expect(namesOf(lab)).toEqual(['a_back']);
  });

  it.each([
    ['10.193.0.0/16', 'the addresses of tasks, 10.192.0.0/11'],
    ['10.224.0.0/24', 'the addresses of services, 10.224.0.0/14'],
    ['10.90.0.0/24', 'the network that node h1 is on, 10.90.0.1/16'],
    ['192.168.7.0/24', '192.168.0.0/16, which node h1 has a route to'],
    ['127.0.0.0/24', undefined],
  ])('refuses the range %s, which is somebody else’s', async (subnet, owner) => {
    const lab = operatorLab();
    await lab.put('cluster', aCluster());
    await lab.put('node', aNode('h1', { foreignNetworks: ['192.168.0.0/16'] }));
    const [words] = wordsOf(await apply(lab.parts, file(withSubnet(subnet))));
    expect(words).toContain(owner ? `overlaps ${owner} → choose another one` : 'overlaps the loopback addresses');
  });

  it.each([
    ['172.28.1.0/16', '"172.28.1.0/16" is not an IPv4 range'],
    ['172.28.0.0/30', 'has not from 8 to 2^24 addresses'],
    ['172.28.0.0/16, ip_range: 172.29.0.0/24', 'ip_range 172.29.0.0/24 is not within 172.28.0.0/16'],
    ['172.28.0.0/16, gateway: 172.29.0.1', 'gateway 172.29.0.1 is not within 172.28.0.0/16'],
    ['172.28.0.0/16, aux_addresses: { a: 172.29.0.1 }', 'aux_addresses: 172.29.0.1 is not within 172.28.0.0/16'],
  ])('refuses the range %s, which is none', async (subnet, words) => {
    expect(wordsOf(await apply(operatorLab().parts, file(withSubnet(subnet))))[0]).toContain(words);
  });

  it('wants an external network to be there, and leaves it as it is', async () => {
    const lab = operatorLab();
    const text = 'services: { web: { image: "nginx:1", networks: [all] } }\nnetworks: { all: { external: true } }';
    expect(wordsOf(await apply(lab.parts, file(text)))).toEqual([
      '2:13 networks.all: network all is external, and there is none of that name → make it: gantry network create all, or apply the project that has it first',
    ]);
    await createNetwork(lab.parts, { spec: NetworkSpec.create({ name: 'all', internal: true }) });
    expect((await apply(lab.parts, file(text))).errors).toEqual([]);
    expect(lab.store.snapshot.get('network', 'all')!.value.spec).toMatchObject({ project: '', internal: true });
  });

  it('takes nobody’s network over by its name', async () => {
    const lab = operatorLab();
    const text = (project: string) => [
      file('services: { web: { image: "a:1", networks: [x] } }\nnetworks: { x: { name: shared } }', { project }),
    ];
    await apply(lab.parts, text('a')[0]!);
    expect(wordsOf(await apply(lab.parts, text('b')[0]!))).toEqual([
      '2:13 networks.x: network shared belongs to project a → write external: true to be on it, or give this one another name:',
    ]);
  });

  it('changes in place what tasks do not notice, and the rest only without tasks', async () => {
    const lab = operatorLab();
    const text = (more: string) => `services: { web: { image: "a:1", networks: [x] } }\nnetworks: { x: { ${more} } }`;
    await apply(lab.parts, file(text('')));
    const [service] = [...lab.store.snapshot.all('service')];
    const internal = await apply(lab.parts, file(text('internal: true')));
    expect(internal.networks).toEqual([{ action: 'update', name: 'shop_x', details: ['internal: false → true'] }]);
    expect((await apply(lab.parts, file(text('enable_ipv6: true')))).errors).toEqual([]);
    await lab.put(
      'task',
      aTask('web1', {
        serviceId: service!.id,
        nodeId: aNode('h1').id,
        project: 'shop',
        serviceName: 'web',
        revision: 1,
      }),
    );
    expect((await apply(lab.parts, file(text('enable_ipv6: true, internal: true')))).errors).toEqual([]);
    expect(wordsOf(await apply(lab.parts, file(text('internal: true'))))).toEqual([
      '2:13 networks.x: network shop_x cannot get another ipv6 under shop/web → remove the services that are on it, or give the network another name',
    ]);
  });

  it('refuses a fixed address that the network does not have for it', async () => {
    const lab = operatorLab();
    const text = (address: string, name = 'web') =>
      `services:
  ${name}: { image: "a:1", networks: { x: { ipv4_address: ${address} } } }
networks: { x: { ipam: { config: [{ subnet: 172.28.0.0/24, gateway: 172.28.0.9, aux_addresses: { r: 172.28.0.8 } }] } } }`;
    for (const [address, words] of [
      ['172.29.0.5', '172.29.0.5 is not within 172.28.0.0/24 of network shop_x'],
      ['172.28.0.9', '172.28.0.9 is the gateway of network shop_x'],
      ['172.28.0.8', '172.28.0.8 is set aside by aux_addresses'],
      ['172.28.0.255', '172.28.0.255 is the first or last of 172.28.0.0/24: no host may have it'],
      ['172.28.0', '"172.28.0" is not an IPv4 address'],
    ] as const)
      expect(wordsOf(await apply(lab.parts, file(text(address))))).toEqual([
        `2:${name('web')} services.web.networks.x: ${words} → choose another ipv4_address`,
      ]);
    expect((await apply(lab.parts, file(text('172.28.0.5')))).errors).toEqual([]);
    expect(wordsOf(await apply(lab.parts, file(text('172.28.0.5', 'other'))))[0]).toContain(
      '172.28.0.5 is the fixed address of service shop/web',
    );
    function name(service: string): number {
      return `  ${service}: { image: "a:1", networks: { `.length + 1;
    }
  });

  it('refuses ports where only internal networks are, and callers that nobody knows', async () => {
    const lab = operatorLab();
    const text = `services:
  web: { image: "a:1", ports: ["80:80"], networks: [x], x-allow-from: [ap, other/api] }
  api: { image: "a:1", networks: [x], x-allow-from: web }
networks: { x: { internal: true } }`;
    const response = await apply(lab.parts, file(text));
    expect(wordsOf(response)).toEqual([
      '2:32 services.web.ports[0]: service web is on internal networks only: nobody outside may reach it → remove ports:, or put it on a network that is not internal too',
      '2:72 services.web.x-allow-from[0]: there is no service shop/ap → did you mean "api"?',
    ]);
    expect(response.warnings.map(({ message }) => message)).toEqual([
      'there is no service other/api yet: it may call when it is there',
    ]);
  });

  it('refuses a port of the host that another service has on every node', async () => {
    const lab = operatorLab();
    const one = 'services: { a: { image: "a:1", network_mode: host, ports: ["4000:4000"], deploy: { mode: global } } }';
    expect((await apply(lab.parts, file(one, { project: 'one' }))).errors).toEqual([]);
    const two = 'services: { b: { image: "a:1", network_mode: host, ports: ["4000:4000"] } }';
    expect(wordsOf(await apply(lab.parts, file(two, { project: 'two' })))).toEqual([
      '1:60 services.b.ports[0]: port 4000/tcp is published by service one/a → publish another port, or remove that service',
    ]);
  });
});

describe('gantry network', () => {
  it('lists networks with who is on them', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(withSubnet('172.28.0.0/16')));
    const [service] = [...lab.store.snapshot.all('service')];
    const task = aTask('web1', {
      serviceId: service!.id,
      project: 'shop',
      serviceName: 'web',
      nodeId: aNode('h1').id,
      nodeName: 'h1',
      address: '10.192.1.2',
      addresses: [{ network: 'shop_back', address: '172.28.0.2' }],
    });
    await lab.put('task', task);
    const { networks } = list(lab.parts, ListRequest.create({ kind: 'network' }));
    expect(networks).toHaveLength(1);
    expect(networks[0]).toMatchObject({ network: { number: 1, spec: { name: 'shop_back' } }, services: ['shop/web'] });
    const { object } = inspect(lab.parts, { name: 'shop_back', kind: 'network' });
    expect(object?.$case === 'network' && object.value.members).toEqual([
      { task: 'shop/web.1', taskId: task.id, node: 'h1', address: '10.192.1.2', networkAddress: '172.28.0.2' },
    ]);
    expect(() => inspect(lab.parts, { name: 'shop_bak', kind: 'network' })).toThrow('there is no network "shop_bak"');
  });

  it('removes none that is in use, and says by whom', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(web));
    await lab.put('network', aNetwork('free'));
    await expect(removeNetwork(lab.parts, { names: ['free', 'shop_default'] })).rejects.toThrow(
      'network shop_default is in use by shop/web',
    );
    expect(namesOf(lab)).toEqual(['free', 'shop_default']);
    await removeNetwork(lab.parts, { names: ['free'] });
    expect(namesOf(lab)).toEqual(['shop_default']);
    await expect(removeNetwork(lab.parts, { names: ['free'] })).rejects.toThrow('there is no network free');
  });

  it('makes none twice, none without what its driver needs, and none encrypted where the cluster is not', async () => {
    const lab = operatorLab();
    const create = (spec: Partial<NetworkSpec>) =>
      createNetwork(lab.parts, { spec: NetworkSpec.create({ name: 'n', ...spec }) });
    expect(await create({})).toMatchObject({ number: 1, spec: { name: 'n', driver: 'cluster', project: '' } });
    await expect(create({})).rejects.toThrow('network n is there already');
    await expect(create({ name: 'm', driver: 'macvlan' })).rejects.toThrow('needs the link of the hosts');
    await expect(create({ name: 'm', driver: 'macvlan', parent: 'eth0' })).rejects.toThrow('needs the subnet');
    await expect(create({ name: 'm', encrypted: true })).rejects.toThrow('the cluster does not encrypt');
    await expect(create({ name: 'a b' })).rejects.toThrow('"a b" cannot name a network');
    await expect(create({ name: 'm', driver: 'ipvlan' })).rejects.toThrow('ipvlan');
    await lab.put('node', aNode('h1', { foreignNetworks: ['192.168.0.0/16'] }));
    const subnets = [{ subnet: '192.168.7.0/24', gateway: '192.168.7.1', ipRange: '192.168.7.128/25', reserved: [] }];
    expect(await create({ name: 'm', driver: 'macvlan', parent: 'eth0', subnets })).toMatchObject({ number: 2 });
  });
});
