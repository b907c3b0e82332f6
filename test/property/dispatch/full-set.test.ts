/** What a node is told, whatever it held before, while its stream breaks, or takes now this much, now nothing: held to what the network was at each revision. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { endpointOf } from '#control-plane/dispatch/assign.ts';
import { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import { sharedItem, sharedKeys } from '#control-plane/dispatch/shared-set.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Inventory } from '#node-agent/inventory.ts';
import { type AgentMessage, Assignment, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { type AssignmentItem, assignmentKey } from '#proto/model/assignment.ts';
import { assignmentFromWire, assignmentToWire } from '#proto/model/wire.ts';
import type { MessageStream, StreamListener } from '#proto/stream.ts';
import { aCluster, aNode, aRevision, aService, aTask, nothingHeld } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { testSeal } from '#test/support/test-seal.ts';

const epoch = 1;
/** So many that what is shared comes in several parts. */
const nodes = Array.from({ length: 1_100 }, (_, index) => aNode(`n${index}x`));
const self = nodes[0]!;
const movable = nodes.slice(1, 5);
const services = Array.from({ length: 4 }, (_, index) => aService(`s${index}x`));
const which = fc.nat(services.length - 1);
type Step =
  | { readonly kind: 'service' | 'task' | 'remove' | 'peer'; readonly which: number }
  | { readonly kind: 'login' }
  | { readonly kind: 'again' }
  | { readonly kind: 'dial' }
  | { readonly kind: 'takes'; readonly messages: number }
  | { readonly kind: 'time'; readonly ms: number };
const of = <K extends Step['kind']>(kind: K) => fc.constant(kind);
const steps = fc.array<Step>(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: of('service'), which }) },
    { weight: 3, arbitrary: fc.record({ kind: of('task'), which }) },
    fc.record({ kind: of('remove'), which }),
    fc.record({ kind: of('peer'), which }),
    fc.record({ kind: of('login') }),
    { weight: 2, arbitrary: fc.record({ kind: of('again') }) },
    { weight: 2, arbitrary: fc.record({ kind: of('dial') }) },
    { weight: 4, arbitrary: fc.record({ kind: of('takes'), messages: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 2, arbitrary: fc.record({ kind: of('time'), ms: fc.integer({ min: 1, max: 15 }) }) },
  ),
  { maxLength: 40 },
);
/** How what the node holds at first differs from what there is: undefined, it holds nothing, and never says what it holds. */
type Damage = { readonly kind: 'stale' | 'missing' | 'gone'; readonly which: number };
const damages = fc.option(
  fc.array<Damage>(fc.record({ kind: fc.constantFrom('stale', 'missing', 'gone'), which }), { maxLength: 6 }),
  { nil: undefined },
);
/** Services that change while the node is told for the first time. */
const amids = fc.array(which, { maxLength: 4 });
/** What the node lacked goes while it takes nothing more than its full set, and then it is told all again. */
const lackedAndGone = (messages: number): Step[] => [
  { kind: 'takes', messages },
  { kind: 'time', ms: 5 },
  { kind: 'remove', which: 0 },
  { kind: 'again' },
];
/** A login between a full set and the broadcast of what that set said already. */
const lateLogin: Step[] = [
  { kind: 'takes', messages: 100 },
  { kind: 'task', which: 0 },
  { kind: 'service', which: 0 },
  { kind: 'service', which: 0 },
  { kind: 'again' },
  { kind: 'login' },
];

/** The node's end: takes as many messages as it is allowed to, and keeps what an agent would. */
class Node {
  readonly inventory: Inventory;
  readonly #isOlder: boolean;
  readonly #took: (node: Node) => void;
  #listener: StreamListener<AgentMessage> | undefined;
  #allowed = 0;
  #full = false;

  constructor(held: readonly AssignmentItem[] | undefined, took: (node: Node) => void) {
    this.inventory = new Inventory(held);
    this.#isOlder = held === undefined;
    this.#took = took;
  }

