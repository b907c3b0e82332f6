/** The files made for a container say what they should. */
import { describe, expect, it } from 'vitest';
import { type EtcSettings, etcFiles } from '#node-agent/runtime/etc-files.ts';

const cluster = {
  network: 'cluster',
  hostname: 'web-1',
  fullName: '1.web.shop.gantry.internal',
  addresses: ['10.1.0.7'],
  gateway: '10.1.0.1',
  nameserver: '10.1.0.1',
  search: ['shop.gantry.internal'],
  links: [],
} satisfies EtcSettings;
const plain = { extraHosts: {}, dns: [], dnsSearch: [], dnsOptions: [] };
const local = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n';

describe('the files made for a container', () => {
  it('name the container, its address and the node’s name server', () => {
    expect(etcFiles(cluster, plain)).toEqual({
      hosts: `${local}10.1.0.7\tweb-1 1.web.shop.gantry.internal\n`,
      hostname: 'web-1\n',
      'resolv.conf': 'nameserver 10.1.0.1\nsearch shop.gantry.internal\n',
    });
  });

  it('name all its addresses, and what it links to', () => {
    const links = [
      { alias: 'database', service: 'db', address: '10.224.0.3' },
      { alias: 'cache', service: 'cache', address: '10.224.0.4' },
    ];
    const addresses = ['10.1.0.7', '172.20.0.4', 'fd47::a01:7'];
    expect(etcFiles({ ...cluster, addresses, links }, plain).hosts).toBe(
      `${local}10.224.0.3\tdatabase db\n10.224.0.4\tcache\n` +
        addresses.map((address) => `${address}\tweb-1 1.web.shop.gantry.internal\n`).join(''),
    );
  });

  it('say what the service says beside, and leave its names of the cluster to it', () => {
    const container = {
      extraHosts: { db: '192.0.2.1', host: 'host-gateway' },
      dns: ['192.0.2.53', '192.0.2.54'],
      dnsSearch: ['example.com'],
      dnsOptions: ['ndots:0', 'rotate'],
    };
    const files = etcFiles(cluster, container);
    expect(files.hosts).toContain('192.0.2.1\tdb\n10.1.0.1\thost\n');
    expect(files['resolv.conf']).toBe(
      'nameserver 10.1.0.1\nsearch shop.gantry.internal example.com\noptions ndots:0 rotate\n',
    );
    expect(etcFiles(cluster, { ...plain, dnsSearch: ['.'] })['resolv.conf']).toBe('nameserver 10.1.0.1\n');
  });

  it('are the host’s on the host’s network, but for what the service says', () => {
    const host: EtcSettings = {
      network: 'host',
      hostname: 'h1',
      gateway: '10.1.0.1',
      hosts: '127.0.0.1 localhost\n10.90.0.1 h1',
      resolvConf: '# by hand\nsearch corp.example\nnameserver 192.0.2.1\noptions rotate\n',
    };
    expect(etcFiles(host, plain)).toEqual({
      hosts: '127.0.0.1 localhost\n10.90.0.1 h1\n',
      hostname: 'h1\n',
      'resolv.conf': host.resolvConf,
    });
    const said = etcFiles(host, { ...plain, extraHosts: { db: '192.0.2.9' }, dns: ['192.0.2.53'] });
    expect(said.hosts).toBe('127.0.0.1 localhost\n10.90.0.1 h1\n192.0.2.9\tdb\n');
    expect(said['resolv.conf']).toBe('nameserver 192.0.2.53\nsearch corp.example\noptions rotate\n');
  });

  it('know nobody without a network', () => {
    const files = etcFiles({ network: 'none', hostname: 'alone', gateway: '' }, plain);
    expect(files).toEqual({ hosts: `${local}127.0.0.1\talone\n`, hostname: 'alone\n', 'resolv.conf': '' });
  });

  it('refuse what would begin another line', () => {
    const bad = { ...plain, dnsSearch: ['a\nnameserver 6.6.6.6'] };
    expect(() => etcFiles(cluster, bad)).toThrow(expect.objectContaining({ code: 'invalid' }));
  });
});
