/** Silence makes a node down, unless it is we who do not hear. */
import { describe, expect, it } from 'vitest';
import type { KernelSeen } from '#control-plane/reconcilers/kernel-verdict.ts';
import {
  type AgentSeen,
  arrivingMs,
  askMs,
  awayMs,
  graceMs,
  judge,
  massSilenceMs,
  mostArrivingMs,
  restartMs,
  silenceMs,
  suspectMs,
  unheardMs,
} from '#control-plane/reconcilers/node-health.ts';
import type { Node } from '#proto/model/node.ts';
import { aNode } from '#test/support/builders.ts';

const lostMs = 30_000;
const names = ['h1', 'h2', 'h3', 'h4', 'h5'];

/** The verdicts as `name: state`, at `now` (ms since this leader began), with the last beat of each node. */
function verdicts(
  now: number,
  beats: Record<string, number | undefined>,
  options: {
    kernels?: Record<string, KernelSeen>;
    lagged?: number;
    deaf?: number;
    /** Nodes whose records say that they answer probes. */
    answersProbes?: readonly string[];
    /** The node on the leader's machine. */
    own?: string;
    /** Given up before. */
    down?: readonly string[];
    arrival?: number;
    state?: Node['state'];
    hungUp?: Record<string, number>;
    agents?: Record<string, AgentSeen>;
    away?: string;
    awayLimit?: number;
  } = {},
) {
  const nodes = names.map((name) =>
    aNode(name, {
      state: options.down?.includes(name) ? 'down' : (options.state ?? 'ready'),
      away: options.away ?? '',
      bootId: `boot-${name}`,
      answersProbes: options.answersProbes?.includes(name) || undefined,
    }),
  );
  const advice = judge(
    nodes,
    {
      now,
      ownBootId: options.own && `boot-${options.own}`,
      leaderSinceMs: 0,
      laggedUntilMs: options.lagged ?? 0,
      deafUntilMs: options.deaf ?? 0,
      lastArrivalMs: options.arrival ?? Number.NEGATIVE_INFINITY,
      lastBeatAt: (node) => (node.name in beats ? beats[node.name] : now - 100),
      hungUpAt: (node) => options.hungUp?.[node.name],
      kernelOf: (node) => options.kernels?.[node.name] ?? { answeredAtMs: undefined, round: undefined },
      clockOf: () => undefined,
      wrongClocks: [],
      agentOf: (node) => options.agents?.[node.name],
    },
    options.awayLimit ?? lostMs,
  );
  return {
    said: advice.verdicts.map(({ node, state, away }) => `${node.name}: ${state}${away && `, ${away}`}`),
    wakeAtMs: advice.wakeAtMs,
    suspects: advice.suspects.map(({ name }) => name),
    why: advice.verdicts[0]?.message,
    probed: advice.probed.map(({ node, answersProbes }) => [node.name, answersProbes]),
  };
}

