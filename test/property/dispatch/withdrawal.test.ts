/** Which stops are told when: held for any stops, any words of nodes, in any order. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Withdrawals, withdrawalLimitMs } from '#control-plane/dispatch/withdrawal.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { aNode, aTask } from '#test/support/builders.ts';

const nodes = ['h1', 'h2', 'h3'].map((name) => aNode(name));
const event = fc.oneof(
  fc.record({ kind: fc.constant('stop' as const), count: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('applied' as const), node: fc.nat(2), behind: fc.nat(3) }),
  fc.record({ kind: fc.constant('gone' as const), node: fc.nat(2) }),
  fc.record({ kind: fc.constant('ended' as const), which: fc.nat(20) }),
  fc.record({ kind: fc.constant('time' as const), ms: fc.integer({ min: 1, max: withdrawalLimitMs }) }),
);

test('no stop is told while a node that counts is behind it, none after its limit is kept, each is told once or has ended', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      const stops = new Withdrawals();
      const applied = new Map(nodes.map(({ id }) => [id, 1]));
      const open = new Map<TaskId, { revision: number; sinceMs: number }>();
      const inVain = new Set<string>();
      let revision = 1;
      let nowMs = 0;
      for (const next of events) {
        if (next.kind === 'stop') {
          revision++;
          const tasks = Array.from({ length: next.count }, (_, index) =>
            aTask(`t${revision}x${index}`, { wanted: 'shutdown', nodeId: nodes[index]!.id, address: '10.192.1.2' }),
          );
          stops.withhold(revision, tasks, nowMs);
          for (const { id } of tasks) open.set(id, { revision, sinceMs: nowMs });
        } else if (next.kind === 'applied') {
          const { id } = nodes[next.node]!;
          applied.set(id, Math.max(applied.get(id) ?? 1, revision - next.behind));
          stops.caughtUp(id);
          inVain.delete(id);
        } else if (next.kind === 'gone') applied.delete(nodes[next.node]!.id);
        else if (next.kind === 'time') nowMs += next.ms;
        else {
          const id = [...open.keys()][next.which];
          if (id) {
            stops.drop(id);
            open.delete(id);
          }
        }
        const senders = [...applied].map(([id, appliedRevision]) => ({
          id,
          session: { greetedAtMs: 0, appliedRevision },
        }));
        const told = [...stops.release(senders, nowMs).values()].flatMap((tasks) => [...tasks]);
        const tooOld = Math.max(
          ...told.map((id) => (open.get(id)!.sinceMs + withdrawalLimitMs <= nowMs ? open.get(id)!.revision : 0)),
        );
        for (const id of told) {
          const stop = open.get(id)!;
          const behind = senders.filter((one) => !inVain.has(one.id) && one.session.appliedRevision < stop.revision);
          if (stop.revision > tooOld) expect(behind).toEqual([]);
          open.delete(id);
        }
        for (const one of senders) if (one.session.appliedRevision < tooOld) inVain.add(one.id);
        for (const [id, { sinceMs }] of open) {
          expect(stops.holds(id)).toBe(true);
          expect(nowMs - sinceMs).toBeLessThan(withdrawalLimitMs);
        }
        expect(stops.waiting).toBe(open.size > 0);
      }
    }),
    { numRuns: 1_000 },
  );
});
