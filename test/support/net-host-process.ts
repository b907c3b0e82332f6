/** A process that holds the Network of the namespace it is started in, driven by a test through lines of JSON. */
import readline from 'node:readline';
import { resetNetwork } from '#net/host/reset.ts';
import { seeker } from '#net/host/seek.ts';
import { hostNetwork } from '#net/host-network.ts';
import type { Attachment, NetworkWanted } from '#net/network.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { jsonLog } from '#proto/kernel/log.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { serviceId, taskId } from '#proto/model/ids.ts';
import { attachment, backend, endpoint } from './endpoint.ts';

const [runDir = '', resolvConf = ''] = process.argv.slice(2);
const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);
const log = jsonLog((line) => process.stderr.write(line), Date.now, 'info');
const network = await hostNetwork({ clock: systemClock, log, runDir, dataDir: runDir, resolvConf, endsSockets: true });
const called: string[] = [];
network.onCall((service) => called.push(service));
network.onRepair((repair) => say({ repair: repair.message }));

const seek = seeker(systemClock);
let held: NetworkWanted | undefined;
const calls: Record<string, (argument: never) => Promise<unknown>> = {
  apply: (wanted) => network.apply(wanted),
  /** Each as soon as the one before is in the kernel. */
  async applyInTurn(all: readonly NetworkWanted[]) {
    for (const wanted of all) await network.apply(wanted);
  },
  attach: (attachment) => network.attach(attachment),
  detach: (id) => network.detach(id),
  attached: () => network.attached(),
  /** Services that were called while they had no task, since this was last asked. */
  called: async () => called.splice(0),
  traffic: async () => [...(await network.traffic())],
  connections: async (addresses: readonly string[]) => [...(await network.connections(addresses))],
  /** `times` in a row, without waiting for answers; how long that took, ms. */
  async seek({ address, silentMs, times }: { address: string; silentMs: number; times: number }) {
    const start = performance.now();
    for (let time = 0; time < times; time++) seek(address, silentMs);
    return performance.now() - start;
  },
  wireguardKey: async () => network.wireguardKey,
  close: () => network.close(),
  /** Ends the network as an uninstall does; what was removed. */
  async reset() {
    await network.close();
    return resetNetwork(runDir);
  },
  /** How long that takes; ms. */
  async timeApply(wanted: NetworkWanted) {
    const start = performance.now();
    await network.apply(wanted);
    return performance.now() - start;
  },
  /** Applies `wanted`, for `change` to go on from. */
  async hold(wanted: NetworkWanted) {
    held = wanted;
    await network.apply(held);
  },
  /** How long the endpoint takes in the place of the one of its id; ms. */
  async change(endpoint: Endpoint) {
    if (!held) throw new Error('hold something first');
    const endpoints = held.endpoints.map((item) => (item.serviceId === endpoint.serviceId ? endpoint : item));
    held = { ...held, endpoints };
    const start = performance.now();
    await network.apply(held);
    return performance.now() - start;
  },
  /** How long it takes for each of `count` new tasks until it is attached, a backend of its service and in the rules; ms. They are detached at the end. */
  async timeAttach({ wanted, count }: { wanted: NetworkWanted; count: number }) {
    await network.apply(wanted);
    const times: number[] = [];
    const tasks: Attachment[] = [];
    for (let number = 0; number < count; number++) {
      const address = wanted.subnet.replace('.0/24', `.${100 + number}`);
      const task = attachment(taskId(newId(systemRandom)), address, { serviceId: serviceId('timed') });
      tasks.push(task);
      const timed = endpoint('timed', { vip: '10.224.0.7', backends: tasks.map((one) => backend(one.address)) });
      const next = { ...wanted, endpoints: [...wanted.endpoints, timed], attachments: [...tasks] };
      const start = performance.now();
      await network.attach(task);
      await network.apply(next);
      times.push(performance.now() - start);
    }
    for (const task of tasks) await network.detach(task.taskId);
    return times;
  },
  /** What it costs the processor to apply each of `endpoints` in the place of the one in `wanted` with its id, in the kernel too; microseconds. */
  async costOfChanges({ wanted, endpoints }: { wanted: NetworkWanted; endpoints: Endpoint[] }) {
    let now = wanted;
    await network.apply(now);
    const costs = [];
    for (const endpoint of endpoints) {
      const same = ({ serviceId }: Endpoint) => serviceId === endpoint.serviceId;
      now = { ...now, endpoints: now.endpoints.map((item) => (same(item) ? endpoint : item)) };
      const begun = process.cpuUsage();
      await network.apply(now);
      const { user, system } = process.cpuUsage(begun);
      costs.push(user + system);
    }
    return costs;
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, call, argument } = JSON.parse(line) as { id: number; call: string; argument: never };
  try {
    const start = performance.now();
    const result = await calls[call]?.(argument);
    say({ id, result: result ?? null, ms: performance.now() - start });
  } catch (error) {
    say({ id, error: describe(error), code: isFault(error) ? error.code : 'bug' });
  }
}
process.exit(0);
