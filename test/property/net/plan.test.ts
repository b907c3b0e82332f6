/** Whatever the cluster looks like, applying the difference reaches the plan, and again changes nothing. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAddress } from '#net/plan/cidr.ts';
import {
  diffLinks,
  diffPlans,
  diffTables,
  type LinksSeen,
  type NetStep,
  type TableSeen,
  type TablesSeen,
} from '#net/plan/diff.ts';
import { describeFitting } from '#net/plan/fittings.ts';
import { nextAddress, nextSubnet } from '#net/plan/ipam.ts';
import {
  elementsOf,
  type NodePlan,
  type PlanInput,
  planNode,
  portNameOf,
  type Surroundings,
} from '#net/plan/node-plan.ts';
import { describeRule } from '#net/plan/return-path.ts';
import { routeKey } from '#net/plan/routes.ts';
import { isDispatchChain } from '#net/plan/rules.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';
import { attachment, backend, endpoint, network, networkWanted, peer } from '#test/support/endpoint.ts';
import { takeTunnelStep } from '#test/support/tunnel-steps.ts';

const port = fc.record({
  target: fc.integer({ min: 1, max: 3 }),
  published: fc.integer({ min: 0, max: 4 }),
  protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  mode: fc.constantFrom('ingress' as const, 'host' as const),
});
const backends = fc.uniqueArray(
  fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 2, max: 9 }), fc.boolean()),
  {
    maxLength: 5,
    selector: ([node, last]) => `${node}.${last}`,
  },
);
const services = fc.uniqueArray(
  fc.record({
    number: fc.integer({ min: 0, max: 6 }),
    mode: fc.constantFrom('vip' as const, 'dnsrr' as const),
    ports: fc.array(port, { maxLength: 3 }),
    backends,
    networks: fc.subarray(['a', 'b', 'c', 'lan']),
    allowFrom: fc.option(fc.subarray(['s0', 's1', 'shop/s2', 'other/s3', '*'], { maxLength: 2 }), { freq: 2 }),
    sticky: fc.constantFrom('' as const, '' as const, 'client' as const),
    counted: fc.boolean(),
    holdMs: fc.constantFrom(0, 30_000),
  }),
  { maxLength: 6, selector: (service) => service.number },
);
/** Networks a, b and c, and one of another driver; by the first three bits: none at all, a has IPv6, b is internal. */
const networksBy = (bits: number) =>
  bits & 1
    ? [
        network('a', 1, { ipv6: (bits & 2) !== 0 }),
        network('b', 2, { internal: (bits & 4) !== 0 }),
        network('c', 7, { subnets: [{ subnet: '172.28.0.0/16', gateway: '', ipRange: '', reserved: [] }] }),
        network('lan', 8, { driver: 'macvlan', parent: 'eth0' }),
      ]
    : [];
const keyOf = (number: number) => `${String(number).padStart(43, 'A')}=`;
const input: fc.Arbitrary<PlanInput> = fc
  .record({
    subnet: fc.constantFrom('10.192.1.0/24', '10.192.7.0/24'),
    peers: fc.uniqueArray(
      fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3 }), fc.boolean(), fc.boolean()),
      { maxLength: 5, selector: ([subnet]) => subnet },
    ),
    encapsulation: fc.constantFrom('auto' as const, 'always' as const, 'never' as const),
    encryption: fc.constantFrom('' as const, 'wireguard' as const),
    services,
    tasks: fc.uniqueArray(
      fc.tuple(
        fc.integer({ min: 2, max: 9 }),
        fc.array(port, { maxLength: 2 }),
        fc.subarray(['a', 'b', 'c', 'lan']),
        fc.integer({ min: 0, max: 6 }),
      ),
      { maxLength: 4, selector: ([last]) => last },
    ),
    bits: fc.integer({ min: 0, max: 7 }),
  })
  .map(({ subnet, peers, services, tasks, bits, encapsulation, encryption }) => ({
    ...networkWanted({ nodeId: 'n1', address: '10.90.0.1', subnet }, { address6: '2001:db8::1' }),
    encapsulation,
    encryption,
    networks: networksBy(bits),
    peers: peers.map(([number, via, far, dumb]) =>
      peer(`h${number}`, `10.90.${far ? 1 : 0}.${via}`, `10.192.${number}.0/24`, {
        nodeId: nodeId(`n${number}`),
        wireguardKey: dumb ? '' : keyOf(number),
      }),
    ),
    endpoints: services.map((service) =>
      endpoint(`s${service.number}`, {
        mode: service.mode,
        ports: service.ports,
        vip: service.mode === 'vip' ? `10.224.0.${service.number + 2}` : '',
        backends: service.backends.map(([node, last, serving]) => backend(`10.192.${node}.${last}`, { serving })),
        networks: service.networks.map((name) => ({ network: name, aliases: [] })),
        allowFrom: service.allowFrom ? { services: service.allowFrom } : undefined,
        sticky: service.sticky,
        counted: service.counted,
        holdMs: service.holdMs,
        ipv6: (bits & 3) === 3 && service.networks.includes('a'),
      }),
    ),
    attachments: tasks.map(([last, hostPorts, networks, service]) =>
      attachment(taskId(`t${last}`), subnet.replace('.0/24', `.${last}`), {
        hostPorts,
        networks,
        serviceId: serviceId(`service-s${service}`),
        addresses: networks.includes('c') ? [{ network: 'c', address: `172.28.0.${last}` }] : [],
      }),
    ),
  }));

