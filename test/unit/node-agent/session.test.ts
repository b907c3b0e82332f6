/** Whom an agent asks when the replica that leads has lost its power: no connection is closed, and others may name it a while longer. */
import { expect, it } from 'vitest';
import type { Heartbeat } from '#node-agent/heartbeat.ts';
import { Session } from '#node-agent/session.ts';
import type { Transport } from '#node-agent/transport.ts';
import { ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import type { StreamListener } from '#proto/stream.ts';
import { aNode, nothingHeld } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

/** A session with replicas that say what the test lets them say. */
function agentOf(...addresses: string[]) {
  const there = { value: false };
  const clock = new FakeClock();
  const dialled: string[] = [];
  const ended: string[] = [];
  const warm: (readonly string[])[] = [];
  const warmForBeats: (readonly string[])[] = [];
  let opened: (() => void) | undefined;
  let listener: StreamListener<ControlMessage> | undefined;
  let silent = () => {};
  const transport: Transport = {
    connect(address, told) {
      dialled.push(address);
      opened = told;
      const session = () => ({
        listen: (one: StreamListener<ControlMessage>) => {
          listener = one;
        },
        send: () => true,
        pause() {},
        resume() {},
        close() {},
      });
      const renew = () => Promise.reject(new Error('not asked for'));
      const ends = {
        close: () => void ended.push(`${address} closed`),
        release: () => void ended.push(`${address} released`),
      };
      return { session, relay: session, renew, isThere: () => there.value, ...ends } as never;
    },
    keepWarm: (addresses) => void warm.push(addresses),
  };
  const heartbeat: Heartbeat = {
    aim() {},
    keepWarm: (addresses) => void warmForBeats.push(addresses),
    onSilence(told) {
      silent = told;
    },
    close: async () => {},
  };
  const nothing = () => {};
  const session = new Session({
    ...{ clock, log: silentLog, transport, heartbeat, addresses },
    ...{ describe: () => aNode('h1'), statuses: () => [], epoch: { get: () => 0, set: nothing } },
    ...{ welcomed: nothing, assigned: nothing, began: () => nothingHeld, relay: nothing },
  });
  session.start();
  const says = (body: object) => listener!.message(ControlMessage.fromPartial({ body } as never));
  return {
    session,
    there,
    dialled,
    pass: (ms: number) => clock.pass(ms),
    ended,
    warm,
    warmForBeats,
    welcomes: (replicas: readonly string[] = []) =>
      says({ $case: 'welcome', value: { session: 1, epoch: 1, replicas } }),
    expels: () => listener!.closed(new Fault('not-found', 'this node is not a member')),
    redirectsTo: (address: string) => says({ $case: 'redirect', value: { address, epoch: 1 } }),
    fallsSilent: () => silent(),
    answersAgain: () => opened!(),
  };
}

it('asks another replica at once where the one that led answers no more', async () => {
  const agent = agentOf('m1:7400', 'm2:7400', 'm3:7400');
  agent.welcomes();
  agent.fallsSilent();
  await agent.pass(0);
  expect(agent.dialled).toEqual(['m1:7400', 'm2:7400']);
  agent.redirectsTo('m3:7400');
  agent.welcomes();
  expect(agent.dialled).toEqual(['m1:7400', 'm2:7400', 'm3:7400']);
  expect(agent.session.connected).toBe(true);
});

it('is sent back to one that is off, gives it a moment only, and asks the next', async () => {
  const agent = agentOf('m1:7400', 'm2:7400', 'm3:7400');
  agent.welcomes();
  agent.fallsSilent();
  await agent.pass(0);
  agent.redirectsTo('m1:7400');
  expect(agent.dialled.at(-1)).toBe('m1:7400');
  await agent.pass(600);
  expect(agent.dialled).toEqual(['m1:7400', 'm2:7400', 'm1:7400', 'm2:7400']);
});

it('takes it back where it only stood still', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  agent.welcomes();
  agent.fallsSilent();
  await agent.pass(0);
  agent.redirectsTo('m1:7400');
  agent.welcomes();
  expect(agent.session.connected).toBe(true);
});

it('that is slow for longer than a moment is given its time again after that', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  agent.welcomes();
  agent.fallsSilent();
  for (let waited = 0; waited < 2_000; waited += 600) {
    await agent.pass(0);
    agent.redirectsTo('m1:7400');
    await agent.pass(600);
  }
  agent.redirectsTo('m1:7400');
  const dials = agent.dialled.length;
  await agent.pass(1_900);
  expect(agent.dialled).toHaveLength(dials);
  agent.welcomes();
  expect(agent.session.connected).toBe(true);
});

it('asks the only one it knows again, with all the time that a busy one may need', async () => {
  const agent = agentOf('m1:7400');
  agent.welcomes();
  agent.fallsSilent();
  await agent.pass(0);
  expect(agent.dialled).toEqual(['m1:7400', 'm1:7400']);
  await agent.pass(1_900);
  agent.welcomes();
  expect(agent.session.connected).toBe(true);
  expect(agent.dialled).toHaveLength(2);
});

