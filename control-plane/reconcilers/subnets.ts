/** Which subnet each node has, and what is wrong with it in words: pins are honoured where they can be, and nothing overlaps. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { type Cidr, contains, formatCidr, overlaps, parseCidr, tryAddress } from '#net/plan/cidr.ts';
import { nextSubnet, pinnedSubnetProblem } from '#net/plan/ipam.ts';
import type { Node } from '#proto/model/node.ts';
import { isTerminal, occupiesNode } from '#proto/model/task.ts';
import { addressRestMs, defaultNetwork, defaultVipNetwork } from './addresses.ts';
import { flappingWords } from './flapping.ts';

/** Each node's part of the cluster network, unless its operator says otherwise. */
export const subnetPrefix = 24;

/** What a node's record should say. */
export interface SubnetAdvice {
  readonly subnet: string;
  /** What the operator should know; empty: nothing. */
  readonly message: string;
}

/** What the record of a node is to say: what is wrong with its subnet comes after all that is worse. */
export function messageOf(node: Node, { message }: SubnetAdvice): string {
  if (node.state !== 'ready') return node.message;
  return node.away || [message, flappingWords(node), node.clock].filter(Boolean).join('; ');
}

/** A range that may be nobody's subnet, and why, as the rest of "10.192.7.0/24 …". */
interface Reserved {
  readonly range: Cidr;
  readonly why: string;
}

/** What is the same for all nodes of one look. */
interface Ground {
  readonly snapshot: Snapshot;
  readonly now: number;
  readonly network: string;
  readonly whole: Cidr;
  readonly vips: Cidr;
  /** Of each node, those of its host's networks that meet ours. */
  readonly foreign: ReadonlyMap<Node, readonly Foreign[]>;
  /** Nodes by the address that they tell others. */
  readonly addresses: ReadonlyMap<string, readonly Node[]>;
  /** Subnets as they are, and as they are decided one after another. */
  readonly held: Map<Node, string>;
  reserved: readonly Reserved[] | undefined;
}

interface Foreign {
  readonly text: string;
  readonly range: Cidr;
  /** It has the whole of the cluster's network in it: which subnet it is makes no difference. */
  readonly covers: boolean;
}

/**
 * The advice at `now` (wall clock ms) for every node that has said what it is: before that its pin and its host's networks are unknown, and it has
 * no subnet. What a node has it keeps as long as tasks have addresses of it.
 */
export function adviseSubnets(snapshot: Snapshot, now: number): ReadonlyMap<Node, SubnetAdvice> {
  const nodes = [...snapshot.all('node')].sort((a, b) => (a.name < b.name ? -1 : 1));
  const ground = groundOf(snapshot, nodes, now);
  const described = nodes.filter((node) => node.bootId !== '');
  const complaints = new Map<Node, string>();
  // Whoever asks for a subnet comes first: those that take any yield.
  for (const node of described) {
    if (node.pinnedSubnet === '' || node.pinnedSubnet === node.subnet) continue;
    const problem = pinProblem(ground, node);
    if (problem === undefined) ground.held.set(node, node.pinnedSubnet);
    else complaints.set(node, problem);
  }
  for (const node of described) {
    const subnet = ground.held.get(node) ?? '';
    if (subnet !== '' && !mayMove(ground, node, subnet)) continue;
    const next = automaticSubnet(ground, node);
    if (next.subnet !== '') ground.held.set(node, next.subnet);
    else if (!complaints.has(node)) complaints.set(node, next.message);
  }
  return new Map(
    described.map((node) => {
      const subnet = ground.held.get(node) ?? '';
      const message = complaints.get(node) ?? (clashOf(ground, node) || namesakeOf(ground, node));
      return [node, { subnet, message }];
    }),
  );
}

/** Whether the network has a subnet for one more node, beside those that wait for theirs. */
export function hasFreeSubnet(snapshot: Snapshot, now: number): boolean {
  const nodes = [...snapshot.all('node')];
  const ground = groundOf(snapshot, nodes, now);
  const taken = takenRanges(ground, undefined);
  for (const node of nodes) {
    if (node.subnet !== '') continue;
    const subnet = nextSubnet(taken, ground.network, subnetPrefix);
    if (subnet === undefined) return false;
    taken.push(subnet);
  }
  return nextSubnet(taken, ground.network, subnetPrefix) !== undefined;
}

