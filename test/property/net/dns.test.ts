/** What names mean, asked of random clusters: as plainly written here, and the same however the index came to be. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { answer } from '#net/dns/answer.ts';
import { dnsView } from '#net/dns/view.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { serviceId, taskId } from '#proto/model/ids.ts';
import { attachment, backend, clusterNetwork, endpoint, networkWanted } from '#test/support/endpoint.ts';

const names = ['web', 'db', 'cache'];
const projects = ['shop', 'blog'];
const networks = ['shop_default', 'blog_default', 'common', 'ranged'];
const ranged = [{ subnet: '172.20.0.0/16', gateway: '', ipRange: '', reserved: [] }];

interface Wish {
  readonly name: string;
  readonly project: string;
  readonly on: readonly string[];
  readonly alias: string;
  readonly dnsrr: boolean;
  readonly tasks: readonly { readonly slot: number; readonly serving: boolean }[];
}
const wish: fc.Arbitrary<Wish> = fc.record({
  name: fc.constantFrom(...names),
  project: fc.constantFrom(...projects),
  on: fc.subarray(networks),
  alias: fc.constantFrom('', 'web', 'alias', 'dotted.alias'),
  dnsrr: fc.boolean(),
  tasks: fc.array(fc.record({ slot: fc.integer({ min: 1, max: 3 }), serving: fc.boolean() }), { maxLength: 4 }),
});
const cluster = fc.uniqueArray(wish, { selector: ({ name, project }) => `${project}/${name}`, maxLength: 6 });

/** Addresses follow from who has them, so that a change of one service does not touch another's. */
function endpointOf({ name, project, on, alias, dnsrr, tasks }: Wish): Endpoint {
  const number = projects.indexOf(project) * names.length + names.indexOf(name) + 1;
  return endpoint(name, {
    serviceId: serviceId(`${project}-${name}`),
    project,
    mode: dnsrr ? 'dnsrr' : 'vip',
    vip: `10.224.0.${number}`,
    networks: on.map((network, index) => ({ network, aliases: index === 0 && alias !== '' ? [alias] : [] })),
    backends: tasks.map(({ slot, serving }, index) =>
      backend(`10.192.2.${number * 10 + index}`, {
        slot,
        serving,
        addresses: on.includes('ranged') ? [{ network: 'ranged', address: `172.20.${number}.${index}` }] : [],
      }),
    ),
  });
}

const asker = '10.192.1.2';
const wantedOf = (endpoints: readonly Endpoint[], project: string, on: readonly string[]) =>
  networkWanted(
    { nodeId: 'n1', address: '10.90.0.1', subnet: '10.192.1.0/24' },
    {
      endpoints,
      networks: networks.map((name) => clusterNetwork(name, { subnets: name === 'ranged' ? ranged : [] })),
      attachments: [attachment(taskId('asker'), asker, { project, networks: on })],
    },
  );

/** `NAME` and `tasks.NAME` in as few words as possible. */
function oracle(endpoints: readonly Endpoint[], project: string, on: readonly string[], name: string, tasks: boolean) {
  const seen = endpoints.filter(
    (one) =>
      one.networks.some(({ network }) => on.includes(network)) &&
      (one.name === name || one.networks.some((item) => on.includes(item.network) && item.aliases.includes(name))),
  );
  const own = seen.filter((one) => one.project === project);
  const meant = own.length > 0 ? own : new Set(seen.map((one) => one.project)).size === 1 ? seen : [];
  if (meant.length === 0) return 'forward';
  const addresses = meant.flatMap((one) => {
    if (one.mode === 'vip' && !tasks) return [one.vip];
    const shared = on.includes('ranged') && one.networks.some(({ network }) => network === 'ranged');
    const serving = one.backends.filter((item) => item.serving);
    return serving.map((item) => (shared ? item.addresses[0]!.address : item.address));
  });
  return [...new Set(addresses)].sort();
}

const told = (view: ReturnType<typeof dnsView>, name: string, source = asker) => {
  const result = answer(view, { name, type: 'A' }, source, 0);
  if (result.kind !== 'records') return result.kind;
  return result.records.map((record) => ('address' in record ? record.address : record.target));
};

it('names mean what the oracle says, and never a task that does not serve', () => {
  fc.assert(
    fc.property(cluster, fc.constantFrom(...projects), fc.subarray(networks), (wishes, project, on) => {
      const endpoints = wishes.map(endpointOf);
      const view = dnsView(wantedOf(endpoints, project, on));
      const out = new Set(
        endpoints.flatMap((one) =>
          one.backends
            .filter((item) => !item.serving)
            .flatMap((item) => [item.address, ...item.addresses.map(({ address }) => address)]),
        ),
      );
      for (const name of [...names, 'alias', 'dotted.alias']) {
        expect(told(view, name)).toEqual(oracle(endpoints, project, on, name, false));
        if (!name.includes('.')) {
          expect(told(view, `tasks.${name}`)).toEqual(oracle(endpoints, project, on, name, true));
        }
        for (const form of ['', '1.', '2.']) {
          for (const source of [asker, '10.192.1.1']) {
            const addresses = told(view, `${form}${name}`, source);
            if (Array.isArray(addresses)) expect(addresses.filter((address) => out.has(address))).toEqual([]);
          }
        }
      }
    }),
    { numRuns: 2_000 },
  );
});

it('a view that follows another is the one made anew', () => {
  fc.assert(
    fc.property(fc.array(cluster, { minLength: 2, maxLength: 5 }), (revisions) => {
      const held = new Map<string, Endpoint>();
      let view: ReturnType<typeof dnsView> | undefined;
      for (const wishes of revisions) {
        const endpoints = wishes.map((one) => {
          const key = JSON.stringify(one);
          const same = held.get(key) ?? endpointOf(one);
          held.set(key, same);
          return same;
        });
        const wanted = wantedOf(endpoints, 'shop', networks);
        view = dnsView(wanted, view);
        const anew = dnsView(wanted);
        expect({ ...view, index: undefined }).toEqual({ ...anew, index: undefined });
        expect(entriesOf(view)).toEqual(entriesOf(anew));
      }
    }),
  );
});

function entriesOf(view: ReturnType<typeof dnsView>) {
  return view.index.map((shard) => [...shard].sort(([a], [b]) => (a < b ? -1 : 1)));
}