interface Seen {
  links: LinksSeen;
  tables: TablesSeen;
}
const nothing: Seen = {
  links: {
    sysctls: new Map(),
    bridge: undefined,
    ports: new Set(),
    bridged: false,
    fittings: new Map(),
    routes: new Map(),
    rules: new Map(),
    tunnel: undefined,
    wireguard: undefined,
  },
  tables: { ip: undefined, ip6: undefined },
};
/** The node as it is with that plan's tasks, and its peers on the link but for one; two hosts have the same MAC; the way to one is narrow. */
const around = (plan: PlanInput): Surroundings => ({
  linkMtu: 1500,
  mtus: new Map(plan.peers.slice(0, 1).map((peer) => [peer.address, 1400])),
  wireguardKey: keyOf(0),
  bridged: plan.peers.length % 2 === 1,
  ports: new Set(plan.attachments.map((task) => portNameOf(task.taskId))),
  macs: new Map(
    plan.peers.slice(1).map((peer) => [peer.address, `02:00:00:00:00:0${Math.min(2, Number(peer.address.at(-1)))}`]),
  ),
});

/** A kernel in a few lines, which refuses what nftables would refuse. */
function take(seen: Seen, step: NetStep): Seen {
  const tunnelled = takeTunnelStep(seen.links, step);
  return tunnelled ? { ...seen, links: tunnelled } : takeOther(seen, step);
}

function takeOther(seen: Seen, step: NetStep): Seen {
  const { links, tables } = seen;
  const { bridge } = links;
  switch (step.kind) {
    case 'sysctl':
      return { ...seen, links: { ...links, sysctls: new Map(links.sysctls).set(step.name, step.value) } };
    case 'bridge':
      return { ...seen, links: { ...links, bridge: { mac: step.mac, up: true, addresses: bridge?.addresses ?? [] } } };
    case 'address-add':
    case 'address-remove': {
      if (!bridge) throw new Error('no bridge to have an address');
      const others = bridge.addresses.filter((address) => address !== step.address);
      const addresses = step.kind === 'address-add' ? [...others, step.address] : others;
      return { ...seen, links: { ...links, bridge: { ...bridge, addresses } } };
    }
    case 'port':
      if (!bridge) throw new Error('no bridge to be a port of');
      return { ...seen, links: { ...links, ports: new Set(links.ports).add(step.port), bridged: step.bridged } };
    case 'fitting': {
      if (!links.ports.has(portNameOf(step.taskId))) throw new Error('no link to fit');
      const own = new Map(links.fittings.get(step.taskId)).set(describeFitting(step.fitting), step.fitting);
      return { ...seen, links: { ...links, fittings: new Map(links.fittings).set(step.taskId, own) } };
    }
    case 'port-remove': {
      const ports = new Set(links.ports);
      if (!ports.delete(step.port)) throw new Error('no such port');
      return { ...seen, links: { ...links, ports } };
    }
    case 'route':
      return { ...seen, links: { ...links, routes: new Map(links.routes).set(routeKey(step.route), step.route) } };
    case 'rule': {
      const text = describeRule(step.rule);
      if (links.rules.has(text)) throw new Error(`there would be two rules ${text}`);
      return { ...seen, links: { ...links, rules: new Map(links.rules).set(text, step.rule) } };
    }
    case 'rule-remove': {
      const rules = new Map(links.rules);
      if (!rules.delete(describeRule(step.rule))) throw new Error('no such rule');
      return { ...seen, links: { ...links, rules } };
    }
    case 'route-remove': {
      const routes = new Map(links.routes);
      if (!routes.delete(routeKey(step.route))) throw new Error('no such route');
      return { ...seen, links: { ...links, routes } };
    }
    case 'table-replace':
      return {
        ...seen,
        tables: { ...tables, [step.family]: { declarations: step.declarations, elements: step.elements } },
      };
    case 'table-remove':
      return { ...seen, tables: { ...tables, [step.family]: undefined } };
    case 'table-update': {
      const table = tables[step.family];
      if (!table) throw new Error('no table to update');
      const declarations = new Map(table.declarations);
      const elements = new Map(table.elements);
      for (const [name, body] of step.addChains) declarations.set(name, body);
      for (const element of step.removeElements) if (!elements.delete(element)) throw new Error(`no ${element}`);
      for (const [element, value] of step.addElements) {
        if (elements.has(element)) throw new Error(`${element} exists`);
        if (value.startsWith('goto ') && !declarations.has(value.slice(5))) throw new Error(`no chain for ${value}`);
        elements.set(element, value);
      }
      for (const name of step.removeChains) {
        if ([...elements.values()].includes(`goto ${name}`)) throw new Error(`chain ${name} is in use`);
        declarations.delete(name);
      }
      return { ...seen, tables: { ...tables, [step.family]: { declarations, elements } } };
    }
    default:
      throw new Error(`nobody takes ${step.kind}`);
  }
}

