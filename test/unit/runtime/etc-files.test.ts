/** The files made for a container say what they should. */
import { describe, expect, it } from 'vitest';
import { type EtcSettings, etcFiles } from '#node-agent/runtime/etc-files.ts';

const settings: EtcSettings = {
  hostname: 'web-1',
  address: '10.1.0.7',
  gateway: '10.1.0.1',
  dns: '10.1.0.1',
  search: ['shop.gantry.internal'],
  container: { extraHosts: {}, dns: [], dnsSearch: [], dnsOptions: [] },
};

describe('the files made for a container', () => {
  it('name the container, its address and the node’s name server', () => {
    expect(etcFiles(settings)).toEqual({
      hosts: '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.0.7\tweb-1\n',
      hostname: 'web-1\n',
      'resolv.conf': 'nameserver 10.1.0.1\nsearch shop.gantry.internal\n',
    });
  });

  it('say what the service says instead', () => {
    const container = {
      extraHosts: { db: '192.0.2.1', host: 'host-gateway' },
      dns: ['192.0.2.53', '192.0.2.54'],
      dnsSearch: ['.'],
      dnsOptions: ['ndots:0', 'rotate'],
    };
    const files = etcFiles({ ...settings, container });
    expect(files.hosts).toContain('192.0.2.1\tdb\n10.1.0.1\thost\n');
    expect(files['resolv.conf']).toBe('nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:0 rotate\n');
  });

  it('refuse what would begin another line', () => {
    const container = { ...settings.container, dns: ['1.1.1.1\nsearch evil'] };
    expect(() => etcFiles({ ...settings, container })).toThrow(expect.objectContaining({ code: 'invalid' }));
  });
});
