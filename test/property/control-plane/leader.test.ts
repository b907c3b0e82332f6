/** Whatever happens to replicas and their lines: epochs never repeat, and no two leaders can write. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isFault } from '#proto/kernel/errors.ts';
import { aTask } from '#test/contract/store/records.ts';
import { type Replica, ReplicaLab } from '#test/support/replica-lab.ts';

const names = ['m1', 'm2', 'm3'];
const event = fc.record({
  replica: fc.nat(names.length - 1),
  what: fc.constantFrom('silence', 'voice', 'cut', 'mend', 'restart', 'lose-answer'),
  thenMs: fc.integer({ min: 0, max: 3_000 }),
});

/** Every replica that thinks it leads writes; returns the epochs whose writes were let through, by time. */
async function writeAll(lab: ReplicaLab, replicas: readonly Replica[], written: number[]): Promise<void> {
  const attempts = replicas.map(async ({ leader, store }) => {
    const { epoch } = leader;
    if (epoch === undefined) return;
    const task = aTask();
    try {
      await store.commit([{ table: 'task', key: task.id, value: task, expect: 0 }], { epoch });
      written.push(epoch);
    } catch (error) {
      if (!isFault(error)) throw error;
    }
  });
  await lab.during(Promise.all(attempts));
}

test('epochs never repeat, writes never go back to an older epoch, and quiet brings one leader', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 25 }), async (events) => {
      const lab = new ReplicaLab();
      const live = names.map((name) => lab.add(name));
      const all = [...live];
      const written: number[] = [];
      for (const replica of live) await replica.start();
      for (const { replica: index, what, thenMs } of events) {
        const replica = live[index]!;
        if (what === 'silence') replica.audible = false;
        if (what === 'voice') replica.audible = true;
        if (what === 'cut') replica.store.setConnected(false);
        if (what === 'mend') replica.store.setConnected(true);
        if (what === 'restart') {
          await replica.close();
          lab.replicas.splice(lab.replicas.indexOf(replica), 1);
          const next = lab.add(replica.name);
          live[index] = next;
          all.push(next);
          await next.start();
        }
        if (what === 'lose-answer') {
          const take = replica.store.takeLeadership.bind(replica.store);
          replica.store.takeLeadership = async (expected, wanted) => {
            replica.store.takeLeadership = take;
            await take(expected, wanted);
            return false;
          };
        }
        await lab.clock.pass(thenMs);
        await writeAll(lab, live, written);
      }
      for (const replica of live) {
        replica.audible = true;
        replica.store.setConnected(true);
      }
      await lab.clock.pass(10_000);
      await writeAll(lab, live, written);
      const began = all.flatMap((replica) => replica.began);
      expect(new Set(began).size).toBe(began.length);
      expect(written).toEqual([...written].sort((a, b) => a - b));
      const leading = live.filter(({ leader }) => leader.epoch !== undefined);
      expect(leading).toHaveLength(1);
      expect(leading[0]?.leader.epoch).toBe(lab.etcd.leadership?.value.epoch);
      expect(written.at(-1)).toBe(leading[0]?.leader.epoch);
    }),
    { numRuns: 60 },
  );
});