function converge(plan: NodePlan, seen: Seen): Seen {
  return [...diffLinks(plan, seen.links), ...diffTables(plan, seen.tables)].reduce(take, seen);
}

/** As the loop takes them where it knows what the kernel holds. */
const stepsBetween = (plan: NodePlan, before: NodePlan) => [...diffLinks(plan, before), ...diffPlans(plan, before)];

function expectHeld(plan: NodePlan, seen: Seen) {
  expect([...diffLinks(plan, seen.links), ...diffTables(plan, seen.tables)]).toEqual([]);
  expect(seen.links.routes).toEqual(plan.routes);
  expect(seen.links.rules).toEqual(plan.rules);
  expect(seen.links.bridge).toEqual(plan.bridge);
  expect(seen.links.tunnel).toEqual(plan.tunnel);
  expect(seen.links.wireguard).toEqual(plan.wireguard);
  expect(seen.links.ports).toEqual(plan.ports);
  for (const [task, fittings] of plan.fittings) {
    for (const text of fittings.keys()) expect(seen.links.fittings.get(task)?.has(text)).toBe(true);
  }
  for (const [firewall, table] of [
    [plan.firewall, seen.tables.ip],
    [plan.firewall6, seen.tables.ip6],
  ] as const) {
    expect(table?.elements).toEqual(firewall && elementsOf(firewall));
    expect(table && new Map([...table.declarations].sort())).toEqual(
      firewall && new Map([...firewall.declarations].sort()),
    );
  }
}

