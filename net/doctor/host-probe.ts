/** The node itself: its settings, bridge, routes, rules and table beside the plan, its name server, and who else claims its address. */
import { listAddresses, listLinks } from '#net/host/rtnetlink.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import { diffLinks, diffTables, type NetStep } from '#net/plan/diff.ts';
import { elementsOf } from '#net/plan/node-plan.ts';
import type { Fault } from '#proto/kernel/errors.ts';
import type { Hop } from '#proto/model/net-finding.ts';
import { broken, good, inLooks, isWrong, looked, type Say, unknown } from './fact.ts';
import { askName } from './name-probe.ts';
import { inHistory, isStubborn } from './repair-log.ts';
import { arpOwners } from './sockets.ts';
import type { View } from './view.ts';

const lookForMs = 600;
const lookEveryMs = 50;
const tableEveryMs = 200;
const manyElements = 5_000;
const arpWaitMs = 400;

export async function probeHost(view: View, say: Say): Promise<void> {
  await Promise.all([
    links(view, say),
    table(view, say),
    obstacles(view, say),
    ownAddress(view, say),
    names(view, say),
  ]);
}

/** Which hop a step of the plan's diff puts right; undefined: what is left over for a moment, as a rule. */
export function hopOf(kind: NetStep['kind']): Hop | undefined {
  switch (kind) {
    case 'sysctl':
      return 'forwarding';
    case 'bridge':
    case 'address-add':
    case 'address-remove':
      return 'bridge';
    case 'port':
      return 'address';
    case 'port-remove':
      return undefined;
    case 'route':
    case 'route-remove':
    case 'rule':
    case 'rule-remove':
      return 'route';
    case 'table-replace':
    case 'table-update':
      return 'table';
    default:
      return 'tunnel';
  }
}

const remedies: Readonly<Partial<Record<Hop, string>>> = {
  forwarding:
    'find what sets it: grep -r ip_forward /etc/sysctl.conf /etc/sysctl.d; the agent sets it back to 1 on its own',
  bridge: 'find what changes the bridge gantry0 (NetworkManager, systemd-networkd?) and have it leave gantry* alone',
  address: 'find what changes the links gt* (NetworkManager, systemd-networkd?) and have it leave them alone',
  route: 'find what removes it: ip monitor route; the agent puts it back on its own',
  tunnel: 'find what changes the links gantry* (NetworkManager, systemd-networkd?) and have it leave them alone',
  table: 'find what changes it: nft monitor; the agent puts it back on its own',
};
const remedyOf = (hop: Hop) => remedies[hop] ?? 'see gantry net show';

async function links(view: View, say: Say): Promise<void> {
  const { plan } = view.plan;
  const kinds = new Map<string, Hop>();
  const { looks, wrong } = await looked(view.clock, lookForMs, lookEveryMs, () =>
    diffLinks(plan, view.kernel.readLinks(plan)).flatMap(({ kind, why }) => {
      const hop = hopOf(kind);
      if (hop) kinds.set(why, hop);
      return hop ? [why] : [];
    }),
  );
  const seen = new Set<Hop>();
  for (const [why, count] of wrong) {
    const hop = kinds.get(why);
    if (!hop || !isWrong(count, looks)) continue;
    seen.add(hop);
    say(broken(hop, `${why}${inLooks(count, looks)}${againAndAgain(view, why)}`, remedyOf(hop), { subject: why }));
  }
  for (const { kind, message } of view.repairs().filter(isStubborn)) {
    const hop = hopOf(kind);
    if (!hop || seen.has(hop)) continue;
    seen.add(hop);
    say(broken(hop, `${message}${againAndAgain(view, message)}`, remedyOf(hop)));
  }
  const names = {
    forwarding: 'it forwards',
    bridge: 'the bridge is there',
    route: `its ${plan.routes.size} routes are there`,
  };
  for (const [hop, says] of Object.entries(names) as [Hop, string][]) if (!seen.has(hop)) say(good(hop, says));
}

function againAndAgain(view: View, message: string): string {
  return inHistory(view.repairs().filter((one) => one.message === message));
}

async function table(view: View, say: Say): Promise<void> {
  const { plan } = view.plan;
  // A large one takes the agent long to read: once is enough.
  const forMs = elementsOf(plan.firewall).size > manyElements ? 0 : lookForMs;
  const { looks, wrong } = await looked(view.clock, forMs, tableEveryMs, async () =>
    diffTables(plan, await view.kernel.readTables(plan)).map(({ why }) => why),
  );
  let faults = 0;
  for (const [why, count] of wrong) {
    if (!isWrong(count, looks)) continue;
    faults++;
    say(broken('table', `${why}${inLooks(count, looks)}${againAndAgain(view, why)}`, remedyOf('table')));
  }
  if (faults === 0) say(good('table', 'its table is as planned'));
}

async function obstacles(view: View, say: Say): Promise<void> {
  const found = await view.kernel.obstacles(view.plan.input);
  for (const { message, remedy = '' } of found as readonly Fault[]) say(unknown('firewall', message, remedy));
}

async function ownAddress(view: View, say: Say): Promise<void> {
  const { address } = view.plan.input;
  const index = listAddresses(view.netlink).find(({ cidr }) => cidr.startsWith(`${address}/`))?.index;
  const link = listLinks(view.netlink).find((one) => one.index === index);
  if (!link) {
    say(
      broken(
        'address',
        `no link of this node has its address ${address}`,
        `ip address add ${address}/24 dev LINK, or start the agent with the right --advertise`,
      ),
    );
    return;
  }
  if (!link.mac || link.mac === '00:00:00:00:00:00') return;
  const ask = { link: link.index, mac: link.mac, from: '0.0.0.0', address, waitMs: arpWaitMs };
  const others = [...(await arpOwners(view.clock, ask))].filter((mac) => mac !== link.mac);
  if (others.length === 0) say(good('conflict', `nobody else on ${link.name} answers for ${address}`));
  else {
    const who = others.join(' and ');
    say(
      broken(
        'conflict',
        `${who} on ${link.name} answers for ${address} too`,
        `give the machine with the MAC ${who} another address`,
        { wanted: link.mac, seen: who },
      ),
    );
  }
}

async function names(view: View, say: Say): Promise<void> {
  const server = gatewayOf(view.plan.input.subnet);
  const reply = await askName(view.clock, undefined, server, 'gantry-doctor.invalid');
  if (reply.kind === 'silent') {
    const remedy =
      "is port 53 of the bridge taken (ss -lunp sport = :53) or dropped by a rule (nft list ruleset)? the agent's log says more";
    say(broken('dns', `the name server of this node (${server}:53) does not answer: ${reply.why}`, remedy));
  } else say(good('dns', `the name server (${server}) answers`));
}