function groundOf(snapshot: Snapshot, nodes: readonly Node[], now: number): Ground {
  const network = snapshot.cluster?.network || defaultNetwork;
  const whole = parseCidr(network);
  const vips = parseCidr(snapshot.cluster?.vipNetwork || defaultVipNetwork);
  const foreign = new Map<Node, readonly Foreign[]>();
  // Many hosts have the same networks.
  const known = new Map<string, Foreign | undefined>();
  const meeting = (text: string): Foreign | undefined => {
    if (known.has(text)) return known.get(text);
    const range = parseCidr(text);
    const meets = overlaps(range, whole) || overlaps(range, vips);
    known.set(text, meets ? { text, range, covers: isWithin(whole, range) } : undefined);
    return known.get(text);
  };
  for (const node of nodes) {
    const met = node.foreignNetworks.flatMap((text) => meeting(text) ?? []);
    if (met.length > 0) foreign.set(node, met);
  }
  const held = new Map(nodes.map((node) => [node, node.subnet]));
  const addresses = Map.groupBy(nodes, ({ address }) => address);
  return { snapshot, now, network, whole, vips, foreign, addresses, held, reserved: undefined };
}

/** Why a node cannot have the subnet it was started with, and what to do; undefined: it can. */
function pinProblem(ground: Ground, node: Node): string | undefined {
  const pin = node.pinnedSubnet;
  const kept = node.subnet === '' ? 'it has none' : `it keeps ${node.subnet}`;
  const no = (why: string, remedy: string) => `subnet ${pin} is asked for, but ${why}: ${kept} (${remedy})`;
  const another = 'start its agent with another --subnet';
  const unsound = pinnedSubnetProblem(pin);
  if (unsound !== undefined) return no(`it ${unsound}`, another);
  const range = parseCidr(pin);
  if (!isWithin(range, ground.whole))
    return no(`it is not within the cluster's network ${ground.network}`, 'start its agent with a --subnet within it');
  for (const [other, subnet] of ground.held) {
    if (other === node || subnet === '') continue;
    if (overlaps(blockOf(parseCidr(subnet)), blockOf(range))) {
      const what = overlaps(parseCidr(subnet), range) ? subnet : `${subnet}, of the same /24`;
      return no(`node ${other.name} has ${what}`, another);
    }
  }
  const reserved = reservedRanges(ground).find((one) => overlaps(one.range, range));
  if (reserved) return no(reserved.why, another);
  for (const [host, networks] of ground.foreign) {
    // Where all is covered, whoever names a subnet knows better than we.
    const met = networks.find((one) => !one.covers && overlaps(one.range, range));
    if (met) return no(`host ${host.name} reaches ${met.text} by a link or route of its own`, another);
  }
  const busy = occupants(ground, node, node.subnet);
  if (busy > 0)
    return no(`${busy} tasks have addresses of ${node.subnet}`, `gantry drain ${node.name}, then activate it`);
  return undefined;
}

/** A subnet that nobody pinned, nobody uses, and that meets a host's own network, is changed without asking. */
function mayMove(ground: Ground, node: Node, subnet: string): boolean {
  if (node.pinnedSubnet !== '' || ground.foreign.size === 0) return false;
  const range = parseCidr(subnet);
  const meets = [...ground.foreign.values()].flat().some((one) => !one.covers && overlaps(one.range, range));
  return meets && occupants(ground, node, subnet) === 0;
}

function automaticSubnet(ground: Ground, node: Node): SubnetAdvice {
  const { network } = ground;
  const covering = ground.foreign.get(node)?.find(({ covers }) => covers);
  if (covering) {
    return {
      subnet: '',
      message: `no subnet: host ${node.name} reaches ${covering.text}, which has the whole of the cluster's network ${network} in it, by a link or route of its own (found the cluster with another --network, or say which part is free there: start its agent with --subnet)`,
    };
  }
  const subnet = nextSubnet(takenRanges(ground, node), network, subnetPrefix);
  if (subnet !== undefined) return { subnet, message: '' };
  const message = `no subnet: the cluster's network ${network} has none left that neither a node nor a host's own network has (remove nodes that are gone: gantry node rm, or start its agent with --subnet)`;
  return { subnet: '', message };
}

