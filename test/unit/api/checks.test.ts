/** What health checks said, asked of the node when a task is inspected. */
import { expect, it } from 'vitest';
import { inspectWithChecks } from '#control-plane/api/checks.ts';
import { InspectRequest } from '#proto/gen/gantry/v1/operator.ts';
import { aNode, aService, aTask } from '#test/support/builders.ts';
import { operatorLab } from '#test/support/operator.ts';

const check = { atMs: 1, tookMs: 2, ok: false, output: 'GET /: 503' };

async function inspected(answers: boolean, health: 'healthy' | '' = 'healthy') {
  const lab = operatorLab();
  const node = aNode('h1');
  await lab.put('node', node);
  await lab.put('service', aService('web'));
  await lab.put('task', aTask('t1', { nodeId: node.id, nodeName: 'h1', health }));
  if (answers)
    lab.answer = async function* () {
      yield { body: { $case: 'check', value: check } };
    };
  const { checks } = await inspectWithChecks(lab.parts, InspectRequest.create({ name: 'web.1' }));
  return { checks, asked: lab.asked.map(({ request }) => request.$case) };
}

it('its last results are those of the node that has it', async () => {
  expect(await inspected(true)).toEqual({ checks: [check], asked: ['checks'] });
});

it('a node that does not answer, and a task without a check, have none', async () => {
  expect((await inspected(false)).checks).toEqual([]);
  expect(await inspected(true, '')).toEqual({ checks: [], asked: [] });
});