  /** Whatever came of the stream before ends. */
  dial(dispatch: Dispatch): void {
    this.#full = false;
    const stream: MessageStream<AgentMessage, ControlMessage> = {
      listen: (listener) => {
        this.#listener = listener;
      },
      send: (message) => {
        const { body } = ControlMessage.decode(ControlMessage.encode(message).finish());
        if (body?.$case === 'assignments') {
          if (this.#isOlder) body.value.kept = [];
          if (this.inventory.take(body.value)) this.#took(this);
        }
        this.#full = --this.#allowed <= 0;
        return !this.#full;
      },
      pause() {},
      resume() {},
      close() {},
    };
    dispatch.connect(self.id, stream);
    this.inventory.restart();
    const hello = { node: undefined, epoch, tasks: [], held: this.#isOlder ? nothingHeld : this.inventory.held() };
    this.#listener!.message({ body: { $case: 'hello', value: hello } });
  }

  takes(messages: number): void {
    this.#allowed = messages;
    if (!this.#full) return;
    this.#full = false;
    this.#listener?.drain?.();
  }
}

/** What a node held that had been told all, but for that damage. */
function heldBefore(snapshot: Snapshot, damage: readonly Damage[]): AssignmentItem[] {
  const held = new Map(
    [...sharedKeys(snapshot)].flatMap((key) => {
      const item = asHeld(snapshot, key);
      return item ? [[key, item] as const] : [];
    }),
  );
  for (const [number, { kind, which }] of damage.entries()) {
    const [service, node] = [services[which]!, movable[which]!];
    const gone = aService(`gone${number}x`);
    if (kind === 'stale') {
      const [endpoint, peer] = [held.get(`endpoint/${service.id}`), held.get(`peer/${node.id}`)];
      if (endpoint?.kind === 'endpoint') held.set(`endpoint/${service.id}`, { ...endpoint, vip: '10.224.9.9' });
      if (peer?.kind === 'peer') held.set(`peer/${node.id}`, { ...peer, address: '10.91.9.9' });
    } else if (kind === 'missing') {
      held.delete(`endpoint/${service.id}`);
      held.delete(`peer/${node.id}`);
    } else held.set(`endpoint/${gone.id}`, { kind: 'endpoint', ...endpointOf(snapshot, gone) });
  }
  return [...held.values()];
}

/** As an agent holds it that has been told; undefined: it is gone. */
function asHeld(snapshot: Snapshot, key: string): AssignmentItem | undefined {
  const item = sharedItem(snapshot, key);
  return item && assignmentFromWire(Assignment.decode(Assignment.encode(assignmentToWire(item)).finish()));
}
const truthOf = (snapshot: Snapshot, key: string) => JSON.stringify(asHeld(snapshot, key));

test('who has a revision has what the network was then or has become since, and who takes everything ends with all there is', async () => {
  const parts = fc.asyncProperty(damages, amids, steps, async (damage, amid, steps) => {
    const clock = new FakeClock();
    const store = new MemoryEtcd({ clock }).open();
    const during = async <T>(work: Promise<T>): Promise<T> => {
      work.catch(() => {});
      await clock.pass(1);
      return work;
    };
    const put = async (...changes: Change[]) => {
      const revisions = changes.map((change) => store.snapshot.get(change.table, change.key)?.modRevision ?? 0);
      await during(store.commit(changes.map((change, index) => ({ ...change, expect: revisions[index] as number }))));
    };
    await during(store.takeLeadership(undefined, { epoch, replica: 'm1', address: 'm1:7400' }));
    await put(
      { table: 'cluster', key: 'config', value: aCluster(), expect: 0 },
      ...nodes.map((value): Change => ({ table: 'node', key: value.id, value, expect: 0 })),
      ...services.map((one): Change => ({ table: 'service', key: one.id, value: one, expect: 0 })),
      ...services.map((one): Change => ({ table: 'revision', key: `${one.id}/1`, value: aRevision(one), expect: 0 })),
    );
    /** What each key that changes was told to be, and from which revision on. */
    const history = new Map<string, { revision: number; value: string | undefined }[]>();
    const changing = [...services.map(({ id }) => `endpoint/${id}`), ...movable.map(({ id }) => `peer/${id}`)];
    const note = (revision: number) => {
      for (const key of changing) {
        const told = history.get(key) ?? [];
        history.set(key, told);
        const value = truthOf(store.snapshot, key);
        if (told.length === 0 || told.at(-1)?.value !== value) told.push({ revision, value });
      }
    };
    note(0);
    store.subscribe(({ revision }) => note(revision));
    const before = damage && heldBefore(store.snapshot, damage);
    const node = new Node(before, ({ inventory }) => {
      const held = new Map(
        [...inventory.endpoints(), ...inventory.peers()].map((item) => [
          assignmentKey(item as AssignmentItem),
          JSON.stringify(item),
        ]),
      );
      for (const key of changing) {
        const told = history.get(key)!;
        const then = told.findLastIndex(({ revision }) => revision <= inventory.revision);
        expect(told.slice(then).map(({ value }) => value)).toContain(held.get(key));
      }
    });
    const dispatch = new Dispatch({
      store,
      clock,
      random: seededRandom(1),
      log: silentLog,
      leadsBy: ({ replica }) => replica === 'm1',
      mayGrant: () => true,
      unseal: (credential) => credential,
      openContent: (content) => testSeal.open(content),
    });
    const meanwhile = [...new Set(amid)].map((which) => {
      const value = { ...services[which]!, vip: '10.224.2.1' };
      const expect = store.snapshot.get('service', value.id)!.modRevision;
      return store.commit([{ table: 'service', key: value.id, value, expect }]);
    });
    node.takes(meanwhile.length > 0 ? 100 : 0);
    node.dial(dispatch);
    await during(Promise.all(meanwhile));
    let version = 1;
    for (const one of steps) {
      version++;
      if (one.kind === 'takes') node.takes(one.messages);
      else if (one.kind === 'time') await clock.pass(one.ms);
      else if (one.kind === 'dial') node.dial(dispatch);
      else if (one.kind === 'again') {
        const value = { ...self, fenced: true, name: `n0x${version}` };
        await put({ table: 'node', key: value.id, value, expect: 0 });
      } else if (one.kind === 'login') {
        const value = { registry: 'docker.io', username: 'u', password: `p${version}` };
        await put({ table: 'credential', key: value.registry, value, expect: 0 });
      } else if (one.kind === 'peer') {
        const value = { ...movable[one.which]!, address: `10.91.0.${version}` };
        await put({ table: 'node', key: value.id, value, expect: 0 });
      } else {
        const service = services[one.which]!;
        const value = { ...service, vip: `10.224.1.${version}` };
        const task = aTask(`t${one.which}x`, {
          serviceId: service.id,
          nodeId: self.id,
          address: `10.192.0.${version}`,
        });
        if (one.kind === 'service') await put({ table: 'service', key: service.id, value, expect: 0 });
        else if (one.kind === 'task') await put({ table: 'task', key: task.id, value: task, expect: 0 });
        else
          await put(
            { table: 'service', key: service.id, value: undefined, expect: 0 },
            { table: 'task', key: task.id, value: undefined, expect: 0 },
          );
      }
    }
    node.takes(1_000);
    await clock.pass(100);
    const { inventory } = node;
    const held = [...inventory.peers(), ...inventory.endpoints()].map((item) => JSON.stringify(item)).sort();
    const all = [...sharedKeys(store.snapshot)].map((key) => truthOf(store.snapshot, key)).sort();
    expect(held).toEqual(all);
    const own = [...store.snapshot.tasksOnNode(self.id)].filter(({ serviceId }) =>
      store.snapshot.revisionOf(serviceId, 1),
    );
    expect(
      inventory
        .tasks()
        .map(({ task }) => task.address)
        .sort(),
    ).toEqual(own.map(({ address }) => address).sort());
    expect(inventory.revision).toBeGreaterThanOrEqual(
      Math.max(...[...history.values()].map((told) => told.at(-1)!.revision)),
    );
    const login = store.snapshot.get('credential', 'docker.io')?.value.password;
    if (own.length > 0) expect(inventory.credential('docker.io')?.password).toBe(login);
    dispatch.close();
    await store.close();
  });
  await fc.assert(parts, {
    numRuns: 60,
    examples: [
      [undefined, [], lateLogin],
      ...[2, 3].map((messages): [Damage[], number[], Step[]] => [
        [{ kind: 'missing', which: 0 }],
        [],
        lackedAndGone(messages),
      ]),
      [[], [0, 1, 2, 3], []],
    ],
  });
});
