/** A singleton never runs twice: over generated histories of faults, wishes, late commits and agents that act on what they last heard. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { Books } from '#control-plane/reconcilers/books.ts';
import { decideNodes } from '#control-plane/reconcilers/decide-nodes.ts';
import { decideService } from '#control-plane/reconcilers/decide-service.ts';
import { leaseMs, marginMs } from '#control-plane/reconcilers/fence.ts';
import {
  removeNode,
  restartService,
  scaleService,
  setAvailability,
  updateService,
} from '#control-plane/reconcilers/service-changes.ts';
import type { Change } from '#control-plane/store/records.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { containerSpec } from '#proto/model/service.ts';
import { isTerminal, type Task, withStatus } from '#proto/model/task.ts';
import { aNode, aService, aTask, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const names = ['h1', 'h2', 'h3'] as const;
const wishes = [
  'restart',
  'image',
  'scale to 0',
  'scale to 1',
  'drain',
  'activate',
  'remove node',
  'add node',
] as const;
/** So long after its last beat the lease of a node is surely over. */
const overMs = leaseMs + marginMs + 400;
const host = fc.constantFrom(...names);
const event = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(100, 500, 1_500, overMs) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constantFrom('decide' as const, 'nodes' as const), late: fc.boolean() }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('land' as const, 'land' as const, 'lose' as const) }) },
  {
    weight: 12,
    arbitrary: fc.record({ kind: fc.constantFrom('hear' as const, 'start' as const, 'stop' as const), host }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constantFrom('cut' as const, 'heal' as const, 'fail' as const), host }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wish' as const), wish: fc.constantFrom(...wishes), host }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('lead' as const) }) },
  // All that there is to do in a quiet cluster, once; it begins what it holds, or not yet.
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('work' as const), start: fc.boolean() }) },
);
type Event =
  | (typeof event extends fc.Arbitrary<infer T> ? T : never)
  /** Something else runs there. */
  | { readonly kind: 'crowd'; readonly host: (typeof names)[number] };

/** A machine: what its agent last heard, and what runs on it, whatever anybody knows of that. */
interface Host {
  readonly id: NodeId;
  cut: boolean;
  leaseUntilMs: number;
  /** undefined: nothing since its agent began, or it was cut. */
  heardRevision: number | undefined;
  told: readonly Task[];
  readonly running: Map<TaskId, Task>;
  /** Ends that it has not been able to report. */
  readonly ended: Map<TaskId, 'failed' | 'shutdown' | 'orphaned'>;
}

class History {
  readonly cluster = new DecidedCluster(
    names.map((name) => aNode(name)),
    [aService('web', { replicas: 1, failover: 'singleton' })],
  );
  readonly #hosts = new Map<string, Host>();
  readonly #random = seededRandom(1);
  readonly #late: { changes: readonly Change[]; term: number }[] = [];
  #nowMs = 10_000;
  #term = 1;
  #leaderSinceMs = 0;
  #liveness = this.#listen();
  starts = 0;

