/** A node that says what it holds is sent the rest: what all nodes are told, in parts. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { Inventory } from '#node-agent/inventory.ts';
import type { AgentMessage, AssignmentSet, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { partCount } from '#proto/shared-parts.ts';
import type { StreamListener } from '#proto/stream.ts';
import { aCluster, aNode, aService, nothingHeld } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { testSeal } from '#test/support/test-seal.ts';

const nodes = Array.from({ length: 40 }, (_, index) => aNode(`n${index}x`));
const services = Array.from({ length: 300 }, (_, index) => aService(`s${index}x`));
let clock: FakeClock;
let store: Store;
let dispatch: Dispatch;

/** Lets what is to happen at once happen. */
async function during<T>(work: Promise<T>): Promise<T> {
  await clock.pass(20);
  return work;
}

beforeEach(async () => {
  clock = new FakeClock();
  store = new MemoryEtcd({ clock }).open();
  await during(store.takeLeadership(undefined, { epoch: 1, replica: 'm1', address: 'm1:7400' }));
  const records: Change[] = [
    { table: 'cluster', key: 'config', value: aCluster(), expect: 0 },
    ...nodes.map((value): Change => ({ table: 'node', key: value.id, value, expect: 0 })),
    ...services.map((value): Change => ({ table: 'service', key: value.id, value, expect: 0 })),
  ];
  await during(store.commit(records));
  dispatch = new Dispatch({
    store,
    clock,
    random: seededRandom(1),
    log: silentLog,
    leadsBy: ({ replica }) => replica === 'm1',
    mayGrant: () => true,
    unseal: (credential) => credential,
    openContent: (content) => testSeal.open(content),
  });
});
afterEach(async () => {
  dispatch.close();
  await store.close();
});

/** The messages of the full set that a node is sent that says it holds this. */
async function sentTo(index: number, held: Buffer): Promise<ControlMessage[]> {
  const sent: ControlMessage[] = [];
  let listener: StreamListener<AgentMessage> | undefined;
  dispatch.connect(nodes[index]!.id, {
    listen: (next) => {
      listener = next;
    },
    send: (message) => {
      sent.push(message);
      return true;
    },
    pause() {},
    resume() {},
    close() {},
  });
  listener!.message({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [], held } } });
  await clock.pass(20);
  return sent.filter(({ body }) => body?.$case === 'assignments');
}
const setOf = (message: ControlMessage) => (message.body as { value: AssignmentSet }).value;
const keysIn = (messages: readonly ControlMessage[]) => messages.flatMap((one) => setOf(one).put.map(({ key }) => key));

/** What an agent holds that was sent everything. */
async function whoHoldsAll(): Promise<Inventory> {
  const inventory = new Inventory();
  for (const message of await sentTo(0, nothingHeld)) inventory.take(setOf(message));
  return inventory;
}

it('who holds all is sent nothing of it, and keeps it under the next epoch', async () => {
  const inventory = await whoHoldsAll();
  const [before, listed] = [inventory.held(), inventory.endpoints()];
  const sent = await sentTo(1, before);
  expect(keysIn(sent)).toEqual([]);
  expect(setOf(sent.at(-1)!).kept).toHaveLength(partCount);
  expect(inventory.take({ ...setOf(sent.at(-1)!), epoch: 2 })).toMatchObject({ put: [], removed: [], full: true });
  expect(inventory.held()).toEqual(before);
  expect(inventory.endpoints()).toBe(listed);
});

it('who holds what there was is sent the parts in which something has changed, as one message for all of them', async () => {
  const inventory = await whoHoldsAll();
  const [changed, removed] = services as [(typeof services)[0], (typeof services)[0]];
  const value = { ...changed, vip: '10.224.9.9' };
  const expectOf = (id: string) => store.snapshot.get('service', id)!.modRevision;
  await during(
    store.commit([
      { table: 'service', key: value.id, value, expect: expectOf(value.id) },
      { table: 'service', key: removed.id, value: undefined, expect: expectOf(removed.id) },
    ]),
  );
  const held = inventory.held();
  const [first, second] = [await sentTo(1, held), await sentTo(2, held)];
  expect(first).toHaveLength(2);
  expect(second[0]).toBe(first[0]);
  expect(keysIn(first)).toContain(`endpoint/${value.id}`);
  expect(keysIn(first).length).toBeLessThan(20);
  for (const message of first) inventory.take(setOf(message));
  expect(inventory.endpoint(value.id)).toMatchObject({ vip: '10.224.9.9' });
  expect(inventory.endpoint(removed.id)).toBeUndefined();
  expect(inventory.endpoints()).toHaveLength(services.length - 1);
  expect(setOf((await sentTo(3, inventory.held())).at(-1)!).kept).toHaveLength(partCount);
});

it('who names digests of other parts than ours is sent everything', async () => {
  const inventory = await whoHoldsAll();
  const sent = await sentTo(1, inventory.held().subarray(16));
  expect(keysIn(sent)).toHaveLength(services.length + nodes.length);
  expect(setOf(sent.at(-1)!).kept).toEqual([]);
});
