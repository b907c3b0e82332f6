/** Addresses of networks: never two holders, whatever is decided at once, taken back, lost or ended, also over a change of leader. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { addressRestMs } from '#control-plane/reconcilers/addresses.ts';
import { NetworkAddresses } from '#control-plane/reconcilers/network-addresses.ts';
import { LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { containsAddress } from '#net/plan/cidr.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import { aNetwork, aNode, aService, aTask, aTemplate } from '#test/support/builders.ts';

const subnets = ['172.28.0.0/27', '172.28.1.0/28'];
const fixedAddress = '172.28.0.7';
const attachment = { network: 'back', aliases: [], ipv4Address: '' };

const step = fc.oneof(
  // Planned, and committed or taken back later: so many are under way at once.
  { weight: 6, arbitrary: fc.record({ do: fc.constant('plan' as const), fixed: fc.integer({ min: 0, max: 9 }) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('commit' as const), which: fc.nat(50) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('take back' as const), which: fc.nat(50) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('end' as const),
      which: fc.nat(50),
      state: fc.constantFrom<Task['state']>('failed', 'shutdown', 'orphaned'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const), which: fc.nat(50) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('node' as const), state: fc.constantFrom('ready', 'down') }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 40_000 }) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'new leader' } as const) },
);

it('an address of a network is held once, of its ranges, fixed for one alone, and rests while others are free', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      const network = aNetwork('back', subnets);
      const db = aService('db', { template: aTemplate({ networks: [{ ...attachment, ipv4Address: fixedAddress }] }) });
      const snapshot = new LiveSnapshot();
      let node = aNode('h1');
      snapshot.apply('node', node.id, node, 1);
      snapshot.apply('network', 'back', network, 1);
      snapshot.apply('service', db.id, db, 1);
      let now = 1_000_000;
      let addresses = NetworkAddresses.of(snapshot, now);
      const planned = new Map<string, Task>();
      const freedAt = new Map<string, number>();
      const put = (task: Task | undefined, id: Task['id']) => {
        snapshot.apply('task', id, task, 1);
        addresses.setTask(id, task, now);
      };
      const live = () => [...snapshot.all('task')].filter((task) => occupiesNode(task));
      const heldNow = () => [...live(), ...planned.values()].map((task) => task.addresses[0]!.address);
      const oneOf = (tasks: readonly Task[], which: number) => tasks[which % Math.max(1, tasks.length)];
      for (const [index, what] of steps.entries()) {
        switch (what.do) {
          case 'wait':
            now += what.ms;
            break;
          case 'new leader':
            // What was not committed never was.
            planned.clear();
            addresses = NetworkAddresses.of(snapshot, now);
            break;
          case 'node':
            node = { ...node, state: what.state as 'ready' };
            snapshot.apply('node', node.id, node, 1);
            addresses.setNode(node.id, node, now);
            break;
          case 'plan': {
            const ipv4Address = what.fixed === 0 ? fixedAddress : '';
            const taken = addresses.take([{ ...attachment, ipv4Address }], now);
            if (typeof taken === 'string') {
              if (ipv4Address) expect(heldNow()).toContain(fixedAddress);
              break;
            }
            const { address } = taken[0]!;
            expect(heldNow()).not.toContain(address);
            expect(subnets.some((subnet) => containsAddress(subnet, address))).toBe(true);
            expect([
              '172.28.0.0',
              '172.28.0.1',
              '172.28.0.31',
              '172.28.1.0',
              '172.28.1.1',
              '172.28.1.15',
            ]).not.toContain(address);
            if (!ipv4Address) {
              expect(address).not.toBe(fixedAddress);
              const rested = now - (freedAt.get(address) ?? Number.NEGATIVE_INFINITY) >= addressRestMs;
              expect(rested || freedAt.size + heldNow().length >= 41).toBe(true);
            }
            const task = aTask(`t${index}`, { nodeId: node.id, addresses: taken });
            planned.set(task.id, task);
            addresses.setTask(task.id, task, now);
            break;
          }
          case 'commit': {
            const task = oneOf([...planned.values()], what.which);
            if (!task) break;
            planned.delete(task.id);
            put(task, task.id);
            break;
          }
          case 'take back': {
            const task = oneOf([...planned.values()], what.which);
            if (!task) break;
            planned.delete(task.id);
            addresses.forgetPlanned(task.id);
            addresses.setTask(task.id, undefined, now);
            break;
          }
          case 'end': {
            const task = oneOf(live(), what.which);
            if (!task) break;
            freedAt.set(task.addresses[0]!.address, now);
            put({ ...task, state: what.state, stateAtMs: now }, task.id);
            break;
          }
          case 'forget': {
            // As the reaper does: a record stays while its address rests, or the next leader would not know.
            const rested = [...snapshot.all('task')].filter(
              (task) => !occupiesNode(task) && now - task.stateAtMs >= addressRestMs,
            );
            const ended = oneOf(rested, what.which);
            if (ended) put(undefined, ended.id);
            break;
          }
        }
        expect(new Set(heldNow()).size).toBe(heldNow().length);
      }
    }),
    { numRuns: 300 },
  );
});
