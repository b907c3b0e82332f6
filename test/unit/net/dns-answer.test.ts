/** Which names a task may ask for, and what it is told. */
import { describe, expect, it } from 'vitest';
import { answer } from '#net/dns/answer.ts';
import { dnsView } from '#net/dns/view.ts';
import { serviceId, taskId } from '#proto/model/ids.ts';
import { attachment, backend, clusterNetwork, endpoint, networkWanted } from '#test/support/endpoint.ts';

const on = (...networks: string[]) => networks.map((network) => ({ network, aliases: [] as string[] }));
const subnets = (subnet: string) => [{ subnet, gateway: '', ipRange: '', reserved: [] }];
const web = endpoint('web', {
  aliases: ['www', 'web.example.com'],
  networks: [{ network: 'shop_default', aliases: ['front'] }, ...on('shop_six')],
  ipv6: true,
  backends: [
    backend('10.192.1.2', { slot: 1 }),
    backend('10.192.2.2', { slot: 2 }),
    backend('10.192.2.3', { slot: 3, serving: false }),
  ],
});
const db = endpoint('db', {
  mode: 'dnsrr',
  vip: '10.224.0.3',
  networks: [{ network: 'shop_back', aliases: ['store'] }, ...on('shop_default')],
  backends: [
    backend('10.192.1.4', { addresses: [{ network: 'shop_back', address: '172.20.0.4' }] }),
    backend('10.192.2.4', { slot: 2, addresses: [{ network: 'shop_back', address: '172.20.0.5' }] }),
  ],
});
const otherWeb = endpoint('web', {
  serviceId: serviceId('service-blog-web'),
  project: 'blog',
  vip: '10.224.0.9',
  networks: on('blog_default', 'common'),
  backends: [backend('10.192.3.2')],
});
const agent = endpoint('agent', {
  project: 'blog',
  vip: '10.224.0.10',
  networks: on('common'),
  backends: [backend('10.192.3.3', { slot: 0, nodeName: 'h3' })],
});
const printer = endpoint('printer', {
  vip: '10.224.0.11',
  networks: on('shop_lan'),
  backends: [backend('10.192.2.9', { addresses: [{ network: 'shop_lan', address: '192.168.7.20' }] })],
});
const onHost = endpoint('exporter', { vip: '10.224.0.12', networks: [], backends: [backend('10.90.0.1')] });

const task = (address: string, networks: string[], over = {}) =>
  attachment(taskId(`asker-${address}`), address, { networks, ...over });
const view = dnsView(
  networkWanted(
    { nodeId: 'n1', address: '10.90.0.1', subnet: '10.192.1.0/24' },
    {
      network6: 'fd47:1::/96',
      endpoints: [web, db, otherWeb, agent, printer, onHost],
      networks: [
        clusterNetwork('shop_default'),
        clusterNetwork('shop_six', { ipv6: true }),
        clusterNetwork('shop_back', { subnets: subnets('172.20.0.0/16') }),
        clusterNetwork('shop_vault', { internal: true }),
        clusterNetwork('shop_lan', {
          driver: 'macvlan',
          subnets: subnets('192.168.7.0/24'),
        }),
        clusterNetwork('blog_default'),
        clusterNetwork('common'),
      ],
      attachments: [
        task('10.192.1.2', ['shop_default'], { links: [{ service: 'db', alias: 'Database' }] }),
        task('10.192.1.20', ['shop_default', 'common']),
        task('10.192.1.21', ['shop_back']),
        task('10.192.1.22', ['shop_six'], { dns: ['192.0.2.53'] }),
        task('10.192.1.23', ['shop_vault']),
        task('10.192.1.24', ['shop_vault', 'shop_default']),
        task('10.192.1.25', ['blog_default', 'common'], { project: 'blog' }),
        task('10.192.1.26', ['shop_lan']),
      ],
    },
  ),
);
const plain = '10.192.1.2';
const joined = '10.192.1.20';
const back = '10.192.1.21';
const six = '10.192.1.22';
const shutIn = '10.192.1.23';
const ofBlog = '10.192.1.25';
const node = '10.192.1.1';
const ask = (name: string, source = plain, type = 'A', turn = 0) => {
  const result = answer(view, { name, type }, source, turn);
  if (result.kind !== 'records') return result.kind;
  return result.records.map((record) => (record.type === 'PTR' ? record.target : record.address));
};

