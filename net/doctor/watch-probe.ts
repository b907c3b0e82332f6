/** Watches the packets of a reach pass this node, and names the rule that stops them. */
import { listLinks } from '#net/host/rtnetlink.ts';
import { bridgeName } from '#net/plan/node-plan.ts';
import { tableName } from '#net/plan/rules.ts';
import { tunnelPort, wireguardPort } from '#net/plan/tunnel.ts';
import type { ProbeWatch } from '#proto/gen/gantry/v1/probe.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import type { Hop } from '#proto/model/net-finding.ts';
import { broken, type Fact, good, type Say, unknown } from './fact.ts';
import { describeMet, type Header, type Met, NftTrace } from './nft-trace.ts';
import type { View } from './view.ts';

const readEveryMs = 10;
const mostMs = 4_000;
const mostPackets = 8;
/** A tunnel's are many. */
const mostMet = 2_000;

/** Until `signal` or the time is up. */
export async function probeWatch(view: View, probe: ProbeWatch, signal: AbortSignal, say: Say): Promise<void> {
  const own = probe.echo
    ? [`icmp type { echo-request, echo-reply } icmp id ${probe.sourcePort}`]
    : [`tcp sport ${probe.sourcePort}`, `tcp dport ${probe.sourcePort}`];
  const tunnels = probe.tunnelsFrom
    .filter((address) => /^[0-9.]+$/.test(address))
    .map((address) => `ip saddr ${address} udp dport { ${tunnelPort}, ${wireguardPort} } limit rate 20/second`);
  const trace = new NftTrace(`gantry_trace_${probe.sourcePort}`);
  try {
    await trace.start([...own, ...tunnels]);
    say(good('watch', 'ready'));
    const met: Met[] = [];
    const until = view.clock.monotonic() + Math.min(probe.forMs || mostMs, mostMs);
    while (!signal.aborted && view.clock.monotonic() < until) {
      await view.clock.sleep(readEveryMs);
      if (met.length < mostMet) met.push(...trace.read());
    }
    met.push(...trace.read());
    const links = listLinks(view.netlink);
    const linkName = (index: number) => links.find((link) => link.index === index)?.name ?? `link ${index}`;
    for (const fact of conclude(met, await trace.rules(met), linkName)) say(fact);
  } catch (error) {
    if (!isFault(error)) throw error;
    say(unknown('watch', `rules cannot be watched here: ${describe(error)}`, ''));
  } finally {
    await trace.close();
  }
}

/** What the packets met, packet by packet, each ended by its drop where it was dropped. */
export function conclude(
  met: readonly Met[],
  texts: ReadonlyMap<string, string>,
  linkName: (index: number) => string = (index) => `link ${index}`,
): Fact[] {
  const facts: Fact[] = [];
  const told = new Set<string>();
  const tell = (fact: Fact) => {
    if (!told.has(fact.says)) facts.push(fact);
    told.add(fact.says);
  };
  let own = 0;
  for (const steps of Map.groupBy(met, ({ packet }) => packet).values()) {
    const header = steps.find((one) => one.header)?.header;
    const what = header ? describeHeader(header) : 'a packet';
    // Tunnels carry others' packets, too: theirs are of interest where they end.
    const isTunnel = what.startsWith(tunnelWords);
    if (isTunnel ? !steps.some(({ verdict }) => verdict === 'drop') : own++ >= mostPackets) continue;
    let stopsOrTurns = false;
    for (const step of steps) {
      if (step.type === 'return' || step.verdict === 'continue') continue;
      if (step.type === 'policy' && step.verdict === 'accept') continue;
      const where = describeMet(step, texts);
      stopsOrTurns = true;
      if (step.verdict === 'drop') {
        tell(stopped(what, where, step, texts));
        break;
      }
      tell(good('rules', `${what}: ${step.verdict} by ${where}`, { subject: what, seen: step.verdict }));
    }
    if (!stopsOrTurns) tell(good('rules', `${what} passes${byLinks(header, linkName)}`, { subject: what }));
  }
  return facts;
}

function stopped(what: string, where: string, step: Met, texts: ReadonlyMap<string, string>): Fact {
  const text = texts.get(`${step.table} ${step.chain} ${step.handle}`) ?? '';
  const verb = text.includes('reject') ? 'rejected' : 'dropped';
  const hop = what.startsWith(tunnelWords) ? 'tunnel' : ownHop(step, text);
  const remedy =
    remedies[hop] ??
    `a rule of this host wins over ours: remove it (nft delete rule ${step.table} ${step.chain} handle ${step.handle}), or accept before it`;
  return broken(
    hop,
    `${what} is ${verb} by ${where}`,
    step.type === 'policy' ? `let it pass before: nft insert rule ${step.table} ${step.chain} … accept` : remedy,
    { subject: what, seen: where },
  );
}

/** What it means that a rule of our own table stops a packet. */
function ownHop({ table, chain }: Met, text: string): Hop {
  if (table !== `ip ${tableName}` && table !== `ip6 ${tableName}`) return 'firewall';
  if (/^mi?_/.test(chain) || text === `iifname "${bridgeName}" drop`) return 'isolation';
  if (text.includes('@sources')) return 'address';
  if (chain === 'wire' || text.includes('@tunnel')) return 'tunnel';
  return text.includes('reject') ? 'vip' : 'rules';
}

const remedies: Readonly<Partial<Record<Hop, string>>> = {
  isolation:
    'put both services on one network: networks: [NAME] of both in the Compose file; where x-allow-from is said, name the caller there',
  address: 'it sends by an address that is not its own: a program in it makes packets by itself, or eth0 was changed',
  vip: 'nobody serves there: gantry ps shows whether its tasks run and are healthy',
  rules: 'this node lets only published ports and its cluster in: publish the port with ports:',
};

function byLinks(header: Header | undefined, linkName: (index: number) => string): string {
  const words = [
    ...(header?.incoming ? [`in by ${linkName(header.incoming)}`] : []),
    ...(header?.outgoing ? [`out by ${linkName(header.outgoing)}`] : []),
  ];
  return words.length === 0 ? '' : ` (${words.join(', ')})`;
}

const tunnelWords = "the tunnel's packet";

function describeHeader({ source, destination, protocol, sourcePort, destinationPort }: Header): string {
  if (protocol === 17 && [tunnelPort, wireguardPort].includes(destinationPort))
    return `${tunnelWords} ${source} → ${destination} (UDP ${destinationPort})`;
  const at = (address: string, port: number) => (port === 0 ? address : `${address}:${port}`);
  return `${at(source, sourcePort)} → ${at(destination, destinationPort)}`;
}