describe('the verdict over nodes', () => {
  it('is down after the silence, and not a moment before', () => {
    expect(verdicts(20_000, { h2: 20_000 - silenceMs + 1 }).said).toEqual([]);
    expect(verdicts(20_000, { h2: 20_000 - silenceMs }).said).toEqual(['h2: down']);
  });

  it('waits longer for an agent that hung up: its machine lives', () => {
    const hungUp = { h2: 17_050 };
    expect(verdicts(17_000 + restartMs - 1, { h2: 17_000 }, { hungUp })).toMatchObject({
      said: [],
      wakeAtMs: 17_000 + restartMs,
    });
    expect(verdicts(17_000 + restartMs, { h2: 17_000 }, { hungUp }).said).toEqual(['h2: down']);
    // It was back after that, and has fallen silent since.
    expect(verdicts(18_000 + silenceMs, { h2: 18_000 }, { hungUp }).said).toEqual(['h2: down']);
  });

  it('asks to be woken when the next node could be down', () => {
    expect(verdicts(20_000, { h2: 19_000 }).wakeAtMs).toBe(19_000 + silenceMs);
  });

  it('F13: gives every node its full grace after a change of leader', () => {
    const nobody = { h1: undefined };
    expect(verdicts(graceMs - 1, nobody).said).toEqual([]);
    expect(verdicts(graceMs, nobody).said).toEqual(['h1: down']);
  });

  it('F13: waits for nodes that a new leader has not heard while others still arrive, though not for ever', () => {
    const round = { askedAtMs: graceMs - askMs, leader: true, peers: new Map(), closed: true };
    const lives = { h1: { answeredAtMs: graceMs - askMs, round } };
    const said = (now: number, arrival: number, kernels = {}) => verdicts(now, { h1: undefined }, { arrival, kernels });
    expect(said(graceMs, graceMs - arrivingMs).said).toEqual(['h1: down']);
    const arrival = 60_000;
    const beats = { said: [], wakeAtMs: arrival + arrivingMs };
    expect(said(arrival + arrivingMs - 1, arrival)).toMatchObject(beats);
    expect(said(arrival + arrivingMs, arrival).said).toEqual(['h1: down']);
    const away = 'nothing of ours is heard from it, but its kernel answers';
    expect(said(arrival, arrival, lives).said).toEqual([`h1: ready, ${away}`]);
    expect(said(arrival + lostMs - 1, arrival, lives).said).toEqual([`h1: ready, ${away}`]);
    expect(said(arrival + lostMs, arrival, lives).said).toEqual(['h1: down']);
    expect(said(mostArrivingMs - 1, mostArrivingMs - 1).said).toEqual([]);
    expect(said(mostArrivingMs, mostArrivingMs - 1).said).toEqual(['h1: down']);
    // Who was heard and is silent now has arrived.
    expect(verdicts(arrival, { h1: arrival - silenceMs }, { arrival }).said).toEqual(['h1: down']);
    // Unless its kernel answers: its beats may be waiting where those of others are.
    const heardOnce = { h1: graceMs - askMs };
    const once = (now: number) => verdicts(now, heardOnce, { arrival, kernels: lives }).said;
    expect(once(arrival + lostMs - 1)).toEqual([`h1: ready, ${away}`]);
    expect(once(arrival + lostMs)).toEqual(['h1: down']);
    // Nor does it matter where probes show that the kernel is gone.
    const gone = { ...round, leader: false, peers: new Map([[aNode('h2').id, false]]) };
    const kernels = { h1: { answeredAtMs: 1, round: gone } };
    expect(verdicts(graceMs, { h1: undefined }, { arrival: graceMs, kernels }).said).toEqual(['h1: down']);
  });

  it('counts beats of an earlier leadership of its own as none', () => {
    expect(verdicts(graceMs - 1, { h1: -60_000 }).said).toEqual([]);
  });

  it('F35: doubts itself after its own event loop stood still', () => {
    expect(verdicts(20_000, { h2: 17_000 }, { lagged: 19_900 }).said).toEqual([]);
    expect(verdicts(19_900 + silenceMs, { h2: 17_000 }, { lagged: 19_900 }).said).toEqual(['h2: down']);
  });

  it('does not take a node for ready because it doubts itself', () => {
    const beats = Object.fromEntries(names.map((name) => [name, 1_000]));
    expect(verdicts(20_000, beats, { lagged: 19_900, state: 'down' }).said).toEqual([]);
  });

  it('suspects itself for longer when most nodes go silent at once', () => {
    const beats = { h1: 10_000, h2: 10_000, h3: 10_000 };
    expect(verdicts(10_000 + silenceMs, beats).said).toEqual([]);
    expect(verdicts(10_000 + silenceMs, { h1: 10_000, h2: 10_190, h3: 10_200 }).said).toEqual([]);
    expect(verdicts(10_000 + massSilenceMs, beats).said).toEqual(['h1: down', 'h2: down', 'h3: down']);
    expect(verdicts(10_000 + silenceMs, { h1: 10_000, h2: 10_000 }).said).toEqual(['h1: down', 'h2: down']);
  });

  it('is down for nobody while nobody is heard: it is the control plane that is cut off', () => {
    const beats = Object.fromEntries(names.map((name) => [name, 10_000]));
    expect(verdicts(10_000 + massSilenceMs - 1, beats).said).toEqual([]);
    expect(verdicts(10_000 + massSilenceMs, beats).said).toEqual(names.map((name) => `${name}: unknown`));
    expect(verdicts(900_000, beats, { state: 'unknown' }).said).toEqual([]);
  });

  it('is down for nobody while nobody is heard, whatever is awaited of their kernels, or was heard just before', () => {
    const beats = Object.fromEntries(names.map((name) => [name, 10_000]));
    const round = { askedAtMs: 17_400, leader: false, peers: new Map(), closed: false };
    const asking = { answeredAtMs: 9_000, round: { ...round, leader: undefined } };
    const lived = { answeredAtMs: 13_000, round };
    const untold = { answeredAtMs: 9_000, round };
    const kernels = { h1: untold, h2: asking, h3: lived, h4: untold, h5: untold };
    const all = names.map((name) => `${name}: unknown`);
    expect(verdicts(17_500, beats, { kernels }).said.sort()).toEqual(all);
    expect(verdicts(17_500, beats, { kernels, state: 'unknown' }).said).toEqual([]);
    const lives = { answeredAtMs: 17_400, round: { ...round, leader: true } };
    const heard = { ...kernels, h5: lives };
    expect(verdicts(17_500, beats, { kernels: heard }).said).toEqual([
      'h1: down',
      'h4: down',
      'h5: ready, nothing of ours is heard from it, but its kernel answers',
    ]);
  });

  it('is down for nobody where only the node on its own machine is heard: that one needs no cable', () => {
    const beats = { h2: 10_000, h3: 10_000, h4: 10_000, h5: 10_000 };
    const round = { askedAtMs: 15_900, leader: false, peers: new Map([[aNode('h1').id, false]]), closed: true };
    const kernels = Object.fromEntries(Object.keys(beats).map((name) => [name, { answeredAtMs: 9_000, round }]));
    const at = (now: number, own?: string) => verdicts(now, beats, { kernels, ...(own && { own }) }).said;
    expect(at(10_000 + massSilenceMs - 1, 'h1')).toEqual([]);
    expect(at(10_000 + massSilenceMs, 'h1')).toEqual(Object.keys(beats).map((name) => `${name}: unknown`));
    expect(at(10_000 + massSilenceMs)).toEqual(Object.keys(beats).map((name) => `${name}: down`));
    expect(verdicts(20_000, { ...beats, h5: 19_900 }, { kernels, own: 'h1' }).said).toEqual(
      ['h2', 'h3', 'h4'].map((name) => `${name}: down`),
    );
    // The first of them to be silent is not the only one: what the own node hears counts no more than what we do.
    const first = { ...round, askedAtMs: 10_600 };
    const early = { h2: { answeredAtMs: 9_000, round: first } };
    const soon = (own?: string) =>
      verdicts(10_900, { h2: 10_000, h3: 10_200, h4: 10_200, h5: 10_200 }, { kernels: early, ...(own && { own }) });
    expect(soon('h1').said).toEqual([]);
    expect(soon().said).toEqual(['h2: down']);
  });

  it('is down for the other of two machines where the one that leads is a node too', () => {
    const absent = { h3: undefined, h4: undefined, h5: undefined };
    const at = (own: string) => verdicts(60_000, { ...absent, h2: 50_000 }, { own, down: ['h3', 'h4', 'h5'] }).said;
    expect(at('h1')).toEqual(['h2: down']);
  });

  it('is down for nobody while nobody is heard, though one is owed more patience than others, since we were late ourselves', () => {
    const beats = Object.fromEntries(names.map((name) => [name, 10_000]));
    const others = ['h1: unknown', 'h3: unknown', 'h4: unknown', 'h5: unknown'];
    const at = (beatsNow: Record<string, number | undefined>, hungUp = {}) =>
      verdicts(16_000 + silenceMs, beatsNow, { lagged: 16_000, hungUp }).said;
    expect(at(beats, { h2: 10_050 })).toEqual(others);
    expect(at({ ...beats, h2: undefined })).toEqual(others);
    expect(at({ ...beats, h2: 16_100 })).toEqual(['h1: down', 'h3: down', 'h4: down', 'h5: down']);
  });

  it('gives all the grace of a new leader when the first of them is heard again', () => {
    const beats = { h1: 10_000, h2: 10_000, h3: 10_000, h4: 10_000, h5: 59_900 };
    const at = (now: number) => verdicts(now, { ...beats, h5: now - 100 }, { deaf: 60_000, state: 'unknown' }).said;
    expect(at(60_000)).toEqual(['h5: ready']);
    expect(at(60_000 + graceMs - 1)).toEqual(['h5: ready']);
    expect(at(60_000 + graceMs)).toEqual(['h1: down', 'h2: down', 'h3: down', 'h4: down', 'h5: ready']);
  });

  it('is ready as soon as a node is heard again', () => {
    expect(
      verdicts(20_000, { h1: undefined, h2: undefined, h3: undefined, h4: 1_000 }, { state: 'down' }).said,
    ).toEqual(['h5: ready']);
  });
});

