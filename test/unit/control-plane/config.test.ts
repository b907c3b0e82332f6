/** What a control plane is told at start, and how it refuses what makes no sense. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readConfig, settings, variableOf } from '#control-plane/config.ts';

const minimal = { name: 'm1', advertise: '10.0.0.1' };

describe('the configuration', () => {
  test('has a default for all but who and where it is', () => {
    expect(readConfig(minimal, {})).toEqual({
      data: '/var/lib/gantry/control-plane',
      name: 'm1',
      advertise: '10.0.0.1',
      listen: '10.0.0.1',
      managers: [{ name: 'm1', address: '10.0.0.1' }],
      etcd: ['https://127.0.0.1:2379'],
      nats: '',
      socket: '/run/gantry/control-plane.sock',
      agentPort: 7400,
      enrolPort: 7401,
      metricsPort: 7402,
      network: '10.192.0.0/11',
      vipNetwork: '10.224.0.0/14',
      domain: 'gantry.internal',
      network6: '',
      encapsulation: '',
      encryption: '',
      certificateLife: 90 * 86_400_000,
      natsReload: '',
      etcdRestart: '',
      logLevel: 'info',
    });
  });

  test('takes flags before variables before the file', () => {
    const dir = mkdtempSync(join(tmpdir(), 'gantry-config-'));
    const file = join(dir, 'c.yaml');
    writeFileSync(file, 'name: from-file\nadvertise: 10.0.0.9\nagentPort: 1\netcd: [http://a:1, http://b:2]\n');
    try {
      const config = readConfig({ agentPort: '3' }, { GANTRY_AGENT_PORT: '2', GANTRY_NAME: 'from-env' }, file);
      expect(config).toMatchObject({ name: 'from-env', advertise: '10.0.0.9', agentPort: 3 });
      expect(config.etcd).toEqual(['http://a:1', 'http://b:2']);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test('of several managers knows a NATS server beside each', () => {
    const managers = 'm1=10.0.0.1, m2=10.0.0.2,m3=manager.example';
    expect(readConfig({ ...minimal, managers, nats: 'managers' }, {})).toMatchObject({
      managers: [
        { name: 'm1', address: '10.0.0.1' },
        { name: 'm2', address: '10.0.0.2' },
        { name: 'm3', address: 'manager.example' },
      ],
      nats: 'tls://10.0.0.1:4222,tls://10.0.0.2:4222,tls://manager.example:4222',
    });
    expect(readConfig({ ...minimal, nats: 'managers' }, {}).nats).toBe('tls://10.0.0.1:4222');
  });

  test.each([
    [{ name: '' }, /--name/],
    [{ name: 'M1' }, /--name .*lower-case/],
    [{ advertise: '10.0.0.1:7400' }, /--advertise .*without a port/],
    [{ agentPort: '70000' }, /--agent-port .*GANTRY_AGENT_PORT/],
    [{ network: '10.192.0.1/11' }, /--network/],
    [{ network: '10.224.0.0/14' }, /overlap/],
    [{ network: '10.192.0.0/25' }, /--network .*not between/],
    [{ network6: 'fd00::/64' }, /--network6 .*not a \/96/],
    [{ encapsulation: 'often' }, /--encapsulation .*auto, always, never/],
    [{ encryption: 'rot13' }, /--encryption .*wireguard or off/],
    [{ managers: 'm1=10.0.0.1,m2=10.0.0.2' }, /--managers: 2 managers: the majority of an even number/],
    [{ managers: 'm1=10.0.0.1,m2' }, /--managers: "m2" is not NAME=ADDRESS/],
    [{ managers: 'm1=10.0.0.1,m2=10.0.0.2,m3=10.0.0.2' }, /--managers: two managers have one address/],
    [{ managers: 'm2=10.0.0.2' }, /--managers does not name this one, m1=10.0.0.1/],
    [{ etcd: '127.0.0.1:2379' }, /--etcd/],
    [{ etcd: 'https://a:1,http://b:1' }, /mixes/],
    [{ nats: 'http://x' }, /--nats/],
    [{ socket: `/${'x'.repeat(120)}` }, /--socket .*108/],
    [{ logLevel: 'loud' }, /--log-level/],
  ])('refuses %o, naming the flag', (flags, message) => {
    expect(() => readConfig({ ...minimal, ...flags }, {})).toThrow(message);
  });

  test('refuses a file with a setting that does not exist, and a file that is not there', () => {
    const dir = mkdtempSync(join(tmpdir(), 'gantry-config-'));
    writeFileSync(join(dir, 'c.yaml'), 'agentport: 1\n');
    try {
      expect(() => readConfig(minimal, {}, join(dir, 'c.yaml'))).toThrow('agentport');
      expect(() => readConfig(minimal, {}, join(dir, 'none'))).toThrow('cannot be read');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test('every setting can come by a variable', () => {
    expect(settings.map(({ key }) => variableOf(key))).toContain('GANTRY_VIP_NETWORK');
    expect(new Set(settings.map(({ key }) => variableOf(key))).size).toBe(settings.length);
  });
});
