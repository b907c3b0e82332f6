/** Every key of Compose's networks: what it means, or why it is refused, where, and what to write instead. */
import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import type { NetworkSpec } from '#proto/model/network.ts';
import { bad, errorsOf, resolveInput, specsOf, web } from '#test/support/compose.ts';

function resolved(text: string, ...more: string[]) {
  const files = [text, ...more].map((text, at) => ({ path: `${at}.yaml`, text }));
  const resolution = resolve(resolveInput('', { files }));
  if (resolution.kind !== 'specs') throw new Error(JSON.stringify(resolution, null, 1));
  return resolution;
}

/** The network `n` with these lines, on which a service is. */
function network(lines: string): NetworkSpec {
  const indented = lines.replace(/^(?=.)/gm, '    ');
  const { networks } = resolved(`services: { web: { image: a, networks: [n] } }\nnetworks:\n  n:\n${indented}\n`);
  return networks[0]!.spec;
}

/** The errors of a network `n` with these lines, the first of which is line 4. */
const badNetwork = (lines: string) =>
  errorsOf(`services: { web: { image: a, networks: [n] } }\nnetworks:\n  n:\n${lines.replace(/^(?=.)/gm, '    ')}\n`);

const plain: NetworkSpec = {
  name: 'shop_n',
  project: 'shop',
  driver: 'cluster',
  internal: false,
  ipv6: false,
  encrypted: false,
  subnets: [],
  parent: '',
  labels: {},
};

