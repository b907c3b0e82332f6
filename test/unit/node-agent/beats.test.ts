/** How long a silent leader is waited for: one second, and longer where it was only slow. */
import { expect, it } from 'vitest';
import { Beats } from '#node-agent/watchdog/beats.ts';
import type { Beat, BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { StreamListener } from '#proto/stream.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const m1 = { address: 'm1:7400', session: 1, periodMs: 200 };

/** Beats to replicas of which each acknowledges so long after it was dialled, and never before it `stalls` no more. */
function beating(answersAfterMs: (address: string) => number) {
  const clock = new FakeClock();
  const dialled: string[] = [];
  const ended: string[] = [];
  const found = {
    ...{ heard: 0, silent: 0, expelled: 0, stalledUntilMs: 0, reaches: true },
    refusal: undefined as Fault | undefined,
  };
  const beats = new Beats({
    clock,
    dial(address) {
      dialled.push(address);
      const readyMs = clock.monotonic() + answersAfterMs(address);
      let closed = false;
      return {
        open() {
          let listener: StreamListener<BeatAck> | undefined;
          const answer = ({ sequence }: Beat) => {
            const { refusal } = found;
            if (refusal) clock.after(1, () => listener?.closed(refusal));
            if (refusal) return true;
            const afterMs = Math.max(readyMs, found.stalledUntilMs) - clock.monotonic();
            if (afterMs === Number.POSITIVE_INFINITY) return true;
            clock.after(Math.max(1, afterMs), () => {
              if (!closed) listener?.message({ sequence, epoch: 1, leaseMs: 0, probes: [] });
            });
            return true;
          };
          const listen = (next: StreamListener<BeatAck>) => {
            listener = next;
          };
          return { listen, send: answer, pause() {}, resume() {}, close() {} };
        },
        close() {
          closed = true;
          ended.push('closed');
        },
        release() {
          closed = true;
          ended.push('released');
        },
      };
    },
    say: () => ({ session: 1, loopLagMs: 0, condition: 'running', probes: [], atMs: 0 }),
    reaches: async () => found.reaches,
    probe() {},
    leased() {},
    expelled: () => found.expelled++,
    heard: () => found.heard++,
    silent: () => found.silent++,
  });
  const aim = () => beats.aim(m1, ['m2:7400'], { keyPem: '', certificatePem: '', caPem: '' });
  const stall = (ms: number) => {
    found.stalledUntilMs = clock.monotonic() + ms;
  };
  return { clock, beats, dialled, ended, found, aim, stall };
}

it('tells of the silence of a leader that answered, after a second', async () => {
  const { clock, found, aim, stall } = beating(() => 5);
  aim();
  await clock.pass(10_000);
  expect(found).toMatchObject({ heard: 1, silent: 0 });
  stall(60_000);
  await clock.pass(1_000);
  expect(found.silent).toBe(0);
  await clock.pass(400);
  expect(found.silent).toBe(1);
});

it('F13: is heard by a leader that takes long to answer all who dial it, with few dials', async () => {
  for (const answersMs of [2_900, 5_000, 7_500]) {
    const { clock, dialled, found, aim } = beating((address) =>
      address === m1.address ? answersMs : Number.POSITIVE_INFINITY,
    );
    aim();
    await clock.pass(40_000);
    expect(found.heard).toBe(1);
    expect(dialled.filter((address) => address === m1.address).length).toBeLessThanOrEqual(3);
  }
});

it('F13: gives a leader that was only slow more time, until it has answered in time for a while', async () => {
  const { clock, found, aim, stall } = beating(() => 5);
  aim();
  await clock.pass(1_000);
  stall(1_500);
  await clock.pass(3_000);
  expect(found.silent).toBe(1);
  aim();
  await clock.pass(1_000);
  stall(1_500);
  await clock.pass(31_000);
  expect(found.silent).toBe(1);
  stall(1_500);
  await clock.pass(3_000);
  expect(found.silent).toBe(2);
});

it('gives a leader no more time because the way to it was cut, so that it finds it at once when it is mended', async () => {
  const { clock, dialled, found, aim, stall } = beating(() => 5);
  for (let cut = 1; cut <= 4; cut++) {
    aim();
    await clock.pass(1_000);
    found.reaches = false;
    stall(1_500);
    await clock.pass(1_400);
    expect(found.silent).toBe(cut);
    found.reaches = true;
  }
  expect(dialled.length).toBeGreaterThan(4);
});

it('leaves the connection of one that answered that it does not lead to the next who needs it, and drops that of one that fell silent', async () => {
  const { clock, dialled, ended, found, aim, stall } = beating(() => 5);
  aim();
  await clock.pass(1_000);
  found.refusal = new Fault('unavailable', 'this replica does not lead');
  await clock.pass(1_400);
  expect(dialled).toEqual(['m1:7400', 'm2:7400']);
  expect(ended).toEqual(['released']);
  found.refusal = undefined;
  stall(60_000);
  await clock.pass(3_400);
  expect(ended).toEqual(['released', 'closed']);
});

it('needs no connection any more where the node is no member', async () => {
  const { clock, found, aim } = beating(() => 5);
  aim();
  found.refusal = new Fault('not-found', 'this node is not a member');
  await clock.pass(500);
  expect(found.expelled).toBeGreaterThan(0);
});
