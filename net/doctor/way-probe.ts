/** The way to another node: the kernel's choice, the machine at its other end, its tasks' gateway, and the size that passes. */
import { listAddresses, listLinks } from '#net/host/rtnetlink.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import { routeProtocol } from '#net/plan/routes.ts';
import { tunnelName, tunnelPort, wireguardName, wireguardPort } from '#net/plan/tunnel.ts';
import { endOf, type PeerWay } from '#net/plan/ways.ts';
import type { ProbeWay } from '#proto/gen/gantry/v1/probe.ts';
import { broken, type Fact, good, inLooks, isWrong, looked, type Say, unknown } from './fact.ts';
import { inHistory } from './repair-log.ts';
import { type Way, wayOf } from './route-lookup.ts';
import { arpOwners, echo } from './sockets.ts';
import type { View } from './view.ts';

const lookForMs = 600;
const lookEveryMs = 25;
const echoMs = 600;
const arpWaitMs = 400;
const smallest = 84;
/** Sizes that are tried first where the promised one does not pass. */
const usual = [
  576, 1000, 1200, 1280, 1300, 1350, 1380, 1400, 1410, 1420, 1430, 1440, 1450, 1460, 1480, 1492, 1500, 4000, 8000, 8900,
];

export async function probeWay(view: View, probe: ProbeWay, say: Say): Promise<void> {
  const gateway = gatewayOf(probe.subnet);
  const way = view.plan.ways.list.find(({ peer }) => peer.address === probe.address);
  if (way?.kind === 'none') {
    const remedy = view.plan.ways.missing[0]?.remedy ?? 'see gantry cluster show';
    say(broken('tunnel', `there is no way to ${probe.node}: ${way.reason}`, remedy, { subject: probe.subnet }));
    return;
  }
  await Promise.all([route(view, probe, gateway, way, say), probe.brief ? undefined : duplicates(view, probe, say)]);
  const tunnelled = way !== undefined && way.kind !== 'direct';
  // As a task's packet goes: what the host itself sends by a tunnel is from the tunnel's end.
  const from = tunnelled ? gatewayOf(view.plan.input.subnet) : undefined;
  const [direct, inner] = await Promise.all([one(view, probe.address, smallest), one(view, gateway, smallest, from)]);
  outer(probe, direct, inner, say);
  if (inner === '') {
    if (tunnelled) say(good('tunnel', `${wordsOf(way)} carries packets to ${probe.node}`, { seen: way.reason }));
    if (!probe.brief) await mtu(view, probe, { gateway, from }, say);
  } else if (tunnelled && direct === '') say(await silentTunnel(view, probe, way, inner));
  else {
    const remedy = `see gantry net show ${probe.node}; does its firewall let what comes from ${view.plan.input.address} in?`;
    say(unknown('route', `${gateway}, the gateway of ${probe.node}'s tasks, does not answer: ${inner}`, remedy));
  }
}

/** What the peer's own address says: '' for an answer. */
function outer({ node, address }: ProbeWay, direct: string, inner: string, say: Say): void {
  const host = `${node} (${address})`;
  if (direct === '') say(good('link', `${host} answers`));
  else if (inner === '') say(good('link', `${host} ignores echo requests, its tasks' gateway answers`));
  else {
    const remedy = `is ${node} up, and its cable in? from here: ping ${address}`;
    say(unknown('link', `${host} does not answer: ${direct}`, remedy));
  }
}

const wordsOf = ({ kind }: PeerWay) => (kind === 'encrypted' ? 'VXLAN within WireGuard' : `VXLAN (${tunnelName})`);

/** VXLAN sends to the port that it knows; WireGuard answers where it was asked from. */
const translated =
  '; where one of them is behind a router that translates addresses: gantry cluster set encryption=wireguard';