  constructor() {
    for (const name of names)
      this.#hosts.set(name, {
        id: aNode(name).id,
        cut: false,
        leaseUntilMs: 0,
        heardRevision: undefined,
        told: [],
        running: new Map(),
        ended: new Map(),
      });
    this.#beats();
  }

  get running(): string[] {
    return [...this.#hosts].flatMap(([name, { running }]) => [...running.keys()].map((id) => `${id} on ${name}`));
  }

  take(one: Event): void {
    if (one.kind === 'pass') this.#pass(one.ms);
    else if (one.kind === 'decide') this.#commit(this.#decided(), one.late);
    else if (one.kind === 'nodes') this.#decideNodes(one.late);
    else if (one.kind === 'land') this.#land();
    else if (one.kind === 'lead') this.#lead();
    else if (one.kind === 'work') this.#work(one.start);
    else if (one.kind === 'lose') this.#late.shift();
    else if (one.kind === 'wish') this.#wish(one.wish, one.host);
    else if (one.kind === 'crowd') this.#crowd(aNode(one.host).id);
    else if ('host' in one) this.#onHost(one.kind, this.#hosts.get(one.host)!);
  }

  #crowd(nodeId: NodeId): void {
    this.cluster.put('task', aTask('other', { nodeId, serviceId: aService('other').id }));
  }

  #listen(): BeatLiveness {
    const clock = { monotonic: () => this.#nowMs } as ConstructorParameters<typeof BeatLiveness>[0];
    return new BeatLiveness(
      clock,
      (node) => [...this.#hosts.values()].find(({ id, cut }) => id === node && !cut)?.heardRevision,
    );
  }

  #work(start: boolean): void {
    this.#beats();
    this.#decideNodes(false);
    this.#commit(this.#decided(), false);
    for (const host of this.#hosts.values()) {
      for (const what of start ? (['hear', 'start', 'stop', 'hear'] as const) : (['hear', 'stop'] as const))
        this.#onHost(what, host);
    }
  }

  /** As dispatch acknowledges them. */
  #beats(): void {
    const { snapshot } = this.cluster;
    for (const host of this.#hosts.values()) {
      const record = snapshot.get('node', host.id);
      if (host.cut || !record) continue;
      this.#liveness.beat(host.id);
      const granted = !record.value.fenced && !this.#liveness.withheld(host.id, record.modRevision);
      if (granted) host.leaseUntilMs = this.#nowMs + leaseMs;
    }
  }

  #pass(ms: number): void {
    for (const untilMs = this.#nowMs + ms; this.#nowMs < untilMs; ) {
      this.#nowMs = Math.min(untilMs, this.#nowMs + 200);
      this.#beats();
      for (const host of this.#hosts.values()) {
        if (this.#nowMs < host.leaseUntilMs) continue;
        for (const id of host.running.keys()) host.ended.set(id, 'orphaned');
        host.running.clear();
      }
    }
    this.cluster.now = 1_000_000 + this.#nowMs;
  }

  #decided(): readonly Change[] {
    const { snapshot, now } = this.cluster;
    const books = new Books(snapshot, now);
    return decideService({ snapshot, books, now, newId: () => newId(this.#random) }, aService('web').id).changes;
  }

  #decideNodes(late: boolean): void {
    const { snapshot, now } = this.cluster;
    const liveness = this.#liveness;
    const hearing = {
      now: this.#nowMs,
      leaderSinceMs: this.#leaderSinceMs,
      laggedUntilMs: 0,
      deafUntilMs: 0,
      lastArrivalMs: Number.NEGATIVE_INFINITY,
      lastBeatAt: ({ id }: { id: NodeId }) => liveness.lastBeatAt(id),
      hungUpAt: () => undefined,
      agentOf: () => undefined,
      clockOf: () => undefined,
      wrongClocks: [],
      kernelOf: () => ({ answeredAtMs: undefined, round: undefined }),
      appliedRevision: ({ id }: { id: NodeId }) => liveness.appliedRevision(id),
      withheld: new Set(
        [...liveness.withheldNodes()].filter((id) => liveness.withheld(id, snapshot.get('node', id)?.modRevision ?? 0)),
      ),
    };
    const { changes } = decideNodes(snapshot, hearing, now);
    for (const change of changes)
      if (change.table === 'node' && change.value?.fenced) liveness.withhold(change.value.id, change.expect);
    this.#commit(changes, late);
  }

  /** Late: nobody knows yet whether it went through. */
  #commit(changes: readonly Change[], late: boolean): void {
    if (changes.length === 0) return;
    this.#late.push({ changes, term: this.#term });
    if (!late) this.#land(true);
  }

  /** What is under way is taken by the store, where nothing it was decided on has changed. */
  #land(newest = false): void {
    const one = newest ? this.#late.pop() : this.#late.shift();
    if (!one || one.term !== this.#term) return;
    const { snapshot } = this.cluster;
    const fresh = one.changes.every(
      ({ table, key, expect }) => (snapshot.get(table, key)?.modRevision ?? 0) === expect,
    );
    if (fresh) this.cluster.commit(one.changes);
  }

  /** Another replica leads: it knows nothing of what the last one heard, which may have granted a lease this moment. */
  #lead(): void {
    this.#term++;
    this.#leaderSinceMs = this.#nowMs;
    this.#liveness = this.#listen();
  }

  #wish(wish: (typeof wishes)[number], name: string): void {
    const { cluster } = this;
    const { id, spec } = cluster.service(aService('web'));
    const node = aNode(name).id;
    const changes = (): readonly Change[] => {
      switch (wish) {
        case 'restart':
          return restartService(cluster.wish, id);
        case 'image':
          return updateService(cluster.wish, id, {
            ...spec,
            template: aTemplate({ container: containerSpec(`web:${this.#random.int(100)}`) }),
          });
        case 'scale to 0':
          return scaleService(cluster.wish, id, 0);
        case 'scale to 1':
          return scaleService(cluster.wish, id, 1);
        case 'remove node':
          return removeNode(cluster.wish, node, true);
        case 'add node':
          return cluster.snapshot.node(node) ? [] : [{ table: 'node', key: node, value: aNode(name), expect: 0 }];
        default:
          return setAvailability(cluster.wish, node, wish === 'drain' ? 'drain' : 'active');
      }
    };
    try {
      this.#commit(changes(), false);
    } catch (error) {
      if (!isFault(error)) throw error;
    }
  }

  #onHost(what: 'hear' | 'start' | 'stop' | 'fail' | 'cut' | 'heal', host: Host): void {
    const { snapshot } = this.cluster;
    if (what === 'cut') {
      host.cut = true;
      host.heardRevision = undefined;
    } else if (what === 'heal') host.cut = false;
    else if (what === 'hear') {
      if (host.cut) return;
      for (const [id, state] of host.ended) this.#report(id, { state, finishedAtMs: this.cluster.now });
      host.ended.clear();
      for (const id of host.running.keys()) this.#report(id, { state: 'running', startedAtMs: this.cluster.now });
      host.told = [...snapshot.tasksOnNode(host.id)].filter(({ singleton }) => singleton);
      host.heardRevision = snapshot.revision;
      const held = new Set(host.told.filter(({ state }) => !isTerminal(state)).map(({ id }) => id));
      for (const id of host.running.keys()) if (!held.has(id)) host.running.delete(id);
    } else if (what === 'start') {
      for (const task of host.told) {
        const mayStart = task.wanted === 'running' && !isTerminal(task.state) && !host.ended.has(task.id);
        if (!mayStart || host.running.has(task.id) || this.#nowMs >= host.leaseUntilMs) continue;
        host.running.set(task.id, task);
        this.starts++;
      }
    } else
      for (const id of [...host.running.keys()]) {
        if (what === 'stop' && host.told.some((task) => task.id === id && task.wanted === 'running')) continue;
        host.running.delete(id);
        host.ended.set(id, what === 'stop' ? 'shutdown' : 'failed');
      }
  }

  #report(id: TaskId, fields: Pick<Task, 'state'> & Partial<Task>): void {
    const task = this.cluster.snapshot.task(id);
    if (!task) return;
    const status = { ...task, taskId: id, atMs: 0, ...fields };
    const next = withStatus(task, status, this.cluster.now);
    if (next !== task) this.cluster.put('task', next);
  }
}

