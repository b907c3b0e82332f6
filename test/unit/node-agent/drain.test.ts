/** Holds the wait for connections to what is left of them, to its limit, and to one look for all. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Drain } from '#node-agent/task/drain.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

let clock: FakeClock;
let drain: Drain;
let open: Map<string, number>;
let looks: string[][];
let failing: Error | undefined;
/** How long a look takes. */
let lookMs: number;

beforeEach(() => {
  clock = new FakeClock();
  open = new Map();
  looks = [];
  failing = undefined;
  lookMs = 0;
  const network = {
    async connections(addresses: readonly string[]) {
      looks.push([...addresses]);
      if (lookMs > 0) await clock.sleep(lookMs);
      if (failing) throw failing;
      return new Map(addresses.map((address) => [address, open.get(address) ?? 0]));
    },
  };
  drain = new Drain({ clock, log: silentLog, network });
});
afterEach(() => clock.pass(60_000));

/** A wait, and what came of it so far. */
function waiting(addresses: readonly string[], limitMs = 2_000) {
  const abort = new AbortController();
  const wait = { doneAtMs: undefined as number | undefined, said: [] as number[], abort: () => abort.abort() };
  const left = (count: number) => wait.said.push(count);
  void drain.wait({ addresses, limitMs, signal: abort.signal, left }).then(() => {
    wait.doneAtMs = clock.monotonic();
  });
  return wait;
}

describe('a task that drains', () => {
  it('that nobody talks to is done after one look, without a word', async () => {
    const wait = waiting(['a']);
    await clock.pass(0);
    expect(wait).toMatchObject({ doneAtMs: 0, said: [] });
    await clock.pass(1_000);
    expect(looks).toEqual([['a']]);
  });

  it('is done when the last connection of all its addresses is gone', async () => {
    open.set('a', 1).set('b', 2);
    const wait = waiting(['a', 'b']);
    await clock.pass(250);
    open.delete('a');
    await clock.pass(250);
    expect(wait.doneAtMs).toBeUndefined();
    open.delete('b');
    await clock.pass(100);
    expect(wait.doneAtMs).toBe(600);
  });

  it('is done at its limit, whoever is left', async () => {
    open.set('a', 1);
    const wait = waiting(['a'], 230);
    await clock.pass(1_000);
    expect(wait.doneAtMs).toBe(230);
    expect(looks).toHaveLength(4);
  });

  it('says how many are left at once, and then where that changes, but not all the time', async () => {
    open.set('a', 9);
    const wait = waiting(['a']);
    for (let left = 8; left > 0; left--) {
      await clock.pass(100);
      open.set('a', left);
    }
    await clock.pass(2_000);
    expect(wait.said).toEqual([9, 5, 1]);
  });

  it('is done at once where it need not drain, or not any more', async () => {
    open.set('a', 1);
    const [none, hasty, ended] = [waiting([]), waiting(['a'], 0), waiting(['a'])];
    await clock.pass(50);
    expect([none.doneAtMs, hasty.doneAtMs, ended.doneAtMs]).toEqual([0, 0, undefined]);
    ended.abort();
    await clock.pass(0);
    expect(ended.doneAtMs).toBe(50);
    await clock.pass(1_000);
    expect(looks).toEqual([['a']]);
  });

  it('is stopped all the same where connections cannot be counted', async () => {
    failing = new Error('no conntrack');
    const wait = waiting(['a']);
    await clock.pass(0);
    expect(wait.doneAtMs).toBe(0);
  });
});

describe('many tasks that drain', () => {
  it('share their looks, and who comes does not wait for the next turn of the others', async () => {
    lookMs = 10;
    open.set('a', 1).set('b', 1);
    waiting(['a']);
    waiting(['b']);
    await clock.pass(60);
    const idle = waiting(['c']);
    await clock.pass(10);
    expect(idle.doneAtMs).toBe(70);
    // The first look began with the first of them; the second came in time for the next.
    expect(looks).toEqual([['a'], ['a', 'b'], ['a', 'b', 'c']]);
    await clock.pass(500);
    expect(looks.length).toBeLessThan(9);
  });
});