/** The host answers and its tunnel does not: which of the two layers it is. */
async function silentTunnel(view: View, probe: ProbeWay, way: PeerWay, inner: string): Promise<Fact> {
  const within = way.kind === 'encrypted' ? await one(view, way.underlay, smallest, endOf(view.plan.input.subnet)) : '';
  const [what, port] =
    within === '' ? [`VXLAN (${tunnelName})`, tunnelPort] : [`WireGuard (${wireguardName})`, wireguardPort];
  const says = `${probe.node} (${probe.address}) answers, but nothing comes back through ${what}: ${within || inner}`;
  const of = way.kind === 'encrypted' && within === '' ? ', within WireGuard,' : '';
  const remedy = `let UDP port ${port}${of} pass from ${view.plan.input.address} to ${probe.address} and back: at the firewalls of both nodes (nft list ruleset) and of what is between them${way.kind === 'encrypted' ? '' : translated}`;
  return broken('tunnel', says, remedy, { subject: probe.address, wanted: way.reason });
}

/** The kernel's choice, seen for a while. */
async function route(
  view: View,
  probe: ProbeWay,
  gateway: string,
  planned: PeerWay | undefined,
  say: Say,
): Promise<void> {
  let last: Way | string = '';
  const forMs = probe.brief ? 0 : lookForMs;
  const { looks, wrong } = await looked(view.clock, forMs, lookEveryMs, () => {
    last = wayOf(view.netlink, { to: gateway });
    return [judge(last)].filter((one) => one !== '');
  });
  const links = listLinks(view.netlink);
  const nameOf = (way: Way) => links.find((link) => link.index === way.link)?.name ?? `link ${way.link}`;
  const somebody = inHistory(view.repairs().filter((one) => one.message.includes(probe.subnet)));
  let faults = 0;
  for (const [what, count] of wrong) {
    if (!isWrong(count, looks)) continue;
    faults++;
    const remedy = !planned
      ? `this node plans no route to ${probe.node}: its agent has not heard of it, or has no way to it; its log says which`
      : somebody
        ? 'find who removes it: ip monitor route; the agent puts it back on its own'
        : `the agent should put it back within seconds: is it running? by hand: ip route replace ${probe.subnet} via ${probe.address} proto 71 metric 71`;
    const whose =
      what === 'missing'
        ? `the route to ${probe.subnet} (${probe.node}) was missing`
        : `packets to ${probe.subnet} (${probe.node}) take ${what}`;
    say(broken('route', `${whose}${inLooks(count, looks)}${somebody}`, remedy, { subject: probe.subnet }));
  }
  if (typeof last === 'string' || faults > 0) return;
  const way: Way = last;
  const via = way.gateway === '' ? '' : ` via ${way.gateway}`;
  const why = planned ? `: ${planned.reason}` : '';
  const more = { subject: probe.subnet, seen: `${way.route}${via} dev ${nameOf(way)}` };
  say(good('route', `${probe.subnet} (${probe.node})${via} dev ${nameOf(way)}${why}`, more));
}

/** '' for a route of ours; else what there is in its place. */
function judge(way: Way | string): string {
  if (typeof way === 'string') return 'missing';
  if (way.type !== 'unicast' || way.route === 'default') return 'missing';
  if (way.protocol === routeProtocol) return '';
  return `the route ${way.route}${way.gateway === '' ? '' : ` via ${way.gateway}`}, which is not ours`;
}

async function duplicates(view: View, probe: ProbeWay, say: Say): Promise<void> {
  const way = wayOf(view.netlink, { to: probe.address });
  if (typeof way === 'string' || way.gateway !== '') return;
  const link = listLinks(view.netlink).find((item) => item.index === way.link);
  const from = listAddresses(view.netlink)
    .find((item) => item.index === way.link)
    ?.cidr.split('/')[0];
  if (!link || from === undefined || !link.mac) return;
  const macs = await arpOwners(view.clock, {
    link: link.index,
    mac: link.mac,
    from,
    address: probe.address,
    waitMs: arpWaitMs,
  });
  if (macs.size < 2) return;
  const seen = [...macs].sort().join(' and ');
  say(
    broken(
      'conflict',
      `${seen} on ${link.name} both answer for ${probe.address} (${probe.node})`,
      `find the machine that has ${probe.address} beside ${probe.node}, and give it another: arping -I ${link.name} ${probe.address}`,
      { subject: probe.address, seen },
    ),
  );
}