it('dials the same one at once when it is heard again, and not where it was welcomed meanwhile', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  await agent.pass(100);
  agent.answersAgain();
  await agent.pass(0);
  expect(agent.dialled).toEqual(['m1:7400', 'm1:7400']);
  agent.welcomes();
  agent.answersAgain();
  await agent.pass(100);
  expect(agent.dialled).toHaveLength(2);
});

it('has connections with the replicas that do not serve it, as the one that does says who they are', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  const replicas = ['m1:7400', 'm2:7400', 'm3:7400'];
  agent.welcomes(replicas);
  expect(agent.warm).toEqual([['m2:7400', 'm3:7400']]);
  agent.fallsSilent();
  await agent.pass(0);
  agent.redirectsTo('m3:7400');
  // A manager was added.
  agent.welcomes([...replicas, 'm4:7400']);
  expect(agent.warm.at(-1)).toEqual(['m1:7400', 'm2:7400', 'm4:7400']);
  expect(agent.warmForBeats).toEqual(agent.warm);
});

it('keeps the connection of a replica that sends it on, and drops that of one that fell silent', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  agent.welcomes(['m1:7400', 'm2:7400']);
  agent.fallsSilent();
  await agent.pass(0);
  agent.redirectsTo('m1:7400');
  expect(agent.ended).toEqual(['m1:7400 closed', 'm2:7400 released']);
});

it('has connections with nobody where it is no member any more, and when it ends', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  agent.welcomes(['m1:7400', 'm2:7400']);
  agent.expels();
  expect(agent.warm.at(-1)).toEqual([]);
  expect(agent.warmForBeats.at(-1)).toEqual([]);
  const again = agentOf('m1:7400', 'm2:7400');
  again.welcomes(['m1:7400', 'm2:7400']);
  again.session.close();
  expect(again.warm.at(-1)).toEqual([]);
});

it('F13: waits twice as long each time for one that is there and slow, and as ever once it was welcomed', async () => {
  const agent = agentOf('m1:7400', 'm2:7400');
  agent.there.value = true;
  const takesMs = 13_000;
  let waitedMs = 0;
  for (let ms = 0; waitedMs < takesMs && ms < 120_000; ms += 100) {
    await agent.pass(100);
    waitedMs += 100;
    if (agent.dialled.at(-1) === 'm1:7400') continue;
    agent.redirectsTo('m1:7400');
    waitedMs = 0;
  }
  agent.welcomes();
  expect(agent.session.connected).toBe(true);
  expect(agent.dialled.filter((address) => address === 'm1:7400').length).toBeLessThan(8);
  const dials = agent.dialled.length;
  agent.fallsSilent();
  await agent.pass(0);
  await agent.pass(2_400);
  expect(agent.dialled.slice(dials)).toEqual(['m2:7400', 'm1:7400']);
});

it('F13: gives up one that nobody hears as soon as ever', async () => {
  const agent = agentOf('m1:7400');
  for (let ms = 0; ms < 23_000; ms += 100) await agent.pass(100);
  expect(agent.dialled).toHaveLength(11);
});

it('F13: many that dial one leader at once are all welcomed in a few times what that takes, however long they have to wait', async () => {
  const clock = new FakeClock();
  const agents = 400;
  /** Of the leader, for each that dials, whether or not it still waits. */
  const costMs = 20;
  let busyUntilMs = 0;
  let dials = 0;
  const crowd = Array.from({ length: agents }, (_, index) => {
    const transport: Transport = {
      connect() {
        dials++;
        let listener: StreamListener<ControlMessage> | undefined;
        let closed = false;
        busyUntilMs = Math.max(busyUntilMs, clock.monotonic()) + costMs;
        clock.after(busyUntilMs - clock.monotonic(), () => {
          const body = { $case: 'welcome', value: { session: 1, epoch: 1 } };
          if (!closed) listener?.message(ControlMessage.fromPartial({ body } as never));
        });
        const session = () => ({
          listen: (one: StreamListener<ControlMessage>) => {
            listener = one;
          },
          send: () => true,
          close() {},
        });
        const close = () => {
          closed = true;
        };
        return { session, relay: session, isThere: () => true, close } as never;
      },
      keepWarm() {},
    };
    const heartbeat = { aim() {}, keepWarm() {}, onSilence() {}, close: async () => {} };
    const nothing = () => {};
    const session = new Session({
      ...{ clock, log: silentLog, transport, heartbeat, addresses: ['m1:7400'] },
      ...{ describe: () => aNode(`h${index}`), statuses: () => [], epoch: { get: () => 0, set: nothing } },
      ...{ welcomed: nothing, assigned: nothing, began: () => nothingHeld, relay: nothing },
    });
    session.start();
    return session;
  });
  await clock.pass(5 * agents * costMs);
  expect(crowd.filter(({ connected }) => !connected)).toHaveLength(0);
  expect(dials).toBeLessThan(5 * agents);
});
