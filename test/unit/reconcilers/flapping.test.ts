/** A node that goes down again and again: what it costs it, and what it does not. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decideNodes } from '#control-plane/reconcilers/decide-nodes.ts';
import { calmMs, flappingWakeAtMs, nextFlapping, passedOverMs } from '#control-plane/reconcilers/flapping.ts';
import { scaleService, setAvailability } from '#control-plane/reconcilers/service-changes.ts';
import { isPassedOver, type Node } from '#proto/model/node.ts';
import { containerSpec, emptyMount, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { aCluster, aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

/** Three nodes, a service on them, and the third node's link. */
class Story {
  readonly cluster: DecidedCluster;
  readonly web: Service;
  #silent = false;

  constructor(spec: Partial<ServiceSpec> = {}) {
    this.web = aService('web', spec);
    this.cluster = new DecidedCluster(
      ['h1', 'h2', 'h3'].map((name) => aNode(name)),
      [this.web],
    );
    this.cluster.put('cluster', aCluster());
    this.cluster.settle(this.web);
  }

  get h3(): Node {
    return this.cluster.snapshot.node(aNode('h3').id)!;
  }
  get seated(): string[] {
    return this.cluster.active(this.web).map(({ slot, nodeName }) => `${slot} ${nodeName || 'nowhere'}`);
  }