describe('names', () => {
  it.each([
    ['web', ['10.224.0.2']],
    ['WEB.', ['10.224.0.2']],
    ['www', ['10.224.0.2']],
    ['front', ['10.224.0.2']],
    ['web.example.com', ['10.224.0.2']],
    ['web.shop', ['10.224.0.2']],
    ['web.shop.gantry.internal', ['10.224.0.2']],
    ['web.gantry.internal', ['10.224.0.2']],
    ['tasks.web', ['10.192.1.2', '10.192.2.2']],
    ['tasks.front', ['10.192.1.2', '10.192.2.2']],
    ['tasks.web.shop', ['10.192.1.2', '10.192.2.2']],
    ['tasks.web.shop.gantry.internal', ['10.192.1.2', '10.192.2.2']],
    ['web.2', ['10.192.2.2']],
    ['2.web', ['10.192.2.2']],
    ['2.web.shop', ['10.192.2.2']],
    ['web.2.shop.gantry.internal', ['10.192.2.2']],
    ['db', ['10.192.1.4', '10.192.2.4']],
    ['db.shop.gantry.internal', ['10.192.1.4', '10.192.2.4']],
  ])('%s means what a task of its project expects', (name, addresses) => {
    expect(ask(name)).toEqual(addresses);
  });

  it('mean nothing where no network is shared', () => {
    expect(ask('web', back)).toBe('forward');
    expect(ask('web.shop.gantry.internal', back)).toBe('unknown');
    expect(ask('web', ofBlog)).toEqual(['10.224.0.9']);
    expect(ask('web.shop', ofBlog)).toBe('forward');
    expect(ask('agent', plain)).toBe('forward');
    expect(ask('exporter', plain)).toBe('forward');
  });

  it('reach over projects where a network does, the own project coming first', () => {
    expect(ask('web', joined)).toEqual(['10.224.0.2']);
    expect(ask('web.blog', joined)).toEqual(['10.224.0.9']);
    expect(ask('agent', joined)).toEqual(['10.224.0.10']);
    expect(ask('agent.h3.blog', joined)).toEqual(['10.192.3.3']);
    expect(ask('tasks.agent', joined)).toEqual(['10.192.3.3']);
  });

  it('are aliases on the networks that give them, and nowhere else', () => {
    expect(ask('store', back)).toEqual(['172.20.0.4', '172.20.0.5']);
    expect(ask('store', plain)).toBe('forward');
    expect(ask('front', six)).toBe('forward');
    expect(ask('www', six)).toEqual(['10.224.0.2']);
  });

  it('lead to the address on the shared network where that has its own', () => {
    expect(ask('tasks.db', back)).toEqual(['172.20.0.4', '172.20.0.5']);
    expect(ask('2.db', back)).toEqual(['172.20.0.5']);
    expect(ask('tasks.db', plain)).toEqual(['10.192.1.4', '10.192.2.4']);
    expect(ask('printer', '10.192.1.26')).toEqual(['192.168.7.20']);
  });

  it('given by a link are that service’s alone', () => {
    expect(ask('database', plain)).toEqual(['10.192.1.4', '10.192.2.4']);
    expect(ask('tasks.database', plain)).toEqual(['10.192.1.4', '10.192.2.4']);
    expect(ask('database', joined)).toBe('forward');
  });

  it('of all are known to the node itself, and of none to strangers', () => {
    expect(ask('db', node)).toEqual(['10.192.1.4', '10.192.2.4']);
    expect(ask('web.blog', node)).toEqual(['10.224.0.9']);
    expect(ask('web', node)).toBe('forward');
    expect(ask('exporter', '10.90.0.1')).toEqual(['10.224.0.12']);
    expect(ask('db', '203.0.113.9')).toBe('refused');
    expect(ask('db', '10.192.1.99')).toBe('refused');
  });

  it('are answered to tasks of other nodes by what is known of their service', () => {
    expect(ask('agent', '10.192.3.2')).toEqual(['10.224.0.10']);
    expect(ask('db', '10.192.3.2')).toBe('forward');
  });

  it('mean only tasks that serve', () => {
    expect(ask('3.web')).toEqual([]);
    expect(ask('9.web')).toBe('unknown');
    expect(ask('web.9')).toBe('unknown');
    expect(ask('9.web.shop.gantry.internal')).toBe('unknown');
  });

  it('take turns', () => {
    expect(ask('db', plain, 'A', 1)).toEqual(['10.192.2.4', '10.192.1.4']);
  });

  it('have IPv6 addresses where the shared network has', () => {
    expect(ask('web', six, 'AAAA')).toEqual(['fd47:1::ae0:2']);
    expect(ask('tasks.web', six, 'AAAA')).toEqual(['fd47:1::ac0:102', 'fd47:1::ac0:202']);
    expect(ask('web', 'fd47:1::ac0:116', 'AAAA')).toEqual(['fd47:1::ae0:2']);
  });

  it('have none elsewhere, which is not the same as being unknown', () => {
    expect(ask('web', plain, 'AAAA')).toEqual([]);
    expect(ask('web', plain, 'MX')).toEqual([]);
    expect(ask('gantry.internal', plain)).toEqual([]);
    expect(ask('gone.gantry.internal', plain, 'AAAA')).toBe('unknown');
  });

  it('under our domain are unknown at once, others are passed on', () => {
    expect(ask('gone.shop.gantry.internal')).toBe('unknown');
    expect(ask('example.com')).toBe('forward');
    expect(ask('docker.web')).toBe('forward');
    expect(ask('notgantry.internal')).toBe('forward');
  });

  it('of the world go to the name servers of the service, or do not exist where there is no way out', () => {
    const to = (source: string) => answer(view, { name: 'example.com', type: 'A' }, source, 0);
    expect(to(six)).toEqual({ kind: 'forward', servers: ['192.0.2.53'] });
    expect(to(plain)).toEqual({ kind: 'forward', servers: [] });
    expect(to(shutIn)).toEqual({ kind: 'unknown' });
    expect(to('10.192.1.24')).toEqual({ kind: 'forward', servers: [] });
    expect(ask('8.8.8.8.in-addr.arpa', shutIn, 'PTR')).toBe('unknown');
  });

  it('are found for addresses that the asker may see', () => {
    expect(ask('2.2.192.10.in-addr.arpa', plain, 'PTR')).toEqual(['2.web.shop.gantry.internal']);
    expect(ask('2.0.224.10.in-addr.arpa', plain, 'PTR')).toEqual(['web.shop.gantry.internal']);
    expect(ask('2.0.224.10.in-addr.arpa', plain, 'TXT')).toEqual([]);
    expect(ask('2.0.224.10.in-addr.arpa', back, 'PTR')).toBe('unknown');
    expect(ask('5.0.20.172.in-addr.arpa', back, 'PTR')).toEqual(['2.db.shop.gantry.internal']);
    expect(ask('9.0.20.172.in-addr.arpa', back, 'PTR')).toBe('unknown');
    expect(ask('3.3.192.10.in-addr.arpa', node, 'PTR')).toEqual(['h3.agent.blog.gantry.internal']);
    expect(ask('99.2.192.10.in-addr.arpa', plain, 'PTR')).toBe('unknown');
    expect(ask('8.8.8.8.in-addr.arpa', plain, 'PTR')).toBe('forward');
    const nibbles = '2.0.0.0.0.e.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.7.4.d.f.ip6.arpa';
    expect(ask(nibbles, six, 'PTR')).toEqual(['web.shop.gantry.internal']);
    expect(ask(`1${nibbles.slice(1)}`.replace('7.4.d.f', '8.b.d.0'), six, 'PTR')).toBe('forward');
  });
});