describe('an agent that answers nobody while its host is heard', () => {
  const stopped = (sinceMs: number) => ({ agents: { h2: { condition: 'stopped', sinceMs } as const } });
  const away = 'its agent is stopped (SIGSTOP)';

  it('is away after a while: its tasks are left alone', () => {
    expect(verdicts(20_000, {}, stopped(20_000 - awayMs + 1))).toMatchObject({ said: [], wakeAtMs: 20_001 });
    expect(verdicts(20_000, {}, stopped(20_000 - awayMs)).said).toEqual([`h2: ready, ${away}`]);
  });

  it('is lost after a long while, and its node with it', () => {
    const { said, wakeAtMs } = verdicts(60_000, {}, { ...stopped(60_000 - lostMs + 1), away });
    expect(said.filter((one) => one.startsWith('h2'))).toEqual([]);
    expect(wakeAtMs).toBe(60_001);
    expect(verdicts(60_000, {}, stopped(60_000 - lostMs)).said).toEqual(['h2: down']);
    expect(verdicts(60_000, {}, { ...stopped(60_000 - lostMs), away, awayLimit: 60_000 }).said).not.toContain(
      'h2: down',
    );
    const never = { ...stopped(1), away, awayLimit: Number.POSITIVE_INFINITY };
    expect(verdicts(9e9, {}, never).said).not.toContain('h2: down');
  });

  it('makes no node ready that is down', () => {
    const agents = Object.fromEntries(names.map((name) => [name, { condition: 'gone', sinceMs: 1_000 } as const]));
    expect(verdicts(60_000, {}, { state: 'down', agents }).said).toEqual([]);
  });

  it('is there again at once when it runs', () => {
    const agents = Object.fromEntries(names.map((name) => [name, { condition: 'running', sinceMs: 59_990 } as const]));
    expect(verdicts(60_000, {}, { agents, away }).said).toEqual(names.map((name) => `${name}: ready`));
  });
});

