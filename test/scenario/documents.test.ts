/** Configs and secrets on their way: sent to who needs them alone, waited for, and never written down by an agent. */
import { afterEach, expect, it } from 'vitest';
import { volumeRemoval } from '#control-plane/dispatch/volume-removal.ts';
import type { Transport } from '#node-agent/transport.ts';
import type { ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import { contentKey } from '#proto/model/document.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { aSecret } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';

const db = aSecret('shop_db', 'hunter2');

let lab: AgentLab;
afterEach(() => lab.close());

const store = () =>
  lab.commit(
    { table: 'document', key: 'secret/shop_db', value: db.document, expect: 0 },
    { table: 'content', key: contentKey(db.ref), value: db.content, expect: 0 },
  );
const reaches = (id: TaskId, state: string) => eventually(() => lab.task(id).state === state);

/** The host's transport, and all that came down it. */
function tapped(host: LabHost): { readonly transport: Transport; readonly heard: ControlMessage[] } {
  const heard: ControlMessage[] = [];
  const inner = lab.net.transportOf(host.id);
  const connect: Transport['connect'] = (address) => {
    const connection = inner.connect(address);
    const open = connection.session.bind(connection);
    const session = () => {
      const stream = open();
      const listen = stream.listen.bind(stream);
      return Object.assign(stream, {
        listen: (listener: Parameters<typeof listen>[0]) =>
          listen({
            ...listener,
            message(message) {
              heard.push(message);
              listener.message(message);
            },
          }),
      });
    };
    return Object.assign(connection, { session });
  };
  return { heard, transport: { ...inner, connect } };
}

const contentsIn = (heard: readonly ControlMessage[]) =>
  heard.flatMap(({ body }) =>
    body?.$case === 'assignments'
      ? body.value.put.flatMap(({ item }) => (item?.$case === 'content' ? [item.value.data.toString()] : []))
      : [],
  );
const removedIn = (heard: readonly ControlMessage[]) =>
  heard.flatMap(({ body }) => (body?.$case === 'assignments' ? body.value.remove : []));

it('a node is sent what its tasks need, once and before them; others are sent nothing', async () => {
  lab = await AgentLab.start(['h1', 'h2'], { documents: [db.mount] });
  await store();
  const [h1, h2] = lab.hosts as [LabHost, LabHost];
  const [one, two] = [tapped(h1), tapped(h2)];
  await h1.start(one);
  await h2.start(two);
  const [first, second] = [await lab.assign(h1, 't1'), await lab.assign(h1, 't2')];
  await reaches(first, 'running');
  await reaches(second, 'running');
  expect(h1.mounts.requests[0]!.contents.map(({ data }) => Buffer.from(data.reveal()).toString())).toEqual(['hunter2']);
  expect(contentsIn(one.heard)).toEqual(['hunter2']);
  for (const id of [first, second]) await lab.edit(id, { wanted: 'shutdown' });
  await eventually(() => removedIn(one.heard).includes(`content/${contentKey(db.ref)}`));
  expect(contentsIn(two.heard)).toEqual([]);
  expect(h1.disk.text).toContain('t1');
  expect(h1.disk.text).not.toContain('hunter2');
});

it('a task waits for what has not come, and says so; after a restart of the agent it is sent again', async () => {
  lab = await AgentLab.start(['h1'], { documents: [db.mount] });
  const host = lab.hosts[0]!;
  await host.start();
  const id = await lab.assign(host, 't1');
  await eventually(() => lab.task(id).message === 'waits for secret shop_db, which the control plane has not sent yet');
  await store();
  await host.stop();
  await host.start();
  await reaches(id, 'running');
  expect(host.disk.text).not.toContain('hunter2');
});

it('a node deletes a volume when it is asked to, and says so', async () => {
  lab = await AgentLab.start(['h1']);
  const host = lab.hosts[0]!;
  const remove = volumeRemoval(lab.dispatches[0]!.relays);
  await expect(remove(host.id, 'shop_data')).rejects.toMatchObject({ code: 'unavailable' });
  await host.start();
  await reaches(await lab.assign(host, 't1'), 'running');
  await remove(host.id, 'shop_data');
  expect(host.removedVolumes).toEqual(['shop_data']);
});

it('a content that was sealed for another name is sent to nobody', async () => {
  lab = await AgentLab.start(['h1'], { documents: [db.mount] });
  const other = aSecret('admin_key', 'the keys of the kingdom');
  await lab.commit({
    table: 'content',
    key: contentKey(db.ref),
    value: { ...db.content, sealed: other.content.sealed },
    expect: 0,
  });
  const host = lab.hosts[0]!;
  const { transport, heard } = tapped(host);
  await host.start({ transport });
  const id = await lab.assign(host, 't1');
  await eventually(() => lab.task(id).message.startsWith('waits for secret shop_db'));
  expect(contentsIn(heard)).toEqual([]);
});