/** What no automatic subnet may meet; `node`: whose own subnet does not count. */
function takenRanges(ground: Ground, node: Node | undefined): string[] {
  const taken: string[] = [];
  for (const [other, subnet] of ground.held) {
    if (subnet !== '' && other !== node) taken.push(formatCidr(blockOf(parseCidr(subnet))));
    // What is asked for and cannot be yet, may be soon.
    const isAsking = other !== node && other.pinnedSubnet !== '';
    if (!isAsking || pinnedSubnetProblem(other.pinnedSubnet) !== undefined) continue;
    const pin = parseCidr(other.pinnedSubnet);
    if (isWithin(pin, ground.whole)) taken.push(formatCidr(blockOf(pin)));
  }
  for (const { range } of reservedRanges(ground)) taken.push(formatCidr(range));
  for (const networks of ground.foreign.values()) {
    for (const { text, covers } of networks) if (!covers) taken.push(text);
  }
  return taken;
}

/** Ranges that are no node's: services', networks', and addresses that tasks of former owners may still use. */
function reservedRanges(ground: Ground): readonly Reserved[] {
  ground.reserved ??= [...reservedOf(ground)];
  return ground.reserved;
}

function* reservedOf({ snapshot, now, whole, vips }: Ground): Generator<Reserved> {
  yield { range: vips, why: "it meets the addresses of services, the cluster's vip-network" };
  for (const { spec } of snapshot.all('network')) {
    for (const { subnet } of spec.subnets) {
      yield { range: parseCidr(subnet), why: `network ${spec.name} has ${subnet}` };
    }
  }
  // A node that was removed may still run its tasks, and their addresses rest as others do: as long as they are remembered.
  for (const { nodeId, address, state, stateAtMs } of snapshot.all('task')) {
    if (nodeId === '' || address === '') continue;
    const node = snapshot.node(nodeId);
    if (node && isTerminal(state) && stateAtMs + addressRestMs <= now) continue;
    const base = tryAddress(address);
    // Some tasks have the address of their host.
    if (base === undefined || !contains(whole, base)) continue;
    if (node && node.subnet !== '' && contains(parseCidr(node.subnet), base)) continue;
    yield {
      range: { base, prefix: 32 },
      why: `${address} was a task's of a node that had it before, and may still be used`,
    };
  }
}

/** How many tasks of the node have addresses of this subnet. */
function occupants({ snapshot }: Ground, node: Node, subnet: string): number {
  if (subnet === '') return 0;
  const range = parseCidr(subnet);
  let count = 0;
  for (const task of snapshot.tasksOnNode(node.id)) {
    const address = tryAddress(task.address);
    if (occupiesNode(task) && address !== undefined && contains(range, address)) count++;
  }
  return count;
}

/** What of the host's own networks is hidden from it by addresses of ours, in words; empty: nothing. */
function clashOf(ground: Ground, node: Node): string {
  const networks = ground.foreign.get(node);
  if (!networks) return '';
  for (const { text, range, covers } of networks) {
    const hidden = `host ${node.name} reaches ${text} by a link or route of its own`;
    if (covers) return `${hidden}: what of it is in the cluster's network ${ground.network} is hidden from it`;
    if (overlaps(range, ground.vips))
      return `${hidden}, which meets the addresses of services: those are hidden from it (found the cluster with another --vip-network)`;
    for (const [other, held] of ground.held) {
      if (held === '' || !overlaps(range, parseCidr(held))) continue;
      const whose = other === node ? `its own subnet ${held}` : `${held}, the subnet of node ${other.name}`;
      return `${hidden}, which meets ${whose} (gantry drain ${other.name}, and start its agent with another --subnet)`;
    }
  }
  return '';
}

/** That another node tells the same address, as behind two NATs; empty: none does. */
function namesakeOf({ addresses }: Ground, node: Node): string {
  const other = node.address === '' ? undefined : addresses.get(node.address)?.find((one) => one !== node);
  return other === undefined
    ? ''
    : `address ${node.address} is that of node ${other.name} too: nobody reaches both (start their agents with --advertise addresses that differ; gantry node rm, where one is gone)`;
}

function isWithin(inner: Cidr, outer: Cidr): boolean {
  return inner.prefix >= outer.prefix && contains(outer, inner.base);
}

/** A node has its whole /24, however little of it is its subnet: it is known by that (net/plan/return-path). */
function blockOf(range: Cidr): Cidr {
  return range.prefix <= subnetPrefix ? range : { base: range.base - (range.base % 256), prefix: subnetPrefix };
}
