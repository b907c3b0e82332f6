/** Who leads, and when: on a fake clock, so that each millisecond counts. */
import { describe, expect, test } from 'vitest';
import { Fault } from '#proto/kernel/errors.ts';
import { aTask } from '#test/contract/store/records.ts';
import { ReplicaLab } from '#test/support/replica-lab.ts';

describe('leadership', () => {
  test('the only replica leads within milliseconds of the first start', async () => {
    const lab = new ReplicaLab();
    const m1 = lab.add('m1');
    await m1.start();
    expect(lab.clock.monotonic()).toBeLessThan(10);
    expect(m1.began).toEqual([1]);
    expect(m1.leader.epoch).toBe(1);
  });

  test('a replica that restarts under its name takes the lead again at once, with the next epoch', async () => {
    const lab = new ReplicaLab();
    const before = lab.add('m1');
    await before.start();
    await before.close();
    expect(before.ended).toEqual([1]);
    const begins = lab.clock.monotonic();
    const after = lab.add('m1');
    await after.start();
    expect(lab.clock.monotonic() - begins).toBeLessThan(10);
    expect(after.began).toEqual([2]);
  });

  test('a replica that restarts under its name did not write the key that it finds, and leads by the next alone', async () => {
    const lab = new ReplicaLab();
    const before = lab.add('m1');
    await before.start();
    const first = lab.etcd.leadership!.value;
    expect(before.leader.wrote(first)).toBe(true);
    await before.close();
    const after = lab.add('m1');
    expect(after.leader.wrote(first)).toBe(false);
    await after.start();
    expect(after.leader.wrote(first)).toBe(false);
    expect(after.leader.wrote(lab.etcd.leadership!.value)).toBe(true);
  });

  test('a standby leaves a leader that answers alone', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    await lab.clock.pass(600_000);
    expect(m1.began).toEqual([1]);
    expect(m1.ended).toEqual([]);
    expect(m2.began).toEqual([]);
  });

  test('a standby takes over between 1 and 1.7 s after the leader fell silent', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    await lab.clock.pass(5_000);
    m1.audible = false;
    m1.store.setConnected(false);
    await lab.clock.pass(790);
    expect(m2.began).toEqual([]);
    await lab.clock.pass(910);
    expect(m2.began).toEqual([2]);
    expect(lab.etcd.leadership?.value).toEqual({ epoch: 2, replica: 'm2', address: m2.address });
  });

  test('of several standbys one takes over', async () => {
    const lab = new ReplicaLab();
    const [m1, m2, m3] = [lab.add('m1'), lab.add('m2'), lab.add('m3')];
    for (const replica of [m1, m2, m3]) await replica.start();
    await m1.close();
    await lab.clock.pass(3_000);
    expect([...m2.began, ...m3.began]).toEqual([2]);
  });

  test('a leader that the store does not confirm any more hears from its successor itself that it leads, and of the one after that too', async () => {
    const lab = new ReplicaLab();
    const [m1, m2, m3] = [lab.add('m1'), lab.add('m2'), lab.add('m3')];
    for (const replica of [m1, m2, m3]) await replica.start();
    m1.store.setConnected(false);
    await lab.clock.pass(3_000);
    expect(m1.succeeded).toEqual([]);
    await lab.clock.pass(2_200);
    const next = lab.etcd.leadership!.value;
    expect(next.epoch).toBe(2);
    expect(m1.succeeded).toEqual([{ epoch: 2, address: next.address }]);
    await (next.replica === 'm2' ? m2 : m3).close();
    await lab.clock.pass(2_500);
    expect(m1.succeeded.map(({ epoch }) => epoch)).toEqual([2, 3]);
  });

  test('a leader that the store leaves without an answer for less than three seconds, or that leads again, has no successor', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    for (const replica of [m1, m2]) await replica.start();
    for (const silentMs of [2_500, 3_300]) {
      m1.store.setConnected(false);
      await lab.clock.pass(silentMs);
      m1.store.setConnected(true);
      await lab.clock.pass(10_000);
    }
    expect(m1.began).toEqual([1, 2]);
    expect(m1.succeeded).toEqual([]);
  });

  test('a leader that others cannot hear stops as soon as it hears of the next one', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    m1.audible = false;
    await lab.clock.pass(2_000);
    expect(m2.leader.epoch).toBe(2);
    expect(m1.leader.epoch).toBeUndefined();
    expect(m1.ended).toEqual([1]);
    await lab.clock.pass(25_000);
    expect(m1.began).toEqual([1]);
  });

  test('two replicas that cannot hear each other take the lead from each other seldom, and not at all once they can', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    m1.audible = false;
    await lab.clock.pass(300_000);
    expect(m1.began.length + m2.began.length).toBeLessThan(15);
    m1.audible = true;
    await lab.clock.pass(1_000);
    const terms = m1.began.length + m2.began.length;
    await lab.clock.pass(300_000);
    expect(m1.began.length + m2.began.length).toBe(terms);
  });

  test('a leader that has stepped down does not keep a standby waiting, though it answers', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    m1.store.setConnected(false);
    await lab.clock.pass(6_000);
    expect(m1.ended).toEqual([1]);
    expect(m2.began).toEqual([2]);
  });

  test('a leader that was cut off and tried to lead again meanwhile leaves its successor alone, which wrote that epoch', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    m1.store.setConnected(false);
    await lab.clock.pass(6_000);
    expect(m2.began).toEqual([2]);
    m1.store.setConnected(true);
    await lab.clock.pass(60_000);
    expect(m1.began).toEqual([1]);
    expect(m2.ended).toEqual([]);
  });

  test('a leader that the store does not confirm for 3 s stops, and leads again with a new epoch when it does', async () => {
    const lab = new ReplicaLab();
    const m1 = lab.add('m1');
    await m1.start();
    await lab.clock.pass(1_000);
    m1.store.setConnected(false);
    await lab.clock.pass(2_500);
    expect(m1.ended).toEqual([]);
    await lab.clock.pass(1_000);
    expect(m1.ended).toEqual([1]);
    m1.store.setConnected(true);
    await lab.clock.pass(1_000);
    expect(m1.began).toEqual([1, 2]);
  });

  test('a take whose answer was lost does not leave the cluster without a leader', async () => {
    const lab = new ReplicaLab();
    const m1 = lab.add('m1');
    const take = m1.store.takeLeadership.bind(m1.store);
    let lost = 0;
    m1.store.takeLeadership = async (expected, next) => {
      const taken = await take(expected, next);
      if (lost++ === 0) throw new Fault('timeout', 'no answer');
      return taken;
    };
    await m1.start();
    expect(m1.began).toEqual([]);
    await lab.clock.pass(1_000);
    expect(m1.began).toEqual([2]);
  });

  test('a replica that finds its name taken by another at work does not fight it', async () => {
    const lab = new ReplicaLab();
    const one = lab.add('m1');
    await one.start();
    const namesake = lab.add('m1');
    await namesake.start();
    await lab.clock.pass(10_000);
    expect(namesake.began).toEqual([2]);
    expect(one.began).toEqual([1]);
    expect(one.ended).toEqual([1]);
    await lab.clock.pass(60_000);
    expect([...one.began, ...namesake.began]).toEqual([1, 2]);
  });

  test('what a deposed leader still tries to write is refused', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    m1.audible = false;
    lab.etcd.deliverMs = 100_000;
    await lab.clock.pass(2_000);
    expect(lab.etcd.leadership?.value.epoch).toBe(2);
    const task = aTask();
    const commit = m1.store.commit([{ table: 'task', key: task.id, value: task, expect: 0 }], { epoch: 1 });
    await expect(lab.during(commit)).rejects.toEqual(expect.objectContaining({ code: 'precondition' }));
  });

  test('closing ends the term and does not contend again', async () => {
    const lab = new ReplicaLab();
    const m1 = lab.add('m1');
    await m1.start();
    await m1.close();
    await lab.clock.pass(10_000);
    expect(m1.began).toEqual([1]);
    expect(m1.ended).toEqual([1]);
  });

  test('who leads, and who hears the leader, is up to date; who has done neither for 3 s knows as of when it is', async () => {
    const lab = new ReplicaLab();
    const [m1, m2] = [lab.add('m1'), lab.add('m2')];
    await m1.start();
    await m2.start();
    await lab.clock.pass(60_000);
    expect([m1, m2].map(({ leader }) => leader.asOfMs)).toEqual([undefined, undefined]);
    const cutAt = lab.clock.now();
    for (const { store } of [m1, m2]) store.setConnected(false);
    m1.audible = false;
    await lab.clock.pass(2_000);
    expect([m1, m2].map(({ leader }) => leader.asOfMs)).toEqual([undefined, undefined]);
    await lab.clock.pass(10_000);
    for (const { leader } of [m1, m2]) {
      expect(leader.asOfMs).toBeGreaterThan(cutAt - 1_000);
      expect(leader.asOfMs).toBeLessThanOrEqual(cutAt);
    }
    for (const { store } of [m1, m2]) store.setConnected(true);
    m1.audible = true;
    await lab.clock.pass(40_000);
    expect([m1, m2].map(({ leader }) => leader.asOfMs)).toEqual([undefined, undefined]);
  });
});
