/** Addresses: never two holders, never out of the subnet, and a rest in between, whatever comes and goes, also over a change of leader. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Addresses, addressRestMs } from '#control-plane/reconcilers/addresses.ts';
import { LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { containsAddress } from '#net/plan/cidr.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aTask } from '#test/support/builders.ts';

const step = fc.oneof(
  { weight: 5, arbitrary: fc.constant({ do: 'start' } as const) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('end' as const),
      which: fc.nat(20),
      state: fc.constantFrom('failed', 'shutdown', 'orphaned'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 40_000 }) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'new leader' } as const) },
);

describe('addresses of a node', () => {
  it('F24: are held once, and rest for a minute while others are free', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const node = aNode('h1', { subnet: '10.192.7.0/26' });
        const snapshot = new LiveSnapshot();
        snapshot.apply('node', node.id, node, 1);
        let now = 1_000_000;
        let addresses = Addresses.of(snapshot, now);
        const live = new Map<string, Task>();
        const freedAt = new Map<string, number>();
        for (const [index, taken] of steps.entries()) {
          if (taken.do === 'wait') now += taken.ms;
          else if (taken.do === 'new leader') addresses = Addresses.of(snapshot, now);
          else if (taken.do === 'start') {
            const address = addresses.take(node.id, now)!;
            expect(live.has(address)).toBe(false);
            expect(containsAddress(node.subnet, address)).toBe(true);
            expect(['10.192.7.0', '10.192.7.1', '10.192.7.63']).not.toContain(address);
            expect(now - (freedAt.get(address) ?? Number.NEGATIVE_INFINITY)).toBeGreaterThanOrEqual(addressRestMs);
            const task = aTask(`t${index}`, { nodeId: node.id, address });
            live.set(address, task);
            snapshot.apply('task', task.id, task, index);
            addresses.setTask(task.id, task, now);
          } else {
            const task = [...live.values()][taken.which % Math.max(1, live.size)];
            if (!task) continue;
            const ended: Task = { ...task, state: taken.state as Task['state'], stateAtMs: now, finishedAtMs: now };
            live.delete(task.address);
            freedAt.set(task.address, now);
            snapshot.apply('task', task.id, ended, index);
            addresses.setTask(task.id, ended, now);
          }
        }
      }),
    );
  });

  it('F25: are given out before their rest is over only when no other is left, the longest rested first', () => {
    const node = aNode('h1', { subnet: '10.192.7.0/29' });
    const addresses = new Addresses();
    addresses.setNode(node.id, node, 0);
    const start = (name: string, now: number) => {
      const task = aTask(name, { nodeId: node.id, address: addresses.take(node.id, now) ?? '' });
      addresses.setTask(task.id, task, now);
      return task;
    };
    const tasks = ['a', 'b', 'c', 'd', 'e'].map((name) => start(name, 0));
    expect(addresses.take(node.id, 0)).toBeUndefined();
    for (const [at, name] of [tasks[3]!, tasks[1]!].entries())
      addresses.setTask(name.id, { ...name, state: 'failed' }, at);
    expect(start('f', 10).address).toBe(tasks[3]!.address);
    expect(start('g', 11).address).toBe(tasks[1]!.address);
  });

  it('of a planned task that was not committed are free at once', () => {
    const node = aNode('h1');
    const addresses = new Addresses();
    addresses.setNode(node.id, node, 0);
    const task = aTask('a', { nodeId: node.id, address: addresses.take(node.id, 0)! });
    addresses.setTask(task.id, task, 0);
    addresses.forgetPlanned(task.id);
    const all = Array.from({ length: 253 }, (_, at) => {
      const next = aTask(`n${at}`, { nodeId: node.id, address: addresses.take(node.id, 0)! });
      addresses.setTask(next.id, next, 0);
      return next.address;
    });
    expect(all).toContain(task.address);
  });
});
