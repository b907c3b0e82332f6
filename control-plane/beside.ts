/** What runs beside a control plane is told by files that `init` writes: variables for etcd, a configuration for NATS. */
import { createHmac } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { joinHostPort } from '#proto/host-port.ts';
import type { Manager } from './managers.ts';
import { etcdClientName, type Pki, pkiPaths } from './security/pki.ts';

export interface Beside {
  /** The control plane's directory. etcd and NATS keep what is theirs in `etcd` and `nats` next to it. */
  readonly dataDir: string;
  readonly name: string;
  readonly advertise: string;
  /** All managers, this one among them. */
  readonly managers: readonly Manager[];
}

/** Writes DIR/etcd.env and DIR/nats.conf. */
export async function writeBeside(beside: Beside, pki: Pick<Pki, 'sealKey'>): Promise<void> {
  const { dataDir } = beside;
  await writeFile(join(dataDir, 'etcd.env'), etcdVariables(beside), { mode: 0o600 });
  const secret = createHmac('sha256', pki.sealKey).update('gantry nats routes').digest('hex');
  await writeFile(join(dataDir, 'nats.conf'), natsConfig(beside, secret), { mode: 0o600 });
}

/**
 * NAME=VALUE by line, as systemd and shells read them. etcd listens on loopback alone, but for its peers. Only who has the
 * control plane's name in its certificate is a client or a peer: nodes are of our CA too.
 */
export function etcdVariables({ dataDir, name, advertise, managers }: Beside): string {
  const { cert, key, ca } = pkiPaths(dataDir, 'etcd');
  const alone = managers.length === 1;
  const peers = ({ address }: Manager) => `https://${joinHostPort(alone ? '127.0.0.1' : address, 2380)}`;
  const own = peers({ name, address: advertise });
  const variables = {
    NAME: name,
    DATA_DIR: join(dirname(dataDir), 'etcd'),
    LISTEN_CLIENT_URLS: 'https://127.0.0.1:2379',
    ADVERTISE_CLIENT_URLS: 'https://127.0.0.1:2379',
    CLIENT_CERT_AUTH: true,
    CLIENT_CERT_ALLOWED_HOSTNAME: etcdClientName,
    TRUSTED_CA_FILE: ca,
    CERT_FILE: cert,
    KEY_FILE: key,
    LISTEN_PEER_URLS: own,
    INITIAL_ADVERTISE_PEER_URLS: own,
    INITIAL_CLUSTER: managers.map((one) => `${one.name}=${peers(one)}`).join(','),
    PEER_CLIENT_CERT_AUTH: true,
    PEER_CERT_ALLOWED_HOSTNAME: etcdClientName,
    PEER_TRUSTED_CA_FILE: ca,
    PEER_CERT_FILE: cert,
    PEER_KEY_FILE: key,
    HEARTBEAT_INTERVAL: 50,
    ELECTION_TIMEOUT: 500,
    PRE_VOTE: true,
    // It would dial itself with a certificate that is not allowed in here, again and again.
    ENABLE_GRPC_GATEWAY: false,
    MAX_TXN_OPS: 8_192,
    MAX_REQUEST_BYTES: 9_437_184,
    AUTO_COMPACTION_MODE: 'revision',
    AUTO_COMPACTION_RETENTION: 100_000,
    QUOTA_BACKEND_BYTES: 8_589_934_592,
  };
  return Object.entries(variables)
    .map(([variable, value]) => `ETCD_${variable}=${value}\n`)
    .join('');
}

/** `secret`: what servers of NATS show each other, beside their certificates. */
export function natsConfig({ dataDir, name, advertise, managers }: Beside, secret: string): string {
  const { cert, key, ca } = pkiPaths(dataDir, 'nats');
  const tls = `ca_file: "${ca}", cert_file: "${cert}", key_file: "${key}"`;
  const others = managers.filter((one) => one.name !== name);
  const routes = others
    .map(({ address }) => `"nats-route://managers:${secret}@${joinHostPort(address, 6222)}"`)
    .join(', ');
  const cluster = `cluster {
  name: gantry
  listen: "${joinHostPort(advertise, 6222)}"
  tls { ${tls}, verify: true }
  authorization { user: managers, password: "${secret}" }
  routes: [${routes}]
}
`;
  return `server_name: ${name}
listen: "${joinHostPort(advertise, 4222)}"
tls {
  ${tls}
  # Who comes is what its certificate says: the URI in it names the role.
  verify_and_map: true
}
authorization {
  users: [
    { user: "gantry://control-plane" }
    # Agents hand in logs and hear whether they are kept. They read, change and delete nothing; others' inboxes are not theirs.
    { user: "gantry://node", permissions: { publish: ["logs.>"], subscribe: ["_NODE.>"] } }
  ]
}
jetstream {
  store_dir: "${join(dirname(dataDir), 'nats')}"
  max_memory_store: 67108864
  max_file_store: 4294967296
}
${others.length > 0 ? cluster : ''}`;
}