/** '' where an echo of that size comes back; else why not. Two tries: one packet may be lost, and the first waits for a neighbour. */
async function one(view: View, address: string, size: number, from?: string): Promise<string> {
  const [first, second] = await echo(view.clock, {
    netns: undefined,
    from,
    address,
    sizes: [size, size],
    id: echoId(address, size),
    timeoutMs: echoMs,
  });
  for (const result of [first, second]) if (result?.kind === 'answered') return '';
  if (first?.kind === 'refused') return `${first.why}${first.by === '' ? '' : ` (${first.by})`}`;
  return first?.kind === 'too-large' ? 'too large' : 'no answer';
}

/** Tells the echoes of one look from those of another that goes on beside it. */
function echoId(address: string, size: number): number {
  let hash = size;
  for (const character of address) hash = (hash * 31 + character.charCodeAt(0)) & 0xffff;
  return hash || 1;
}

/** An echo to `gateway`, sent from `from`. */
interface Inner {
  readonly gateway: string;
  readonly from: string | undefined;
}

async function mtu(view: View, probe: ProbeWay, inner: Inner, say: Say): Promise<void> {
  const way = wayOf(view.netlink, { to: inner.gateway });
  if (typeof way === 'string') return;
  const link = listLinks(view.netlink).find((item) => item.index === way.link);
  const promised = Math.min(way.mtu || Number.POSITIVE_INFINITY, link?.mtu ?? 1500);
  const words = { wanted: String(promised), seen: String(promised) };
  if ((await one(view, inner.gateway, promised, inner.from)) === '') {
    say(good('mtu', `packets of ${promised} bytes reach ${probe.node}`, words));
    return;
  }
  const largest = await largestPassing(view, inner, promised);
  const told = way.mtu ? 'the route' : `the link ${link?.name}`;
  const what = `${told} promises ${promised} bytes to ${probe.node}, but only ${largest} pass, and nobody says so to the sender`;
  const set =
    inner.from === undefined
      ? `: ip link set dev ${link?.name ?? 'LINK'} mtu ${largest} here, or what is narrower there or between them to ${promised}`
      : ', or let ICMP "fragmentation needed" pass: then the agent finds the width by itself';
  const remedy = `have all links between this node and ${probe.node} be of one MTU (ip link, on both)${set}`;
  say(broken('mtu', what, remedy, { ...words, seen: String(largest) }));
}

const mostAtOnce = 32;
const rounds = 3;

/** The largest size that passes, found in a few rounds of many sizes at once. */
async function largestPassing(view: View, { gateway, from }: Inner, promised: number): Promise<number> {
  let low = smallest;
  let high = promised;
  for (let round = 0; round < rounds && high - low > 1; round++) {
    const sizes = round === 0 ? usual.filter((size) => size < promised) : between(low, high);
    const ask = { netns: undefined, from, address: gateway, sizes, id: echoId(gateway, round), timeoutMs: echoMs };
    const results = await echo(view.clock, ask);
    const passed = sizes.filter((_, index) => results[index]?.kind === 'answered');
    low = Math.max(low, ...passed);
    high = Math.min(high, ...sizes.filter((size) => size > low));
  }
  return low;
}

/** Evenly spaced sizes within the two. */
function between(low: number, high: number): number[] {
  const step = Math.max(1, Math.ceil((high - low) / mostAtOnce));
  return Array.from({ length: mostAtOnce }, (_, index) => low + (index + 1) * step).filter((size) => size < high);
}
