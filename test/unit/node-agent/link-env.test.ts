/** A service that links to another has the variables that Docker's links gave. */
import { expect, it } from 'vitest';
import { linkEnv } from '#node-agent/task/link-env.ts';
import type { LinkedService } from '#proto/model/assignment.ts';

const link: LinkedService = {
  alias: 'my-database',
  service: 'db',
  vip: '10.224.0.3',
  ports: [
    { number: 5432, protocol: 'tcp' },
    { number: 53, protocol: 'udp' },
  ],
  env: ['POSTGRES_USER=web', 'GONE'],
  image: 'postgres:17',
  imageDigest: '',
};

it('its name, its ports with the lowest first, and its environment', () => {
  expect(
    linkEnv('web', link, { exposedPorts: ['53/tcp', '5432/tcp'], env: ['PATH=/bin', 'LANG=C', 'GONE=1'] }),
  ).toEqual([
    'MY_DATABASE_NAME=/web/my-database',
    'MY_DATABASE_PORT=tcp://10.224.0.3:53',
    'MY_DATABASE_PORT_53_TCP=tcp://10.224.0.3:53',
    'MY_DATABASE_PORT_53_TCP_ADDR=10.224.0.3',
    'MY_DATABASE_PORT_53_TCP_PORT=53',
    'MY_DATABASE_PORT_53_TCP_PROTO=tcp',
    'MY_DATABASE_PORT_53_UDP=udp://10.224.0.3:53',
    'MY_DATABASE_PORT_53_UDP_ADDR=10.224.0.3',
    'MY_DATABASE_PORT_53_UDP_PORT=53',
    'MY_DATABASE_PORT_53_UDP_PROTO=udp',
    'MY_DATABASE_PORT_5432_TCP=tcp://10.224.0.3:5432',
    'MY_DATABASE_PORT_5432_TCP_ADDR=10.224.0.3',
    'MY_DATABASE_PORT_5432_TCP_PORT=5432',
    'MY_DATABASE_PORT_5432_TCP_PROTO=tcp',
    'MY_DATABASE_ENV_LANG=C',
    'MY_DATABASE_ENV_POSTGRES_USER=web',
  ]);
});

it('the alias in the place of an address where there is no one address; no ports where none is known', () => {
  const many = linkEnv('web', { ...link, vip: '' }, undefined);
  expect(many).toContain('MY_DATABASE_PORT_5432_TCP_ADDR=my-database');
  expect(linkEnv('web', { ...link, ports: [], env: [] }, undefined)).toEqual(['MY_DATABASE_NAME=/web/my-database']);
});