/** Plays the events; what ran at the end. Fails where two tasks run at once. */
function play(events: readonly Event[]): History {
  const history = new History();
  for (const one of events) {
    history.take(one);
    expect(history.running.length, `${JSON.stringify(one)}: ${history.running.join(', ')}`).toBeLessThan(2);
  }
  return history;
}

const begun: Event = { kind: 'work', start: false };
const pass = (ms: number): Event => ({ kind: 'pass', ms: ms as 100 });
const now = (kind: 'decide' | 'nodes'): Event => ({ kind, late: false });
const later = (kind: 'decide' | 'nodes'): Event => ({ kind, late: true });
const on = (host: (typeof names)[number], ...kinds: ('cut' | 'heal' | 'hear' | 'start' | 'stop' | 'fail')[]): Event[] =>
  kinds.map((kind): Event => ({ kind, host }) as Event);
const land: Event = { kind: 'land' };

describe('a task that was given to a node and has not begun', () => {
  it('does not begin on a lease that is granted while the fence is being written', () => {
    const { running } = play([
      ...[
        begun,
        ...on('h1', 'cut'),
        pass(overMs),
        later('nodes'),
        ...on('h1', 'heal'),
        pass(100),
        ...on('h1', 'start'),
      ],
      ...[land, now('decide'), ...on('h2', 'hear', 'start')],
    ]);
    expect(running).toEqual([expect.stringContaining('on h2')]);
  });

  it('does not begin before its agent knows that it was replaced', () => {
    const { running } = play([
      ...[begun, ...on('h1', 'cut'), pass(overMs), now('nodes'), now('decide'), ...on('h2', 'hear', 'start')],
      ...[...on('h1', 'heal'), pass(100), now('nodes'), pass(100), ...on('h1', 'start')],
    ]);
    expect(running).toEqual([expect.stringContaining('on h2')]);
  });

  it('is not replaced by what was decided before its node held a lease again', () => {
    const { running } = play([
      ...[begun, ...on('h1', 'cut'), pass(overMs), now('nodes'), later('decide')],
      ...[...on('h1', 'heal', 'hear'), pass(100), now('nodes'), pass(100), ...on('h1', 'start')],
      ...[land, ...on('h2', 'hear', 'start')],
    ]);
    expect(running).toEqual([expect.stringContaining('on h1')]);
  });
});

it('is not begun on two nodes by two decisions on one state of the cluster', () => {
  const { running } = play([
    ...[later('decide'), { kind: 'crowd', host: 'h1' } as Event, now('decide'), land],
    ...[...on('h1', 'hear', 'start'), ...on('h2', 'hear', 'start'), ...on('h3', 'hear', 'start')],
  ]);
  expect(running).toEqual([expect.stringContaining('on h2')]);
});

it('never has two of its tasks run at once, whatever happens in whatever order', () => {
  let starts = 0;
  fc.assert(
    fc.property(fc.array(event, { minLength: 60, maxLength: 250, size: 'max' }), (events) => {
      starts += play(events).starts;
    }),
    { numRuns: 150 },
  );
  // Histories in which nothing runs would prove nothing.
  expect(starts).toBeGreaterThan(75); // They have some 235.
});
