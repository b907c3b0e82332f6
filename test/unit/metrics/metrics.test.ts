/** What monitoring reads. */
import { afterEach, expect, it } from 'vitest';
import { controlPlaneMetrics, measuredStore } from '#control-plane/metrics.ts';
import { MemoryEtcd, MemoryStore } from '#control-plane/store/memory-store.ts';
import { agentMetrics } from '#node-agent/metrics.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type MetricsServer, serveMetrics } from '#proto/metrics-server.ts';
import { nodeId } from '#proto/model/ids.ts';
import { aNode, aTask } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { FakeImages, fakeRegistry } from '#test/support/fake-images.ts';

const servers: MetricsServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

it('the control plane tells the cluster, its commits, and how soon tasks run', async () => {
  const store = new MemoryStore(new MemoryEtcd({ clock: systemClock }));
  const metrics = controlPlaneMetrics({
    clock: systemClock,
    store,
    liveness: { lastBeatAt: () => systemClock.monotonic() - 300 },
    leads: () => true,
    version: '1.2.3',
  });
  const measured = measuredStore(store, systemClock, metrics.committed);
  const h1 = aNode('h1');
  const task = aTask('web1', { state: 'pending', nodeId: '', createdAtMs: systemClock.now() - 2_000 });
  const made = await measured.commit([
    { table: 'node', key: h1.id, value: h1, expect: 0 },
    { table: 'task', key: task.id, value: task, expect: 0 },
  ]);
  await measured.commit([
    { table: 'task', key: task.id, value: { ...task, nodeId: nodeId(h1.id), state: 'running' }, expect: made },
  ]);
  await expect(measured.commit([{ table: 'task', key: task.id, value: task, expect: 999 }])).rejects.toMatchObject({
    code: 'conflict',
  });
  await measured.takeLeadership(undefined, { epoch: 4, replica: 'm1', address: 'x:1' });
  await eventually(() => measured.leadership !== undefined && measured.snapshot.count('task') === 1);
  const text = await metrics.registry.metrics();
  for (const line of [
    'gantry_info{version="1.2.3"} 1',
    'gantry_tasks{state="running"} 1',
    'gantry_tasks{state="failed"} 0',
    'gantry_nodes{state="ready",availability="active"} 1',
    'gantry_commit_seconds_count{outcome="ok"} 2',
    'gantry_commit_seconds_count{outcome="conflict"} 1',
    'gantry_committed_changes_total 3',
    'gantry_scheduling_seconds_count 1',
    'gantry_task_start_seconds_bucket{le="1"} 0',
    'gantry_task_start_seconds_bucket{le="2.5"} 1',
    'gantry_leader_epoch 4',
    'gantry_leading 1',
  ])
    expect(text).toContain(line);
  expect(text).toMatch(/gantry_node_silence_seconds\{node="h1"\} 0\.3/);
  metrics.close();
});

it('the agent tells its tasks, pulls, logs and repairs', async () => {
  const logs = { lines: 7, bytes: 70, batches: 2, retries: 1, droppedBytes: 0, following: 3 };
  const metrics = agentMetrics({
    clock: systemClock,
    statuses: () => [{ state: 'running' }, { state: 'running' }, { state: 'failed' }] as never,
    logs: () => logs,
    connected: () => true,
    version: '1.2.3',
  });
  const registry = fakeRegistry();
  const images = metrics.measured(new FakeImages(systemClock, registry));
  await images.ensure({ reference: 'web:1', digest: '', pullPolicy: '' });
  registry.failure = new Fault('unauthenticated', 'no');
  await expect(images.ensure({ reference: 'other:1', digest: '', pullPolicy: '' })).rejects.toThrow();
  metrics.networkRepaired();
  metrics.stepDone('create', 40);
  const text = await metrics.registry.metrics();
  for (const line of [
    'gantry_agent_tasks{state="running"} 2',
    'gantry_agent_tasks{state="failed"} 1',
    'gantry_agent_tasks{state="pending"} 0',
    'gantry_agent_log_lines_total 7',
    'gantry_agent_logs_followed 3',
    'gantry_agent_network_repairs_total 1',
    'gantry_task_step_seconds_bucket{le="0.05",step="create"} 1',
    'gantry_agent_image_ensure_seconds_count{outcome="ok"} 1',
    'gantry_agent_image_ensure_seconds_count{outcome="unauthenticated"} 1',
    'gantry_agent_connected 1',
    'nodejs_eventloop_lag_seconds',
  ])
    expect(text).toContain(line);
  logs.lines = 9;
  expect(await metrics.registry.metrics()).toContain('gantry_agent_log_lines_total 9');
});

it('the door answers for metrics and health, and says where it cannot listen', async () => {
  const { registry } = agentMetrics({
    clock: systemClock,
    statuses: () => [],
    logs: () => ({ lines: 0, bytes: 0, batches: 0, retries: 0, droppedBytes: 0, following: 0 }),
    connected: () => false,
    version: '1',
  });
  let ailment: string | undefined;
  const server = await serveMetrics({ registry, ailment: () => ailment, port: 0 });
  servers.push(server);
  const get = (path: string, method = 'GET') => fetch(`http://127.0.0.1:${server.port}${path}`, { method });
  expect(await (await get('/metrics')).text()).toContain('gantry_agent_info');
  expect((await get('/healthz')).status).toBe(200);
  ailment = 'containerd is not reached';
  const ill = await get('/healthz');
  expect([ill.status, await ill.text()]).toEqual([503, 'containerd is not reached\n']);
  expect((await get('/secrets')).status).toBe(404);
  expect((await get('/metrics', 'POST')).status).toBe(405);
  await expect(serveMetrics({ registry, ailment: () => undefined, port: server.port })).rejects.toMatchObject({
    code: 'unavailable',
  });
});
