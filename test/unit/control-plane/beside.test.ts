/** What etcd and NATS beside a control plane are told by `init`. */
import { describe, expect, test } from 'vitest';
import { etcdVariables, natsConfig } from '#control-plane/beside.ts';

const m1 = { name: 'm1', address: '10.0.0.1' };
const alone = { dataDir: '/var/lib/gantry/control-plane', name: 'm1', advertise: '10.0.0.1', managers: [m1] };
const amongThree = {
  ...alone,
  managers: [m1, { name: 'm2', address: '10.0.0.2' }, { name: 'm3', address: 'fd00::3' }],
};

describe('etcd', () => {
  test('of one manager listens on loopback alone', () => {
    const lines = etcdVariables(alone).split('\n');
    expect(lines).toContain('ETCD_DATA_DIR=/var/lib/gantry/etcd');
    expect(lines).toContain('ETCD_INITIAL_CLUSTER=m1=https://127.0.0.1:2380');
    expect(lines.filter((line) => line.includes('10.0.0.1'))).toEqual([]);
  });

  test('of three managers has the others as peers, and takes no node for one', () => {
    const lines = etcdVariables(amongThree).split('\n');
    expect(lines).toContain('ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2379');
    expect(lines).toContain('ETCD_LISTEN_PEER_URLS=https://10.0.0.1:2380');
    expect(lines).toContain(
      'ETCD_INITIAL_CLUSTER=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://[fd00::3]:2380',
    );
    expect(lines).toContain('ETCD_PEER_CERT_ALLOWED_HOSTNAME=control-plane.gantry');
    expect(lines).toContain('ETCD_PRE_VOTE=true');
  });
});

describe('NATS', () => {
  test('of one manager is no cluster: alone it would wait for a majority', () => {
    expect(natsConfig(alone, 'secret')).not.toContain('cluster');
  });

  test('of three managers dials the others, and shows a password that nodes do not have', () => {
    const text = natsConfig(amongThree, 'secret');
    expect(text).toContain(
      'routes: ["nats-route://managers:secret@10.0.0.2:6222", "nats-route://managers:secret@[fd00::3]:6222"]',
    );
    expect(text).toContain('authorization { user: managers, password: "secret" }');
  });
});
