/** Who may reach whom, told in plain words and worked out pair by pair, is what the plans' rules say. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { elementsOf, type PlanInput, planNode, type Surroundings } from '#net/plan/node-plan.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { taskId } from '#proto/model/ids.ts';
import { attachment, backend, endpoint, network, networkWanted } from '#test/support/endpoint.ts';

const names = ['front', 'back', 'vault', 'lan'] as const;
const networks = [
  network('front', 1),
  network('back', 2, { ipv6: true }),
  network('vault', 3, { internal: true }),
  network('lan', 4, { driver: 'macvlan', parent: 'eth0' }),
];
const projects = ['shop', 'bank'] as const;

interface Service {
  readonly project: string;
  readonly name: string;
  readonly networks: readonly string[];
  readonly allowFrom: readonly string[] | undefined;
  /** One task on each of these nodes. */
  readonly nodes: readonly number[];
}
const service: fc.Arbitrary<Omit<Service, 'name' | 'project'>> = fc.record({
  networks: fc.subarray([...names]),
  allowFrom: fc.option(fc.subarray(['s0', 's1', 'shop/s2', 'bank/s3', 's3', '*'], { maxLength: 2 }), {
    nil: undefined,
  }),
  nodes: fc.subarray([1, 2], { minLength: 1 }),
});
const cluster = fc
  .array(service, { minLength: 1, maxLength: 6 })
  .map((all) => all.map((one, index) => ({ ...one, name: `s${index}`, project: projects[index % 2] as string })));

interface Task {
  readonly service: Service;
  readonly index: number;
  readonly node: number;
  readonly address: string;
}
const tasksOf = (services: readonly Service[]): readonly Task[] =>
  services.flatMap((service, index) =>
    service.nodes.map((node) => ({ service, index, node, address: `10.192.${node}.${index + 2}` })),
  );

/** In plain words. */
function mayReach(from: Task, to: Task): boolean {
  const routed = (one: Service) => one.networks.filter((name) => name !== 'lan');
  const share = routed(from.service).some((name) => routed(to.service).includes(name));
  if (!share) return false;
  const { allowFrom } = to.service;
  if (!allowFrom || from.service === to.service) return true;
  return allowFrom.some(
    (rule) =>
      rule === '*' ||
      rule === `${from.service.project}/${from.service.name}` ||
      (rule === from.service.name && from.service.project === to.service.project),
  );
}

const around: Surroundings = {
  ports: new Set(),
  macs: new Map(),
  linkMtu: 1500,
  mtus: new Map(),
  wireguardKey: '',
  bridged: false,
};

function inputOf(services: readonly Service[], node: number): PlanInput {
  const tasks = tasksOf(services);
  const endpoints = services.map(
    (one, index): Endpoint =>
      endpoint(one.name, {
        project: one.project,
        vip: `10.224.0.${index + 2}`,
        networks: one.networks.map((name) => ({ network: name, aliases: [] })),
        allowFrom: one.allowFrom && { services: one.allowFrom },
        ipv6: one.networks.includes('back'),
        backends: tasks.filter(({ service }) => service === one).map(({ address }) => backend(address)),
      }),
  );
  return networkWanted(
    { nodeId: `n${node}`, address: `10.90.0.${node}`, subnet: `10.192.${node}.0/24` },
    {
      networks,
      endpoints,
      attachments: tasks
        .filter((task) => task.node === node)
        .map(({ service, address }) =>
          attachment(taskId(`task-${address}`), address, {
            serviceId: endpoint(service.name).serviceId,
            networks: service.networks,
          }),
        ),
    },
  );
}

/** What the rules of that firewall make of a first packet between the two addresses, as the kernel goes through them. */
function passes(firewall: ReturnType<typeof planNode>['plan']['firewall'], from: string, to: string): boolean {
  const elements = elementsOf(firewall);
  const chain = elements.get(`senders ${from}`)?.replace('goto ', '');
  const rules = chain === undefined ? undefined : firewall.declarations.get(chain);
  if (rules === undefined) return false;
  const groups = [...rules.matchAll(/numgen inc mod 1 offset (\d+) /g)].map(([, group]) => group);
  return groups.some((group) => elements.has(`members ${group} . ${to}`));
}

it('the rules of every node let through what is allowed, and nothing else', () => {
  fc.assert(
    fc.property(cluster, (services) => {
      const tasks = tasksOf(services);
      for (const node of [1, 2]) {
        const { firewall, firewall6 } = planNode(inputOf(services, node), around).plan;
        for (const from of tasks.filter((task) => task.node === node)) {
          for (const to of tasks) {
            if (from === to) continue;
            const words = `${from.address} to ${to.address}`;
            expect(passes(firewall, from.address, to.address), words).toBe(mayReach(from, to));
            const both = [from, to].every(({ service }) => service.networks.includes('back'));
            if (firewall6 && both) {
              const [a, b] = [six(from.address), six(to.address)];
              expect(passes(firewall6, a, b), `${a} to ${b}`).toBe(mayReach(from, to));
            }
          }
        }
      }
    }),
  );
});

it('a plan that follows another lets through the same as one made anew', () => {
  fc.assert(
    fc.property(fc.array(cluster, { minLength: 2, maxLength: 5 }), (clusters) => {
      let before = planNode(inputOf(clusters[0] ?? [], 1), around);
      for (const services of clusters.slice(1)) {
        const input = inputOf(services, 1);
        before = planNode(input, around, before);
        const anew = planNode(input, around).plan;
        expect(elementsOf(before.plan.firewall)).toEqual(elementsOf(anew.firewall));
        expect(before.plan.firewall.declarations).toEqual(anew.firewall.declarations);
        if (anew.firewall6 && before.plan.firewall6) {
          expect(elementsOf(before.plan.firewall6)).toEqual(elementsOf(anew.firewall6));
        }
      }
    }),
  );
});

it('who is on internal networks alone sends nothing outside', () => {
  fc.assert(
    fc.property(cluster, (services) => {
      const { firewall } = planNode(inputOf(services, 1), around).plan;
      const elements = elementsOf(firewall);
      for (const { service, address } of tasksOf(services).filter(({ node }) => node === 1)) {
        const chain = elements.get(`senders ${address}`)?.replace('goto ', '') as string;
        const routed = service.networks.filter((name) => name !== 'lan');
        const internal = routed.length > 0 && routed.every((name) => name === 'vault');
        expect(firewall.declarations.get(chain)?.includes('ip daddr != @inside accept')).toBe(!internal);
      }
    }),
  );
});

function six(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  return `fd47::${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
}
