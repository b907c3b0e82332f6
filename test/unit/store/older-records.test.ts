/** Holds decoding to what older versions wrote: nothing that deciders read may be missing. */
import { describe, expect, it } from 'vitest';
import { decodeRecord, encodeRecord, noSealer } from '#control-plane/store/codec.ts';
import type { Table, Tables } from '#control-plane/store/records.ts';
import { neverRestored, rebalanceDefaults } from '#proto/model/cluster.ts';
import { containerSpec, defaults, emptyMount, newerContainer } from '#proto/model/service.ts';
import { aNode, aRevision, aService, aTask, aTemplate } from '#test/support/builders.ts';

/** As an older version would have written it: without these fields, wherever they stand. */
function aged<T extends Table>(table: T, value: Tables[T], fields: readonly string[]): Tables[T] {
  const text = JSON.stringify(value, (key, field) => (fields.includes(key) ? undefined : field));
  return decodeRecord(table, Buffer.from(text), noSealer) as Tables[T];
}

const templateFields = ['networks', 'networkMode', 'bandwidth', 'drainMs', 'links'];

describe('a record of before networks', () => {
  it('of a task has no further addresses', () => {
    const task = aTask('web1');
    expect(aged('task', task, ['addresses'])).toEqual(task);
  });

  it('of a service or a revision is on no network, and drains as by default', () => {
    const service = { ...aService('web'), previous: aService('web').spec };
    const old = aged('service', service, [...templateFields, 'sticky']);
    for (const spec of [old.spec, old.previous!]) {
      expect(spec.sticky).toBe('');
      expect(spec.template).toMatchObject({ networks: [], networkMode: '', bandwidth: defaults.bandwidth });
      expect(spec.template.container).toMatchObject({ drainMs: defaults.drainMs, links: [] });
    }
    expect(aged('revision', aRevision(service), templateFields).template).toEqual(old.spec.template);
  });

  it('of a service or a revision asks nothing of its container that could not be asked then', () => {
    const container = containerSpec('web:1', { mounts: [emptyMount('tmpfs', '', '/t')] });
    const service = aService('web', { template: aTemplate({ container }) });
    const fields = ['controls', 'tmpfsOptions', 'origin', ...Object.keys(newerContainer)];
    expect(aged('service', service, fields)).toEqual(service);
    expect(aged('revision', aRevision(service, 7), fields)).toEqual(aRevision(service, 7));
  });

  it('of a node or the cluster knows of no tunnels', () => {
    const node = aNode('h1');
    const fields = ['pinnedSubnet', 'link', 'address6', 'foreignNetworks', 'wireguardKey', 'unaccounted'];
    expect(aged('node', node, fields)).toEqual({ ...node, link: '' });
    const cluster = {
      id: 'c',
      network: '10.192.0.0/11',
      vipNetwork: '10.224.0.0/14',
      network6: '',
      encapsulation: 'auto',
      encryption: '',
      strategy: 'spread',
      trashMs: 86_400_000,
      ...rebalanceDefaults,
      ...neverRestored,
      orphanAfterMs: 86_400_000,
      flapDampingMs: 10_000,
      agentAwayLimitMs: 30_000,
      natsUrl: '',
      domain: 'gantry.internal',
    } as const;
    expect(
      aged('cluster', cluster, [
        'network6',
        'encapsulation',
        'encryption',
        'strategy',
        'orphanAfterMs',
        'flapDampingMs',
        'agentAwayLimitMs',
        ...Object.keys({ ...rebalanceDefaults, ...neverRestored }),
      ]),
    ).toEqual(cluster);
  });
});

it('F36: a record of today is read as it was written', () => {
  const task = aTask('web1', { addresses: [{ network: 'shop_front', address: '172.28.0.2' }] });
  expect(decodeRecord('task', encodeRecord('task', task, noSealer), noSealer)).toEqual(task);
});