describe('a network of the file', () => {
  it.each<readonly [string, Partial<NetworkSpec>]>([
    ['', {}],
    ['name: front', { name: 'front' }],
    ['driver: bridge', {}],
    ['driver: overlay\ndriver_opts: { encrypted: "" }', { encrypted: true }],
    ['driver: overlay\nattachable: true', {}],
    ['driver: macvlan\ndriver_opts: { parent: eth0, macvlan_mode: bridge }', { driver: 'macvlan', parent: 'eth0' }],
    ['internal: true', { internal: true }],
    ['enable_ipv6: true\nenable_ipv4: true', { ipv6: true }],
    ['labels: [a=b, c]', { labels: { a: 'b', c: '' } }],
    ['labels: { a: b }', { labels: { a: 'b' } }],
    ['driver_opts: { com.docker.network.bridge.enable_icc: "true" }', {}],
    [
      'ipam:\n  driver: default\n  config:\n    - { subnet: 172.28.0.0/16, gateway: 172.28.0.1, ip_range: 172.28.5.0/24, aux_addresses: { router: 172.28.5.9 } }',
      {
        subnets: [
          { subnet: '172.28.0.0/16', gateway: '172.28.0.1', ipRange: '172.28.5.0/24', reserved: ['172.28.5.9'] },
        ],
      },
    ],
  ])('with %j is as it says', (lines, fields) => {
    expect(network(lines)).toEqual({ ...plain, ...fields });
  });

  it.each([
    [
      'driver: ipvlan',
      '4:13 networks.n.driver: the driver "ipvlan" is not supported by Gantry yet → use bridge, overlay or macvlan, or remove it',
    ],
    [
      'driver: host',
      '4:13 networks.n.driver: "host" is not a driver of networks → write network_mode: host at the service',
    ],
    ['drivr: overlay', '4:5 networks.n.drivr: unknown key "drivr" → did you mean "driver"?'],
    ['enable_ipv4: false', '4:18 networks.n.enable_ipv4: every task has an IPv4 address → remove it, or write true'],
    [
      'driver_opts: { parent: eth0 }',
      '4:20 networks.n.driver_opts.parent: only networks of the driver macvlan have a parent → write driver: macvlan',
    ],
    [
      'driver_opts: { com.docker.network.driver.mtu: 1400 }',
      '4:20 networks.n.driver_opts.com.docker.network.driver.mtu: "com.docker.network.driver.mtu: 1400" is not supported → remove it: the MTU of each path is measured',
    ],
    [
      'driver_opts: { com.docker.network.bridge.enable_icc: "false" }',
      '4:20 networks.n.driver_opts.com.docker.network.bridge.enable_icc: "com.docker.network.bridge.enable_icc: false" is not supported → say who may call a service by x-allow-from',
    ],
    [
      'driver_opts: { speed: fast }',
      '4:20 networks.n.driver_opts.speed: the driver has no option "speed" in Gantry → remove it; parent and encrypted exist',
    ],
    [
      'ipam: { driver: custom }',
      '4:21 networks.n.ipam.driver: the ipam driver "custom" is not supported by Gantry yet → remove it',
    ],
    [
      'ipam: { options: { a: b } }',
      '4:13 networks.n.ipam.options: "options" is not supported by Gantry yet → remove it',
    ],
    [
      'ipam: { config: [{ gateway: 172.28.0.1 }] }',
      '4:22 networks.n.ipam.config[0]: this has no subnet → write - subnet: 172.28.0.0/16',
    ],
    [
      'ipam: { config: [{ subnet: "fd00::/64" }] }',
      '4:32 networks.n.ipam.config[0].subnet: "fd00::/64" is IPv6: addresses of that kind follow from the IPv4 ones → remove it, and write enable_ipv6: true',
    ],
    [
      'external: true\ninternal: true',
      '5:5 networks.n.internal: what is external is as it was made: it has no internal: here → remove it, or remove external:',
    ],
    [
      'external: true\nname: host',
      '3:3 networks.n: "host" is no network of the cluster → write network_mode: host at the service',
    ],
    ['name: "a b"', '3:3 networks.n: "a b" cannot name a network → use letters, digits, ., - and _'],
  ])('with %j is refused', (lines, words) => {
    expect(badNetwork(lines)).toEqual([`compose.yaml:${words}`]);
  });

  it('is made only where a service is on it; the default one by the same rule', () => {
    const text = 'services: { web: { image: a, networks: [n] } }\nnetworks: { n: {}, m: {}, x-note: {} }';
    expect(resolved(text).networks.map(({ spec }) => spec.name)).toEqual(['shop_n']);
    expect(resolved('services: { web: { image: a } }').networks.map(({ spec }) => spec.name)).toEqual(['shop_default']);
    const host = 'services: { web: { image: a, network_mode: host } }';
    expect(resolved(host).networks).toEqual([]);
  });

  it('may be the default one, under another name', () => {
    const text = 'services: { web: { image: a } }\nnetworks: { default: { name: all, external: true } }';
    const { networks, services } = resolved(text);
    expect(networks).toMatchObject([{ external: true, spec: { name: 'all' } }]);
    expect(services[0]!.spec.template.networks).toEqual([{ network: 'all', aliases: [], ipv4Address: '' }]);
  });

  it('may be named within external, in the older way', () => {
    const text = 'services: { web: { image: a } }\nnetworks: { default: { external: { name: all } } }';
    expect(resolved(text).networks).toMatchObject([{ external: true, spec: { name: 'all' } }]);
  });

  it('does not share its name with another one', () => {
    expect(errorsOf('services: { web: { image: a } }\nnetworks: { a: { name: x }, b: { name: x } }')).toEqual([
      'compose.yaml:2:29 networks.b: networks.a is called "x" too → give one of them another name:',
    ]);
  });

  it('is laid over that of an earlier file key by key, and so are memberships', () => {
    const { networks, services } = resolved(
      'services: { web: { image: a, networks: [n] } }\nnetworks: { n: { internal: true, labels: [a=1] }, m: {} }',
      'services: { web: { networks: { n: { aliases: [www] }, m: } } }\nnetworks: { n: { labels: { b: 2 } } }',
    );
    expect(networks[0]!.spec).toMatchObject({ internal: true, labels: { a: '1', b: '2' } });
    expect(services[0]!.spec.template.networks).toEqual([
      { network: 'shop_n', aliases: ['www'], ipv4Address: '' },
      { network: 'shop_m', aliases: [], ipv4Address: '' },
    ]);
  });
});

