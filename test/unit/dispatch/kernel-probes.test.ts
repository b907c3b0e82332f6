/** Who is asked about a silent host, and what becomes of the answers. */
import { describe, expect, it } from 'vitest';
import { KernelProbes } from '#control-plane/dispatch/kernel-probes.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { aNode } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const [h1, h2, h3, h4, h5] = ['h1', 'h2', 'h3', 'h4', 'h5'].map((name) => aNode(name).id) as [
  never,
  never,
  never,
  never,
  never,
];

function desk(answers: { value: boolean }, without: string[] = []) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const told: string[] = [];
  const probes = new KernelProbes({
    clock,
    random: seededRandom(1),
    probe: async () => answers.value,
    addressOf: () => '10.90.0.2',
    peersOf: (node) => [h1, h2, h3, h4, h5].filter((one) => one !== node),
    ask: (peer) => {
      if (without.includes(peer)) return false;
      asked.push(peer);
      return true;
    },
    tell: (node) => told.push(node),
  });
  return { clock, asked, told, probes };
}

/** Many hosts: whose rounds have begun, in order. */
function crowd() {
  const clock = new FakeClock();
  const rounds: string[] = [];
  const probes = new KernelProbes({
    clock,
    random: seededRandom(1),
    probe: async () => true,
    addressOf: () => '10.90.0.2',
    peersOf: () => [h1],
    ask: (_, node) => rounds.push(node) > 0,
    tell: () => {},
  });
  return { clock, probes, rounds };
}

describe('probes of a silent host', () => {
  it('are asked of three peers that can be asked, and of nobody again before all have said what they heard', async () => {
    const { clock, asked, probes } = desk({ value: false }, [h3]);
    probes.suspect(h2);
    probes.suspect(h2);
    expect(asked).toEqual([h1, h4, h5]);
    await clock.pass(400);
    probes.suspect(h2);
    expect(asked).toHaveLength(3);
    for (const peer of [h1, h4, h5]) probes.said(peer, h2, false);
    probes.suspect(h2);
    expect(asked).toHaveLength(6);
    await clock.pass(700);
    probes.suspect(h2);
    expect(asked).toHaveLength(9);
  });

  it('are kept as each was answered, and closed when their time is up', async () => {
    const { clock, probes, told } = desk({ value: false });
    probes.suspect(h2);
    await clock.pass(10);
    probes.said(h1, h2, false);
    probes.said(h1, h2, true);
    probes.said(h5, h2, true);
    expect(probes.of(h2).round).toMatchObject({ leader: false, closed: false });
    expect([...probes.of(h2).round!.peers.values()]).toEqual([false, undefined, undefined]);
    expect(told.length).toBeGreaterThanOrEqual(2);
    await clock.pass(700);
    expect(probes.of(h2).round!.closed).toBe(true);
  });

  it('of a node that is heard tell whether it answers probes at all', async () => {
    for (const value of [true, false]) {
      const { clock, probes } = desk({ value });
      probes.heard(h2);
      await clock.pass(600);
      expect(probes.of(h2).answeredAtMs !== undefined).toBe(value);
    }
  });

  it('are known to tell nothing where one that is heard leaves them unanswered, and not where it may have died', async () => {
    const answers = { value: true };
    const { clock, probes } = desk(answers);
    const look = async (ms: number) => {
      await clock.pass(ms);
      probes.heard(h2);
      await clock.pass(600);
    };
    await look(0);
    expect(probes.of(h2).answers).toBe(true);
    answers.value = false;
    await look(60_000);
    expect(probes.of(h2).answers).toBe(true);
    await look(200);
    expect(probes.of(h2).answers).toBe(false);
    answers.value = true;
    await look(5_000);
    expect(probes.of(h2).answers).toBe(true);
  });

  it('F13: of thousands that are silent at once are begun one after the other, first of those that were heard before', async () => {
    const { clock, probes, rounds } = crowd();
    const unheard = Array.from({ length: 2_000 }, (_, index) => aNode(`n${index}x`).id);
    const tick = async (ms: number) => {
      for (const id of unheard) probes.suspect(id);
      await clock.pass(ms);
    };
    await tick(0);
    expect(rounds).toHaveLength(100);
    expect(unheard.filter((id) => probes.of(id).waits)).toHaveLength(1_900);
    for (let ms = 0; ms < 1_000; ms += 100) await tick(100);
    expect(rounds.length).toBeLessThanOrEqual(400);
    probes.heard(h2);
    await clock.pass(600);
    const before = rounds.length;
    probes.suspect(h2);
    await clock.pass(10);
    expect(rounds.slice(before)[0]).toBe(h2);
    for (let ms = 0; ms < 6_000; ms += 100) await tick(100);
    expect(new Set(rounds).size).toBe(2_001);
    expect(rounds.length).toBeLessThanOrEqual(100 + 300 * 7.7);
    probes.reset();
    expect(unheard.some((id) => probes.of(id).waits)).toBe(false);
  });

  it('is looked at again soon while a node has never answered: it may have been busy', async () => {
    const answers = { value: false };
    const { clock, probes } = desk(answers);
    probes.heard(h2);
    await clock.pass(600);
    answers.value = true;
    probes.heard(h2);
    await clock.pass(600);
    expect(probes.of(h2).answeredAtMs).toBeUndefined();
    await clock.pass(5_000);
    probes.heard(h2);
    await clock.pass(600);
    expect(probes.of(h2).answeredAtMs).toBeDefined();
  });
});
