/** What a leader says of a node that it does not hear, or whose agent has no session: as far as it can see, and where to look for the rest. */
import { expect, it } from 'vitest';
import { explain } from '#control-plane/api/explain.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import type { KernelRound } from '#control-plane/reconcilers/kernel-verdict.ts';
import { aNode } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { operatorLab } from '#test/support/operator.ts';

const { id } = aNode('h1');

async function why(play: (liveness: BeatLiveness, clock: FakeClock) => unknown, kernel?: boolean): Promise<string> {
  const clock = new FakeClock();
  const liveness = new BeatLiveness(clock);
  const round: KernelRound = { askedAtMs: clock.monotonic() + 5_000, leader: kernel, peers: new Map(), closed: true };
  if (kernel !== undefined) liveness.kernelOf = () => ({ answeredAtMs: undefined, answers: true, round });
  await play(liveness, clock);
  const lab = operatorLab({ clock, liveness });
  await lab.put('node', aNode('h1'));
  return (await explain(lab.parts, { name: 'h1' })).summary;
}

const log = 'the log of its agent says which (journalctl -u gantry-agent)';

it('of a host that answers, and whose agent and watchdog do not, it says what may be and where that stands', async () => {
  const silent = (liveness: BeatLiveness, clock: FakeClock) => {
    liveness.beat(id);
    return clock.pass(10_000);
  };
  const told = await why(silent, true);
  expect(told).toContain(
    "Its host answers, agent and watchdog do not run, reach no manager, or do not trust the cluster's CA",
  );
  expect(told).toContain(log);
  expect(await why(silent, false)).not.toContain(log);
  expect(await why(() => {})).toContain('If its host is up, agent and watchdog do not run');
});

it('of an agent without a session, too, and not of one that is well', async () => {
  expect(await why((liveness) => liveness.beat(id, 'unconnected'))).toContain(
    `Its agent runs and has no session: it reaches no manager, or does not trust the cluster's CA; ${log}.`,
  );
  expect(await why((liveness) => liveness.beat(id, 'running'), true)).not.toContain(log);
});