describe('a silent host whose kernel is asked', () => {
  const [h1, h3] = [aNode('h1').id, aNode('h3').id];
  /** Asked at `askedAtMs`: what the leader and two peers heard. */
  const asked = (
    askedAtMs: number,
    leader: boolean | undefined,
    peers: readonly (boolean | undefined)[],
    closed = false,
  ): { kernels: Record<string, KernelSeen> } => {
    const said = new Map(peers.map((one, index) => [[h1, h3][index]!, one]));
    return { kernels: { h2: { answeredAtMs: 1_000, round: { askedAtMs, leader, peers: said, closed } } } };
  };
  const silent = { h2: 20_000 };

  it('is suspected early, and not a moment before', () => {
    expect(verdicts(20_000 + suspectMs - 1, silent)).toMatchObject({ suspects: [], wakeAtMs: 20_000 + suspectMs });
    expect(verdicts(20_000 + suspectMs, silent).suspects).toEqual(['h2']);
  });

  it('is suspected at once where it hung up', () => {
    expect(verdicts(20_010, silent, { hungUp: { h2: 20_005 } }).suspects).toEqual(['h2']);
  });

  it('is down when neither we nor its peers hear the kernel, and who heard what is in the message', () => {
    const { said, why } = verdicts(20_900, silent, asked(20_600, false, [false, false]));
    expect(said).toEqual(['h2: down']);
    expect(why).toBe('not heard for 0.9 s; probed by: the leader heard nothing, h1 heard nothing, h3 heard nothing');
  });

  it('is down at once where it hung up and no kernel answers', () => {
    const hungUp = { h2: 20_005 };
    expect(verdicts(20_300, silent, { ...asked(20_010, false, [false, false]), hungUp }).said).toEqual(['h2: down']);
  });

  it('that was given up comes back with a beat alone, not while it is asked once more', () => {
    const state = 'down';
    const again = [asked(20_890, undefined, [undefined, undefined]), asked(20_890, true, [true, true])];
    for (const round of [...again, { ...again[0], hungUp: { h2: 20_005 } }])
      expect(verdicts(20_900, silent, { ...round, state }).said).not.toContain('h2: ready');
    const soon = { ...again[0], hungUp: { h2: 20_005 }, state } as const;
    expect(verdicts(20_300, silent, soon).said).not.toContain('h2: ready');
    expect(verdicts(21_000, { h2: 20_950 }, { ...again[0], state }).said).toContain('h2: ready');
  });

  it('is waited for as long as somebody has not said what it heard', () => {
    expect(verdicts(22_000, silent, asked(20_600, false, [false, undefined])).said).toEqual([]);
    expect(verdicts(22_000, silent, asked(20_600, false, [false, undefined], true)).said).toEqual(['h2: down']);
  });

  it('that answers anybody stays, is told to be away, and is lost only after a long while', () => {
    for (const round of [asked(20_600, true, [false, false]), asked(20_600, false, [false, true])]) {
      expect(verdicts(20_000 + awayMs - 1, silent, round).said).toEqual([]);
      expect(verdicts(20_000 + awayMs, silent, round).said).toEqual([
        'h2: ready, nothing of ours is heard from it, but its kernel answers',
      ]);
      expect(verdicts(20_000 + lostMs, silent, round).said).toEqual(['h2: down']);
      // What it has said since may still be unread.
      expect(verdicts(20_000 + awayMs, silent, { ...round, lagged: 20_500 }).said).toEqual([]);
    }
  });

  it('is judged by silence alone where no peer could be asked, or none said anything', () => {
    for (const round of [asked(20_600, false, [], true), asked(20_600, false, [undefined, undefined], true)]) {
      expect(verdicts(20_000 + silenceMs - 1, silent, round).said).toEqual([]);
      expect(verdicts(20_000 + silenceMs, silent, round).said).toEqual(['h2: down']);
    }
  });

  it('that was heard just before lives on where nobody says anything this time, for five seconds', () => {
    const heardAt = (answeredAtMs: number) => {
      const { kernels } = asked(23_000, false, [undefined, undefined], true);
      return { kernels: { h2: { ...kernels.h2!, answeredAtMs } } };
    };
    expect(verdicts(24_000, silent, heardAt(20_700)).said).not.toContain('h2: down');
    expect(verdicts(24_000, silent, heardAt(19_900)).said).toContain('h2: down');
    const { kernels } = asked(26_000, false, [undefined, undefined], true);
    const late = { kernels: { h2: { ...kernels.h2!, answeredAtMs: 20_700 } } };
    expect(verdicts(26_700, silent, late).said).toContain('h2: down');
  });

  it('is asked again: what was heard before its last beat says nothing', () => {
    expect(verdicts(20_900, silent, asked(19_900, false, [false, false])).said).toEqual([]);
  });

  it('does not count while most nodes are silent together', () => {
    const beats = { h1: 20_000, h2: 20_000, h3: 20_000 };
    expect(verdicts(20_900, beats, asked(20_600, false, [false, false])).said).toEqual([]);
  });

  it('lives by a peer that hears it, also where it never answered from here', () => {
    const { kernels } = asked(20_600, false, [false, true]);
    const unanswered = { kernels: { h2: { ...kernels.h2!, answeredAtMs: undefined } } };
    expect(verdicts(20_000 + silenceMs, silent, unanswered).said).toEqual([]);
    expect(verdicts(20_000 + lostMs, silent, unanswered).said).toEqual(['h2: down']);
  });

  it('is not down while it waits to be asked, and lives while an older answer says so', () => {
    const waits = { answeredAtMs: undefined, round: undefined, waits: true };
    expect(verdicts(20_000 + silenceMs, silent, { kernels: { h2: waits } }).said).toEqual([]);
    const { kernels } = asked(20_600, true, []);
    const lives = { h2: { ...kernels.h2!, waits: true } };
    const away = 'nothing of ours is heard from it, but its kernel answers';
    expect(verdicts(20_000 + awayMs, silent, { kernels: lives }).said).toEqual([`h2: ready, ${away}`]);
  });

  it('is asked before the grace of a new leader ends, and left alone where somebody hears it', () => {
    const unheard = { h2: undefined };
    const never = (peer: boolean): Record<string, KernelSeen> => ({
      h2: {
        answeredAtMs: undefined,
        round: { askedAtMs: graceMs - askMs, leader: false, peers: new Map([[h1, peer]]), closed: true },
      },
    });
    const most = { ...unheard, h1: undefined, h3: undefined };
    expect(verdicts(graceMs - askMs - 1, most)).toMatchObject({ suspects: [], wakeAtMs: graceMs - askMs });
    expect(verdicts(graceMs - askMs, most).suspects).toEqual(['h1', 'h2', 'h3']);
    expect(verdicts(unheardMs - 1, unheard)).toMatchObject({ suspects: [], wakeAtMs: unheardMs });
    expect(verdicts(unheardMs, unheard).suspects).toEqual(['h2']);
    expect(verdicts(graceMs, unheard, { kernels: never(false) }).said).toEqual(['h2: down']);
    expect(verdicts(graceMs - 1, unheard, { kernels: never(true) })).toMatchObject({ said: [], wakeAtMs: graceMs });
    expect(verdicts(graceMs, unheard, { kernels: never(true) }).said).toEqual([
      'h2: ready, nothing of ours is heard from it, but its kernel answers',
    ]);
    expect(verdicts(lostMs, unheard, { kernels: never(true) }).said).toEqual(['h2: down']);
  });

  it('that died with the leader before is not waited for: it answered that one, and answers nobody now', () => {
    const round = { askedAtMs: unheardMs, leader: false, peers: new Map([[h1, false]]), closed: false };
    const kernels = { h2: { answeredAtMs: undefined, round } };
    const at = (now: number, answersProbes: readonly string[], more = {}) =>
      verdicts(now, { h2: undefined }, { kernels, answersProbes, ...more });
    const { said, why } = at(unheardMs + 300, ['h2']);
    expect(said).toEqual(['h2: down']);
    expect(why).toBe('not heard since this leader began; probed by: the leader heard nothing, h1 heard nothing');
    expect(at(unheardMs + 300, []).said).toEqual([]);
    expect(at(graceMs - 1, []).said).toEqual([]);
    // A firewall has come since.
    expect(at(graceMs - 1, ['h2'], { kernels: { h2: { ...kernels.h2, answers: false } } }).said).toEqual([]);
  });

  it('is written down with whether it answers probes, once that was seen while it was heard', () => {
    const probed = (answers: boolean | undefined, before: readonly string[], beats = {}) =>
      verdicts(20_000, beats, {
        kernels: { h2: { answeredAtMs: undefined, answers, round: undefined } },
        answersProbes: before,
      }).probed;
    expect(probed(true, [])).toEqual([['h2', true]]);
    expect(probed(false, ['h2'])).toEqual([['h2', false]]);
    for (const same of [
      probed(true, ['h2']),
      probed(false, []),
      probed(undefined, ['h2']),
      probed(true, [], { h2: undefined }),
    ])
      expect(same).toEqual([]);
  });
});
