/** Holds a session with a slow node to bounded work: what it missed comes as one full set. */
import { afterEach, expect, it } from 'vitest';
import type { AgentMessage, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { StreamListener } from '#proto/stream.ts';
import { AgentLab } from '#test/support/agent-lab.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

it('F9: sends a node that reads too slowly nothing, and one full set when it has caught up', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const sent: ControlMessage[] = [];
  let listener: StreamListener<AgentMessage> | undefined;
  let open = true;
  lab.dispatches[0]!.connect(host.id, {
    listen: (next) => {
      listener = next;
    },
    send: (message) => {
      sent.push(message);
      return open;
    },
    pause() {},
    resume() {},
    close() {},
  });
  // Even the greeting fills the buffer: that alone is no reason to send anything again.
  open = false;
  listener!.message({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [] } } });
  expect(sent.map(({ body }) => body?.$case)).toEqual(['welcome', 'assignments']);
  listener!.drain!();
  expect(sent).toHaveLength(2);
  // The first change is taken and fills the buffer; the others are not even offered.
  for (const name of ['t1', 't2', 't3']) await lab.assign(host, name);
  await eventually(() => lab.store.snapshot.count('task') === 3);
  expect(sent).toHaveLength(3);
  open = true;
  listener!.drain!();
  const last = sent.at(-1)!.body!;
  expect(sent).toHaveLength(4);
  expect(last).toMatchObject({ $case: 'assignments', value: { full: true, more: false } });
  const keys = last.$case === 'assignments' ? last.value.put.map(({ key }) => key) : [];
  expect(keys.filter((key) => key.startsWith('task/'))).toHaveLength(3);
  listener!.drain!();
  expect(sent).toHaveLength(4);
});
