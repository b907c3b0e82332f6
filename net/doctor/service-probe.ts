/** Whether the node's table leads a service's VIP and ports to the backends that the control plane means. */
import { tableName } from '#net/plan/rules.ts';
import { lookUp } from '#net/plan/shards.ts';
import type { ProbeService } from '#proto/gen/gantry/v1/probe.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { broken, good, inLooks, isWrong, looked, type Say } from './fact.ts';
import { inHistory } from './repair-log.ts';
import type { View } from './view.ts';

const lookForMs = 600;
const lookEveryMs = 50;
/** Of each service; each takes the kernel some 50 µs. */
const mostElements = 200;

export async function probeService(view: View, probe: ProbeService, say: Say): Promise<void> {
  const group = lookUp(view.plan.plan.firewall.endpoints, probe.serviceId);
  const behind = 'the agent has not heard of the newest revision: is it connected? gantry nodes';
  if (!group) {
    say(broken('vip', `this node has not heard of ${probe.name}`, behind));
    return;
  }
  const planned = group.endpoint.backends.filter(({ serving }) => serving).map(({ address }) => address);
  const [wanted, seen] = [[...probe.addresses].sort().join(' '), planned.sort().join(' ')];
  if (wanted !== seen) {
    say(
      broken('vip', `this node balances ${probe.name} over ${seen || 'nobody'}, not ${wanted || 'nobody'}`, behind, {
        wanted,
        seen,
      }),
    );
    return;
  }
  const elements = [...group.elements].slice(0, mostElements);
  const { looks, wrong } = await looked(view.clock, lookForMs, lookEveryMs, async () => {
    const found: string[] = [];
    for (const [element, value] of elements) {
      const now = await readElement(view, element);
      if (now !== value)
        found.push(
          `${element}${value === '' ? '' : ` leads to ${now ?? 'nothing'}, not ${value}`}${value === '' ? ' is missing' : ''}`,
        );
    }
    return found;
  });
  let faults = 0;
  const again = inHistory(view.repairs().filter(({ kind }) => kind.startsWith('table-')));
  for (const [what, count] of wrong) {
    if (!isWrong(count, looks)) continue;
    faults++;
    say(
      broken(
        'vip',
        `${probe.name}: ${what} in table ip ${tableName}${inLooks(count, looks)}${again}`,
        'find who changes it: nft monitor; the agent puts it back on its own',
        { subject: probe.name },
      ),
    );
  }
  if (faults > 0) return;
  const lead = probe.vip === '' ? 'its ports lead' : `${probe.vip} leads`;
  say(
    good('vip', wanted === '' ? `${probe.name} has nobody that serves, and is refused` : `${lead} to ${wanted}`, {
      subject: probe.name,
      wanted,
      seen,
    }),
  );
}

/** What an element of our maps leads to ('' in a set); undefined where it is not there. */
async function readElement(view: View, element: string): Promise<string | undefined> {
  const space = element.indexOf(' ');
  const [set, key] = [element.slice(0, space), element.slice(space + 1)];
  try {
    const text = await view.nftables.text(`get element ip ${tableName} ${set} { ${key} }`);
    const found = /elements = \{ (.*?) \}/s.exec(text)?.[1] ?? '';
    const colon = found.lastIndexOf(' : ');
    return colon < 0 ? '' : found.slice(colon + 3).trim();
  } catch (error) {
    if (isFault(error, 'invalid')) return undefined;
    throw error;
  }
}
