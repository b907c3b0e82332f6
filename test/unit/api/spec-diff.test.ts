/** What a plan says of settings: in the words and units of a Compose file, and no structure of ours. */
import { expect, it } from 'vitest';
import { specDiff } from '#control-plane/api/spec-diff.ts';
import { type ContainerSpec, containerSpec, emptyMount, type Mount, type ServiceSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';

const withContainer = (fields: Partial<ContainerSpec>) =>
  aSpec('web', { template: aTemplate({ container: { ...containerSpec('web:1'), ...fields } }) });
const mounted = (...mounts: Mount[]) => withContainer({ mounts });
const withMemory = (memoryBytes: number) =>
  aSpec('web', { template: aTemplate({ limits: { cpuMillis: 500, memoryBytes, pids: 0, generic: [] } }) });
const diff = (before: ServiceSpec, after: ServiceSpec) => specDiff(before, after);

it('names amounts with their units, to the byte', () => {
  expect(diff(withMemory(128 * 2 ** 20), withMemory(512 * 2 ** 20))).toEqual(['limits.memory: 128 MiB → 512 MiB']);
  expect(diff(withMemory(0), withMemory(1_000_000))).toEqual(['limits.memory: none → 1000000 B']);
  expect(diff(withMemory(1.5 * 2 ** 30), withMemory(2 ** 40))).toEqual(['limits.memory: 1.5 GiB → 1 TiB']);
  expect(diff(withContainer({ stopGracePeriodMs: 10_000 }), withContainer({ stopGracePeriodMs: 1_500 }))).toEqual([
    'stop_grace_period: 10 s → 1.5 s',
  ]);
});

it('tells mounts by where they are, in the keys of Compose', () => {
  const data = emptyMount('volume', 'data', '/data');
  const etc = { ...emptyMount('bind', '/srv/etc', '/etc/app'), readOnly: true };
  expect(diff(mounted(), mounted(data, etc))).toEqual([
    'volumes: /data added (type: volume, source: data)',
    'volumes: /etc/app added (type: bind, source: /srv/etc, read_only: true, create_host_path: true)',
  ]);
  expect(diff(mounted(data), mounted({ ...data, source: 'other' }))).toEqual([
    'volumes: /data: (type: volume, source: data) → (type: volume, source: other)',
  ]);
  const tmp = { ...emptyMount('tmpfs', '', '/tmp'), tmpfsSizeBytes: 64 * 2 ** 20, tmpfsMode: 0o1777 };
  expect(diff(mounted(tmp), mounted())).toEqual([
    'volumes: /tmp removed (type: tmpfs, tmpfs_size: 64 MiB, tmpfs_mode: 01777)',
  ]);
});

it('writes ports as Compose does, and other lists by what is said in them', () => {
  const port = { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' } as const;
  const host = { target: 53, published: 53, protocol: 'udp', mode: 'host' } as const;
  expect(diff(aSpec('web', { ports: [port] }), aSpec('web', { ports: [port, host] }))).toEqual([
    'ports: 8080:80/tcp → 8080:80/tcp; 53:53/udp (mode: host)',
  ]);
  const ulimits = [{ name: 'nofile', soft: 1024, hard: 2048 }];
  expect(diff(withContainer({}), withContainer({ ulimits }))).toEqual([
    'ulimits: none → name: nofile, soft: 1024, hard: 2048',
  ]);
});

it('tells of a health check that is new what it says, and who may call', () => {
  const zero = { intervalMs: 0, timeoutMs: 0, startPeriodMs: 0, startIntervalMs: 0, retries: 0 };
  const healthCheck = {
    ...{ test: ['CMD', 'true'], ...zero, intervalMs: 2_000 },
    ...{ http: undefined, tcp: undefined, grpc: undefined, onUnhealthy: undefined },
  };
  expect(diff(withContainer({}), withContainer({ healthCheck }))).toEqual([
    'health_check.test: none → CMD true',
    'health_check.interval: none → 2 s',
  ]);
  const open = aSpec('web');
  expect(diff(open, { ...open, allowFrom: { services: [] } })).toEqual(['x-allow-from: all → none']);
  expect(diff({ ...open, allowFrom: { services: ['api'] } }, open)).toEqual(['x-allow-from: api → all']);
});