  /** Looks at the nodes; in how many ms to look again. */
  look(): number {
    const { snapshot, now } = this.cluster;
    const { changes, wakeAtMs } = decideNodes(
      snapshot,
      {
        now,
        leaderSinceMs: 0,
        laggedUntilMs: 0,
        deafUntilMs: 0,
        lastArrivalMs: Number.NEGATIVE_INFINITY,
        lastBeatAt: ({ name }) => (name === 'h3' && this.#silent ? now - 2_000 : now - 100),
        hungUpAt: () => undefined,
        kernelOf: () => ({ answeredAtMs: undefined, round: undefined }),
        agentOf: () => undefined,
        clockOf: () => undefined,
        wrongClocks: [],
        appliedRevision: () => snapshot.revision,
        withheld: new Set<never>(),
      },
      now,
    );
    this.cluster.commit(changes);
    this.cluster.settle(this.web);
    return wakeAtMs - now;
  }
  pass(ms: number): this {
    this.cluster.now += ms;
    this.look();
    return this;
  }
  /** Down for four seconds, and back with what it had. */
  flap(times = 1): this {
    for (let time = 0; time < times; time++) {
      this.#silent = true;
      this.pass(4_000);
      this.#silent = false;
      this.pass(4_000);
      this.cluster.put('node', { ...this.h3, unaccounted: false });
      this.cluster.settle(this.web);
    }
    return this;
  }
  scale(replicas: number): this {
    this.cluster.commit(scaleService(this.cluster.wish, this.web.id, replicas));
    this.cluster.settle(this.web);
    return this;
  }
}

const spread = ['1 h1', '2 h2', '3 h3'];
const moved = ['1 h1', '2 h2', '3 h1'];

describe('a node that was down', () => {
  it('once gets its tasks back and new ones as before, and that it was is forgotten', () => {
    const story = new Story().flap();
    expect(story.seated).toEqual(spread);
    expect(story.h3).toMatchObject({ message: '', flapping: { verdicts: 1, untilMs: 0 } });
    expect(story.scale(6).seated).toEqual([...spread, '4 h1', '5 h2', '6 h3']);
    expect(story.pass(calmMs - 5_000).h3.flapping?.verdicts).toBe(1);
    expect(story.pass(5_000).h3.flapping).toBeUndefined();
    expect(story.flap().seated).toContain('3 h3');
  });

  it('twice is passed over for 10 s, then for 20 s, and says so', () => {
    const story = new Story().flap(2);
    expect(story.h3.message).toBe(
      'flapping: down 2 times since 00:16:44, new tasks go to other nodes until 00:17:06 (UTC)',
    );
    expect(isPassedOver(story.pass(9_999).h3)).toBe(true);
    expect(story.pass(1).h3).toMatchObject({ message: '', flapping: { verdicts: 2, untilMs: 0 } });
    story.flap();
    expect(isPassedOver(story.pass(19_999).h3)).toBe(true);
    expect(isPassedOver(story.pass(1).h3)).toBe(false);
  });

  it('twice leaves the seats that it lost to who took them, and keeps what it has', () => {
    const story = new Story().flap(2);
    expect(story.seated).toEqual(moved);
    const [, , third] = story.cluster.active(story.web);
    expect(story.flap(5).cluster.active(story.web)[2]?.id).toBe(third?.id);
    expect(story.cluster.tasks(story.web).filter(({ nodeName }) => nodeName === 'h3')).toMatchObject([
      { why: expect.stringMatching(/holds its slot$/) },
    ]);
    // What it was given while nobody else had room stays there when it comes back.
    const bound = aTemplate({ container: containerSpec('web:1', { mounts: [emptyMount('volume', 'data', '/data')] }) });
    const pinned = new Story({ replicas: 1, template: bound });
    const home = pinned.seated;
    expect(pinned.flap(4).seated).toEqual(home);
  });

  it('twice gets new tasks only where no other node takes them, and all that is for every node', () => {
    const story = new Story().flap(2);
    expect(story.scale(6).seated).toEqual([...moved, '4 h2', '5 h1', '6 h2']);
    for (const name of ['h1', 'h2'])
      story.cluster.put('node', { ...story.cluster.snapshot.node(aNode(name).id)!, availability: 'pause' });
    expect(story.scale(7).seated.at(-1)).toBe('7 h3');
    expect(new Story({ mode: 'global' }).flap(3).seated.length).toBe(3);
  });

  it('gets new tasks at once when it is activated, or damping is off', () => {
    const story = new Story().flap(3);
    story.cluster.commit(setAvailability(story.cluster.wish, story.h3.id, 'active'));
    expect(story.pass(0).h3).toMatchObject({ message: '', flapping: undefined });
    const other = new Story().flap(3);
    other.cluster.put('cluster', aCluster({ flapDampingMs: 0 }));
    expect(other.pass(0).h3).toMatchObject({ message: '', flapping: undefined });
    expect(other.scale(4).seated).toContain('4 h3');
    expect(other.flap(3).seated).toContain('4 h3');
  });
});

it('whatever happens, and however clocks step, nobody is passed over for more than ten minutes, nor for ever remembered', () => {
  const step = fc.record({
    state: fc.constantFrom<Node['state']>('ready', 'ready', 'down', 'unknown'),
    ms: fc.integer({ min: -3_600_000, max: 700_000 }),
    dampingMs: fc.constantFrom(1_000, 10_000, 600_000),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let node = aNode('h1');
      let now = 1e12;
      const look = (state: Node['state'], dampingMs: number) => {
        const flapping = nextFlapping(node, state, now, dampingMs);
        node = { ...node, flapping, stateAtMs: state === node.state ? node.stateAtMs : now, state };
      };
      for (const { state, ms, dampingMs } of steps) {
        now += ms;
        look(state, dampingMs);
        const leftMs = (node.flapping?.untilMs ?? 0) - now;
        expect(leftMs).toBeLessThanOrEqual(Math.min(600_000, passedOverMs(node.flapping?.verdicts ?? 0, dampingMs)));
        if (state === 'down') expect(isPassedOver(node)).toBe(false);
      }
      look('ready', 10_000);
      for (let wakes = 0; node.flapping; wakes++) {
        expect(wakes).toBeLessThan(4);
        now = Math.max(now, flappingWakeAtMs(node, 10_000));
        look('ready', 10_000);
      }
      expect(flappingWakeAtMs(node, 10_000)).toBe(Number.POSITIVE_INFINITY);
    }),
  );
});
