/** Limits that change under a running task, from the control plane's word to the runtime. */
import { afterEach, expect, it } from 'vitest';
import type { TaskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { aRevision } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

/** A host whose task runs with 100 bytes of memory. */
async function oneTask(): Promise<{ host: LabHost; id: TaskId }> {
  lab = await AgentLab.start(['h1'], { limits: limits(100) });
  const host = lab.hosts[0]!;
  await host.start();
  const id = await lab.assign(host, 't1');
  await eventually(() => lab.task(id).state === 'running');
  return { host, id };
}

const limits = (memoryBytes: number) => ({ ...noResources, memoryBytes });
/** The task is of the next revision of its service from here on, which has these limits. */
const relimit = async (id: TaskId, memoryBytes: number) => {
  const service = lab.service();
  const number = lab.task(id).revision + 1;
  const revision = aRevision(service, number, { ...service.spec.template, limits: limits(memoryBytes) });
  await lab.commit({
    table: 'revision',
    key: `${service.id}/${number}`,
    value: { ...revision, origin: 1 },
    expect: 0,
  });
  await lab.edit(id, { revision: number });
};
const has = (host: LabHost, id: TaskId, memoryBytes: number) =>
  eventually(() => host.runtime.containers.get(id)!.state.settings?.limits.memoryBytes === memoryBytes);

it('limits change with the same process, also those that changed while the agent was away', async () => {
  const { host, id } = await oneTask();
  const { pid } = lab.task(id);
  await relimit(id, 200);
  await has(host, id, 200);
  await host.stop();
  await relimit(id, 300);
  await host.start();
  await has(host, id, 300);
  expect(lab.task(id)).toMatchObject({ state: 'running', pid, error: '' });
  expect(host.runtime.signals).toEqual([]);
});

it('limits that the agent took and could not set before it ended are set by the next one, without a control plane', async () => {
  const { host, id } = await oneTask();
  host.runtime.memoryInUse = 80;
  await relimit(id, 50);
  await eventually(() => lab.task(id).error !== '');
  await host.stop();
  host.runtime.memoryInUse = 0;
  await host.start({ addresses: ['nobody:7400'] });
  await has(host, id, 50);
});

it('limits below what is in use are told in words, and set when they can be', async () => {
  const { host, id } = await oneTask();
  host.runtime.memoryInUse = 80;
  await relimit(id, 50);
  await eventually(() => lab.task(id).error === 'limits not changed: 80 bytes of memory are in use');
  expect(lab.task(id).state).toBe('running');
  host.runtime.memoryInUse = 40;
  await has(host, id, 50);
  await eventually(() => lab.task(id).error === '');
  host.runtime.memoryInUse = 80;
  await relimit(id, 60);
  await eventually(() => lab.task(id).error !== '');
  await relimit(id, 90);
  await has(host, id, 90);
});
