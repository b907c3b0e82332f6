/** `gantry autoscale status`, as the control plane answers it. */
import { expect, it } from 'vitest';
import { scaling } from '#control-plane/api/scaling.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import { aNode, anAutoscale, aService, aTask } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { operatorLab } from '#test/support/operator.ts';

async function lab() {
  const clock = new FakeClock();
  const usage = new UsageDesk(clock);
  await clock.pass(1_000);
  const { parts, put } = operatorLab({ usage, clock });
  const autoscale = anAutoscale({ min: 0, cpuPercent: 70, requestsPerSecond: 10 });
  const autoscaled = { replicas: 2, why: 'cpu 110 % of 70 %', atMs: 5 };
  const web = aService('web', { autoscale }, { autoscaled });
  await put('node', aNode('h1'));
  await put('service', web, aService('api'));
  const tasks = ['web1', 'web2'].map((name, at) =>
    aTask(name, {
      serviceId: web.id,
      slot: at + 1,
      nodeId: aNode('h1').id,
      state: 'running',
      address: `10.192.1.${at + 2}`,
    }),
  );
  await put('task', ...tasks);
  return { parts, usage, tasks, web };
}

it('says what is not known yet', async () => {
  const { parts } = await lab();
  const { services } = await scaling(parts, { service: '' });
  expect(services).toMatchObject([
    {
      name: 'demo/web',
      min: 0,
      max: 10,
      replicas: 2,
      ready: 2,
      why: 'cpu 110 % of 70 %',
      idleMs: 60_000,
      idleForMs: 0,
    },
  ]);
  expect(services[0]?.measures).toEqual([
    { name: 'cpu', now: undefined, target: 70 },
    { name: 'requests', now: undefined, target: 10 },
  ]);
});

it('says what tasks do on average, and how many calls each has', async () => {
  const { parts, usage, tasks, web } = await lab();
  const batch = tasks.map(({ id }, at) => ({ taskId: id, cpuMillis: 400 + at * 200, memoryBytes: 0, connections: 0 }));
  usage.take({ tasks: batch, services: [{ serviceId: web.id, connections: 60 }] }, () => web.id);
  const { services } = await scaling(parts, { service: 'web' });
  expect(services[0]?.measures).toEqual([
    { name: 'cpu', now: 50, target: 70 },
    { name: 'requests', now: 5, target: 10 },
  ]);
});

it('says of a service that is not autoscaled how it becomes so', async () => {
  const { parts } = await lab();
  await expect(scaling(parts, { service: 'api' })).rejects.toMatchObject({ code: 'precondition' });
});
