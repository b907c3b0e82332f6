/** What health checks said, asked of the node when a task is inspected. */
import { expect, it } from 'vitest';
import { inspectWithChecks } from '#control-plane/api/checks.ts';
import { explain } from '#control-plane/api/explain.ts';
import { InspectRequest } from '#proto/gen/gantry/v1/operator.ts';
import type { Health } from '#proto/model/task.ts';
import { aNode, aService, aTask } from '#test/support/builders.ts';
import { operatorLab } from '#test/support/operator.ts';

const check = { atMs: 1, tookMs: 2, ok: false, output: 'GET /: 503' };

async function labOf(answers: boolean, health: Health) {
  const lab = operatorLab();
  const node = aNode('h1');
  await lab.put('node', node);
  await lab.put('service', aService('web'));
  await lab.put('task', aTask('t1', { nodeId: node.id, nodeName: 'h1', health }));
  if (answers)
    lab.answer = async function* () {
      yield { body: { $case: 'check', value: check } };
    };
  return lab;
}

async function inspected(answers: boolean, health: Health = 'healthy') {
  const lab = await labOf(answers, health);
  const { checks } = await inspectWithChecks(lab.parts, InspectRequest.create({ name: 'web.1' }));
  return { checks, asked: lab.asked.map(({ request }) => request.$case) };
}

it('its last results are those of the node that has it', async () => {
  expect(await inspected(true)).toEqual({ checks: [check], asked: ['checks'] });
});

it('they are told with why it is where it is, as long as it is not well', async () => {
  const told = async (health: 'healthy' | 'unhealthy') => {
    const lab = await labOf(true, health);
    return (await explain(lab.parts, { name: 'web.1' })).checks;
  };
  expect(await told('unhealthy')).toEqual([check]);
  expect(await told('healthy')).toEqual([]);
});

it('a node that does not answer, and a task without a check, have none', async () => {
  expect((await inspected(false)).checks).toEqual([]);
  expect(await inspected(true, '')).toEqual({ checks: [], asked: [] });
});
