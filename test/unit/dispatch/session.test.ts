/** Holds a session with a slow node to bounded work: what it missed is not queued. */
import { afterEach, expect, it } from 'vitest';
import type { AgentMessage, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { StreamListener } from '#proto/stream.ts';
import { AgentLab } from '#test/support/agent-lab.ts';
import { nothingHeld } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

let lab: AgentLab;
afterEach(() => lab.close());

it('F9: sends a node that reads too slowly nothing, and when it has caught up only what it missed', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const sent: ControlMessage[] = [];
  let listener: StreamListener<AgentMessage> | undefined;
  let open = false;
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
  const last = () => {
    const body = sent.at(-1)!.body!;
    return body.$case === 'assignments' ? body.value : undefined;
  };
  const takeOne = () => {
    const before = sent.length;
    listener!.drain!();
    return sent.length - before;
  };
  // Even the greeting fills the buffer: the full set waits, and comes one message at a time.
  listener!.message({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [], held: nothingHeld } } });
  expect(sent.map(({ body }) => body?.$case)).toEqual(['welcome']);
  expect(takeOne()).toBe(1);
  expect(last()).toMatchObject({ full: true, more: true });
  expect(takeOne()).toBe(1);
  expect(last()).toMatchObject({ full: true, more: false });
  expect(takeOne()).toBe(0);
  // The first change is taken and fills the buffer; the others are not even offered.
  for (const name of ['t1', 't2', 't3']) await lab.assign(host, name);
  await eventually(() => lab.store.snapshot.count('task') === 3);
  expect(sent).toHaveLength(4);
  const first = last()!.put.map(({ key }) => key);
  open = true;
  expect(takeOne()).toBe(1);
  expect(last()).toMatchObject({ full: false, revision: lab.store.snapshot.revision });
  const tasks = [...first, ...last()!.put.map(({ key }) => key)].filter((key) => key.startsWith('task/'));
  expect(tasks.sort()).toEqual([...lab.store.snapshot.all('task')].map(({ id }) => `task/${id}`).sort());
  expect(takeOne()).toBe(0);
});