describe('a service', () => {
  const on = (networks: string) =>
    specsOf(
      resolved(`services: { web: { image: a, networks: ${networks} } }\nnetworks: { front: {}, back: {}, last: {} }`),
    )[0]!.template.networks;

  it('is on the networks that it names, the one of the highest priority first', () => {
    expect(on('[front, default]').map(({ network }) => network)).toEqual(['shop_front', 'shop_default']);
    expect(on('[]').map(({ network }) => network)).toEqual(['shop_default']);
    expect(
      on('{ front: , back: { aliases: [db, db.local], priority: 10 }, last: { ipv4_address: 172.28.0.5 } }'),
    ).toEqual([
      { network: 'shop_back', aliases: ['db', 'db.local'], ipv4Address: '' },
      { network: 'shop_front', aliases: [], ipv4Address: '' },
      { network: 'shop_last', aliases: [], ipv4Address: '172.28.0.5' },
    ]);
  });

  it.each([
    ['network_mode: host', 'host'],
    ['network_mode: none', 'none'],
  ] as const)('with %s is on none', (line, mode) => {
    expect(web(line).template).toMatchObject({ networkMode: mode, networks: [] });
  });

  it('with network_mode: bridge is on the default one', () => {
    expect(web('network_mode: bridge').template).toMatchObject({
      networkMode: '',
      networks: [{ network: 'shop_default' }],
    });
  });

  it('has the network of another service, slot by slot', () => {
    const text = (web: string, side: string) =>
      `services: { web: { image: a${web} }, side: { image: b, network_mode: "service:web"${side} } }`;
    expect(specsOf(resolved(text('', '')))[1]!.template).toMatchObject({ networkMode: 'service:web', networks: [] });
    expect(errorsOf(text(', scale: 2', ''))).toEqual([
      "compose.yaml:1:74 services.side.network_mode: service web has 2 replicas, this one 1: each of its tasks is in the network of one of the other's → give both as many",
    ]);
    expect(errorsOf(text(', deploy: { mode: global }', ''))[0]).toContain('service web is global, this one replicated');
    expect(errorsOf(text(', network_mode: host', ''))[0]).toContain(
      'service web has no network of its own, with network_mode: host → write network_mode: host here too',
    );
    expect(errorsOf(text('', ', ports: ["80:80"]'))[0]).toContain(
      'the ports are those of the service whose network it has → publish them at service web',
    );
    const circle = errorsOf(text(', network_mode: "service:side"', ''));
    expect(circle).toHaveLength(3);
    expect(circle.join()).toContain('services wait for each other: web → side → web');
    expect(bad('network_mode: service:web')).toEqual([
      'compose.yaml:4:19 services.web.network_mode: service web names itself → name another service',
    ]);
    expect(bad('network_mode: service:wbe')[0]).toContain('there is no service "wbe" in the file');
  });

  it('on its host’s network publishes the ports it listens on, as the host’s', () => {
    const { ports } = web('network_mode: host\nports: ["4000:4000", "5000-5001:5000-5001/udp", "6000"]');
    expect(ports).toEqual([
      { target: 4000, published: 4000, protocol: 'tcp', mode: 'host' },
      { target: 5000, published: 5000, protocol: 'udp', mode: 'host' },
      { target: 5001, published: 5001, protocol: 'udp', mode: 'host' },
      { target: 6000, published: 6000, protocol: 'tcp', mode: 'host' },
    ]);
    expect(bad('network_mode: host\nports: ["80:4000"]')).toEqual([
      `compose.yaml:5:13 services.web.ports[0]: with network_mode: host port 4000 is the host's own: it cannot be published as 80 → write "4000:4000", and let the process listen on another port where that is taken`,
    ]);
  });

  it('publishes ports of SCTP too, and ranges', () => {
    expect(web('ports: ["3868:3868/sctp", { target: 80, published: 8080, protocol: sctp, mode: host }]').ports).toEqual(
      [
        { target: 3868, published: 3868, protocol: 'sctp', mode: 'ingress' },
        { target: 80, published: 8080, protocol: 'sctp', mode: 'host' },
      ],
    );
    expect(web('ports: ["8000-8002:80-82"]').ports.map(({ published, target }) => [published, target])).toEqual([
      [8000, 80],
      [8001, 81],
      [8002, 82],
    ]);
  });

  it('is linked to others of the file, by their names or another', () => {
    const text = 'services: { db: { image: a }, web: { image: a, links: [db, "db:store"] } }';
    expect(specsOf(resolved(text))[1]!.template.container.links).toEqual([
      { service: 'db', alias: 'db' },
      { service: 'db', alias: 'store' },
    ]);
    expect(bad('links: [dbb]')[0]).toContain('services.web.links[0]: there is no service "dbb" in the file');
    expect(bad('links: ["a:b:c"]')[0]).toContain('"a:b:c" is not a link → write SERVICE or SERVICE:ALIAS');
  });

  it('says who may call it, how it balances, how fast it may be and how long it drains', () => {
    const spec = web(
      'x-allow-from: [web, other/api]\nx-sticky: client\nx-bandwidth: { egress: 10mbit, ingress: 1.5gbit }\nx-drain: 500ms',
    );
    expect(spec.allowFrom).toEqual({ services: ['web', 'other/api'] });
    expect(spec.sticky).toBe('client');
    expect(spec.template.bandwidth).toEqual({ egressBitsPerSecond: 1e7, ingressBitsPerSecond: 1.5e9 });
    expect(spec.template.container.drainMs).toBe(500);
    expect(web('x-allow-from: "*"').allowFrom).toEqual({ services: ['*'] });
    expect(web('x-allow-from: []').allowFrom).toEqual({ services: [] });
    expect(web('').allowFrom).toBeUndefined();
    expect(web('x-sticky: none').sticky).toBe('');
    expect(web('x-bandwidth: { egress: 64kbit }').template.bandwidth).toEqual({
      egressBitsPerSecond: 64_000,
      ingressBitsPerSecond: 0,
    });
  });

  it.each([
    [
      'networks: [frnt]',
      '4:16 services.web.networks[0]: network "frnt" is not declared → add it under the top-level networks:',
    ],
    ['networks: [dfault]', '4:16 services.web.networks[0]: network "dfault" is not declared → did you mean "default"?'],
    [
      'networks: [default, default]',
      '4:25 services.web.networks[1]: network "shop_default" is named twice → keep one of them',
    ],
    ['networks: front', '4:15 services.web.networks: networks must be a list or a map → write networks: [front]'],
    [
      'networks: { default: { ipv6_address: "fd00::5" } }',
      '4:28 services.web.networks.default.ipv6_address: "ipv6_address" is not supported by Gantry yet → remove it: the IPv6 address follows from the IPv4 one, which ipv4_address sets',
    ],
    [
      'networks: { default: { link_local_ips: [169.254.1.1] } }',
      '4:28 services.web.networks.default.link_local_ips: "link_local_ips" is not supported by Gantry yet → remove it',
    ],
    [
      'networks: { default: { mac_address: "02:42:ac:11:00:02" } }',
      '4:28 services.web.networks.default.mac_address: "mac_address" is not supported by Gantry yet → remove it',
    ],
    [
      'networks: { default: { gw_priority: 1 } }',
      '4:28 services.web.networks.default.gw_priority: "gw_priority" is not supported by Gantry yet → remove it: tasks leave the cluster by their host',
    ],
    [
      'networks: { default: { interface_name: eth7 } }',
      '4:28 services.web.networks.default.interface_name: "interface_name" is not supported by Gantry yet → remove it: interfaces are called eth0, eth1 …',
    ],
    [
      'networks: { default: { driver_opts: { a: b } } }',
      '4:28 services.web.networks.default.driver_opts: "driver_opts" is not supported by Gantry yet → remove it',
    ],
    [
      'networks: { default: { aliases: ["a b"] } }',
      '4:38 services.web.networks.default.aliases[0]: "a b" is not a host name → use letters, digits, . and -, at most 63 each',
    ],
    [
      'network_mode: container:abc',
      '4:19 services.web.network_mode: a container is not known beforehand → write network_mode: service:NAME',
    ],
    [
      'network_mode: slirp',
      '4:19 services.web.network_mode: "slirp" is not a network mode → write host, none or service:NAME, or name a network under networks:',
    ],
    [
      'network_mode: host\nnetworks: [default]',
      '5:15 services.web.networks: with network_mode: host there are no networks → keep one of the two',
    ],
    [
      'network_mode: none\nports: ["80:80"]',
      '5:13 services.web.ports[0]: with network_mode: none no port can be reached → remove ports:',
    ],
    [
      'network_mode: host\nx-bandwidth: { egress: 1mbit }',
      '5:18 services.web.x-bandwidth: with network_mode: host there is no interface of its own to limit → remove it',
    ],
    [
      'scale: 2\nnetworks: { default: { ipv4_address: 172.28.0.5 } }',
      '5:15 services.web.networks: only one task can have the address 172.28.0.5 → remove ipv4_address, or use one replica',
    ],
    [
      'deploy: { update_config: { order: start-first } }\nnetworks: { default: { ipv4_address: 172.28.0.5 } }',
      '5:15 services.web.networks: the new task cannot have the address 172.28.0.5 before the old one has gone → remove ipv4_address, or use order: stop-first',
    ],
    [
      'external_links: [x]',
      '4:5 services.web.external_links: "external_links" is not supported by Gantry yet → put both on an external network, and call it by NAME.PROJECT',
    ],
    [
      'x-allow-from: ["a b"]',
      '4:20 services.web.x-allow-from[0]: "a b" is not a service → write NAME, PROJECT/NAME or "*"',
    ],
    ['x-sticky: cookie', '4:15 services.web.x-sticky: "cookie" is not one of client, none → write one of client, none'],
    [
      'x-bandwidth: { egress: 10MB }',
      '4:28 services.web.x-bandwidth.egress: "10MB" is not a rate from 8kbit to 32gbit → write bits per second, such as 500kbit, 10mbit or 1gbit',
    ],
    [
      'x-drain: 2',
      '4:14 services.web.x-drain: 2 is not a duration such as 10s or 1m30s → write a duration such as 10s or 1m30s',
    ],
    ['x-drain: 2h', '4:14 services.web.x-drain: so long a drain is not allowed → at most 1h'],
  ])('with %j is refused', (lines, words) => {
    expect(bad(lines)).toEqual([`compose.yaml:${words}`]);
  });

  it('has its fixed address alone', () => {
    const one = 'image: a, networks: { default: { ipv4_address: 172.28.0.5 } }';
    expect(errorsOf(`services: { a: { ${one} }, b: { ${one} } }`)).toEqual([
      'compose.yaml:1:110 services.b.networks.default: 172.28.0.5 is the fixed address of services.a already → choose another one',
    ]);
  });

  it('on every node and one on its host’s network do not publish one port', () => {
    const host = 'image: a, network_mode: host, ports: ["4000:4000"]';
    expect(errorsOf(`services: { a: { ${host}, deploy: { mode: global } }, b: { ${host} } }`)[0]).toContain(
      'services.b.ports[0]: port 4000/tcp is already published by services.a',
    );
  });

  it('is warned of what looks like one of our own keys and is none', () => {
    const { warnings } = resolved('services: { web: { image: a, x-alow-from: [], x-note: 1 } }');
    expect(warnings.map(({ path, message, remedy }) => `${path}: ${message} → ${remedy}`)).toEqual([
      'services.web.x-alow-from: "x-alow-from" is ignored → did you mean "x-allow-from"?',
    ]);
  });
});
