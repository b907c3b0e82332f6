/** A process that holds the Network of the namespace it is started in, driven by a test through lines of JSON. */
import readline from 'node:readline';
import { resetNetwork } from '#net/host/reset.ts';
import { hostNetwork } from '#net/host-network.ts';
import type { NetworkWanted } from '#net/network.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { jsonLog } from '#proto/kernel/log.ts';
import type { Endpoint } from '#proto/model/assignment.ts';

const [runDir = '', resolvConf = ''] = process.argv.slice(2);
const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);
const log = jsonLog((line) => process.stderr.write(line), Date.now, 'info');
const network = await hostNetwork({ clock: systemClock, log, runDir, resolvConf });
network.onRepair((repair) => say({ repair: repair.message }));

const calls: Record<string, (argument: never) => Promise<unknown>> = {
  apply: (wanted) => network.apply(wanted),
  attach: (attachment) => network.attach(attachment),
  detach: (id) => network.detach(id),
  attached: () => network.attached(),
  connections: async (addresses: readonly string[]) => [...(await network.connections(addresses))],
  close: () => network.close(),
  /** Ends the network as an uninstall does; what was removed. */
  async reset() {
    await network.close();
    return resetNetwork(runDir);
  },
  /** How long each of `endpoints` takes to apply, in the place of the one in `wanted` with its id; ms. */
  async timeChanges({ wanted, endpoints }: { wanted: NetworkWanted; endpoints: Endpoint[] }) {
    let now = wanted;
    await network.apply(now);
    const times = [];
    for (const endpoint of endpoints) {
      const same = ({ serviceId }: Endpoint) => serviceId === endpoint.serviceId;
      now = { ...now, endpoints: now.endpoints.map((item) => (same(item) ? endpoint : item)) };
      const start = performance.now();
      await network.apply(now);
      times.push(performance.now() - start);
    }
    return times;
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