describe('the steps of a diff', () => {
  it('lead from nothing to the plan, and from there nowhere', () => {
    fc.assert(
      fc.property(input, (wanted) => {
        const { plan } = planNode(wanted, around(wanted));
        expectHeld(plan, converge(plan, nothing));
      }),
    );
  });

  it('lead from any plan to any other', () => {
    fc.assert(
      fc.property(input, input, (first, second) => {
        const before = planNode(first, around(first)).plan;
        const { plan } = planNode(second, around(second));
        const seen = converge(plan, converge(before, nothing));
        expectHeld(plan, seen);
        expect(seen.links.routes).toEqual(plan.routes);
        expect([...diffLinks(plan, seen.links), ...diffTables(plan, seen.tables)]).toEqual([]);
      }),
    );
  });

  it('are found as well from the plan before as from the kernel, endpoints that stayed being taken over', () => {
    fc.assert(
      fc.property(input, input, fc.integer({ min: 0, max: 6 }), (first, other, kept) => {
        // Some endpoints stay the same objects, as they do in an agent.
        const taken = first.endpoints.slice(0, kept);
        const ids = new Set(taken.map((item) => item.serviceId));
        const second = {
          ...first,
          endpoints: [...taken, ...other.endpoints.filter((item) => !ids.has(item.serviceId))],
        };
        const before = planNode(first, around(first));
        const after = planNode(second, around(second), before);
        expect(after.plan).toEqual(planNode(second, around(second)).plan);
        const held = converge(before.plan, nothing);
        const seen = stepsBetween(after.plan, before.plan).reduce(take, held);
        expectHeld(after.plan, seen);
      }),
    );
  });

  it('follow any chain of changes, each planned from the plan before as it would be from nothing', () => {
    const change = fc.record({
      what: fc.constantFrom(
        'backends',
        'backends',
        'ports',
        'remove',
        'add',
        'reorder',
        'host port',
        'move',
        'guard',
        'hold',
        'networks',
        'leave' as const,
      ),
      which: fc.nat(20),
      backends,
      ports: fc.array(port, { maxLength: 2 }),
    });
    fc.assert(
      fc.property(input, fc.array(change, { maxLength: 8 }), (first, changes) => {
        let wanted = first;
        let planned = planNode(wanted, around(wanted));
        let seen = converge(planned.plan, nothing);
        for (const { what, which, backends, ports } of changes) {
          const serving = backends.map(([node, last, on]) => backend(`10.192.${node}.${last}`, { serving: on }));
          const at = wanted.endpoints[which % (wanted.endpoints.length || 1)];
          const put = (over: object) =>
            wanted.endpoints.map((item) => (item === at ? { ...item, backends: serving, ...over } : item));
          const free = endpoint(`t${which}`, { vip: `10.224.1.${which}`, backends: serving, ports: ports.slice(1) });
          const others = wanted.endpoints.filter((item) => item.serviceId !== free.serviceId);
          const next = {
            backends: () => ({ endpoints: put({}) }),
            ports: () => ({ endpoints: put({ ports }) }),
            remove: () => ({ endpoints: wanted.endpoints.filter((item) => item !== at) }),
            add: () => ({ endpoints: [...others.slice(0, which), free, ...others.slice(which)] }),
            reorder: () => ({ endpoints: [...wanted.endpoints].reverse() }),
            move: () => ({ endpoints: put({ networks: [{ network: 'abc'.charAt(which % 3), aliases: [] }] }) }),
            hold: () => ({ endpoints: put({ counted: which % 2 === 0, holdMs: which % 3 }) }),
            guard: () => ({ endpoints: put({ allowFrom: which % 2 ? { services: [`s${which % 6}`] } : undefined }) }),
            networks: () => ({ networks: networksBy(which % 8) }),
            leave: () => ({ attachments: wanted.attachments.slice(1) }),
            'host port': () => ({ attachments: wanted.attachments.map((task) => ({ ...task, hostPorts: ports })) }),
          }[what]();
          wanted = { ...wanted, ...next };
          const after = planNode(wanted, around(wanted), planned);
          expect(after.plan).toEqual(planNode(wanted, around(wanted)).plan);
          seen = stepsBetween(after.plan, planned.plan).reduce(take, seen);
          expectHeld(after.plan, seen);
          planned = after;
        }
      }),
    );
  });

  it('put back whatever was taken away', () => {
    fc.assert(
      fc.property(input, fc.nat(), (wanted, which) => {
        const { plan } = planNode(wanted, around(wanted));
        const whole = converge(plan, nothing);
        const table = whole.tables.ip as TableSeen;
        const withTable = (over: Partial<TableSeen>) => ({
          ...whole,
          tables: { ...whole.tables, ip: { ...table, ...over } },
        });
        const less = <K, V>(map: ReadonlyMap<K, V>) =>
          new Map([...map].filter((_, index) => index !== which % map.size));
        for (const damaged of [
          { ...whole, links: { ...whole.links, routes: less(whole.links.routes) } },
          ...(plan.rules.size > 0 ? [{ ...whole, links: { ...whole.links, rules: less(whole.links.rules) } }] : []),
          { ...whole, links: { ...whole.links, bridge: undefined, ports: new Set<string>() } },
          withTable({ elements: less(table.elements) }),
          withTable({ declarations: new Map([...table.declarations].filter(([name]) => isDispatchChain(name))) }),
          withTable({ declarations: new Map(table.declarations).set('input', 'chain input { drop; }') }),
        ]) {
          expect(diffLinks(plan, damaged.links).length + diffTables(plan, damaged.tables).length).toBeGreaterThan(0);
          expectHeld(plan, converge(plan, damaged));
        }
      }),
    );
  });
});

describe('allocation', () => {
  it('never gives what is taken, and gives everything there is', () => {
    fc.assert(
      fc.property(fc.integer({ min: 24, max: 29 }), fc.integer({ min: 0, max: 255 }), (prefix, start) => {
        const used = new Set<string>();
        let last: string | undefined = formatAddress(0x0a000000 + start);
        for (
          let next = nextAddress(`10.0.0.0/${prefix}`, used, last);
          next;
          next = nextAddress(`10.0.0.0/${prefix}`, used, last)
        ) {
          expect(used.has(next)).toBe(false);
          used.add(next);
          last = next;
        }
        expect(used.size).toBe(2 ** (32 - prefix) - 3);
      }),
      { numRuns: 30 },
    );
  });

  it('fills a network with subnets that do not overlap', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 20, max: 24 }),
        fc.uniqueArray(fc.integer({ min: 0, max: 15 })),
        (prefix, removed) => {
          const used: string[] = [];
          for (let next = nextSubnet(used, '10.0.0.0/20', prefix); next; next = nextSubnet(used, '10.0.0.0/20', prefix))
            used.push(next);
          expect(new Set(used).size).toBe(2 ** (prefix - 20));
          const left = used.filter((_, index) => !removed.includes(index));
          const next = nextSubnet(left, '10.0.0.0/20', prefix);
          expect(next).toBe(used.find((subnet) => !left.includes(subnet)));
        },
      ),
    );
  });
});
