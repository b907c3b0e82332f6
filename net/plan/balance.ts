/** Balancing as elements of a few shared nftables maps, so that the cost of a change does not grow with the number of services. */
import type { Endpoint } from '#proto/model/assignment.ts';
import type { Port } from '#proto/model/service.ts';
import { type Family, ip } from './family.ts';
import { bucketsOf } from './sticky.ts';

/**
 * Elements of our maps and sets: `<map> <key>` → value as nft prints them ('' in a set).
 * `services 10.224.0.2` → `goto k3`; `backends 10.224.0.2 . 0` → `10.192.1.2`.
 */
export type Elements = ReadonlyMap<string, string>;

/** What one endpoint or attachment adds to the maps, and the dispatch chains (`kN`, `pN`) that its verdicts lead to. */
export interface Group {
  readonly elements: Elements;
  readonly chains: readonly string[];
}

/** How connections are dealt to addresses: by which chain (undefined: by none), and to which address each of its numbers leads. */
interface Dealt {
  readonly chain: string | undefined;
  readonly targets: readonly string[];
}

/** In place of the number of backends: there is none yet. */
const holding = '0';

/** The key of a published port, the same in `published` and `refused`: `tcp . 8080`. */
export function portKey(port: { readonly protocol: string; readonly published: number }): string {
  return `${port.protocol} . ${port.published}`;
}

/**
 * An endpoint's VIP leads to its serving backends, whatever the port; each port of `ports` (the ingress ports that are
 * this endpoint's to publish) leads on every node to the target port of the same backends. Without a serving backend
 * the VIP is in no map (and the filter rejects it) and the ports are in `refused`; where connections wait for one (`holdMs`),
 * both lead to the chains that hold them. Where clients keep their backend (`sticky`), each of the buckets that clients fall
 * into has one. What is `counted` is so in sets, on its way to a backend.
 */
export function balanceEndpoint(endpoint: Endpoint, ports: readonly Port[], family: Family = ip): Group {
  const serving = endpoint.backends.filter(
    (b) => b.serving && b.address !== '' && family.address(b.address) !== undefined,
  );
  const backends = [...new Set(serving.map((b) => b.address))].sort();
  const elements = new Map<string, string>();
  const chains = new Set<string>();
  const vip = endpoint.mode === 'vip' && endpoint.vip !== '' ? family.address(endpoint.vip) : undefined;
  const counting = endpoint.counted ? 'c' : '';
  const dealt: Dealt =
    endpoint.sticky === 'client'
      ? { chain: `${counting}s`, targets: writtenIn(family, bucketsOf(backends)) }
      : { chain: `${counting}${backends.length}`, targets: writtenIn(family, backends) };
  const way = backends.length > 0 ? dealt.chain : endpoint.holdMs > 0 ? holding : undefined;
  if (vip !== undefined && way !== undefined) {
    chains.add(`k${way}`);
    elements.set(`services ${vip}`, `goto k${way}`);
    for (const [index, address] of dealt.targets.entries()) elements.set(`backends ${vip} . ${index}`, address);
  }
  for (const port of ports) publish(port, { ...dealt, chain: way }, elements, chains);
  if (endpoint.counted) {
    if (vip !== undefined) elements.set(`counted ${vip}`, '');
    for (const port of ports) elements.set(`counted_ports ${portKey(port)}`, '');
  }
  return { elements, chains: [...chains] };
}

/** The ports that a task publishes on its own node only. */
export function publishOnHost(address: string, ports: readonly Port[], family: Family = ip): Group {
  const elements = new Map<string, string>();
  const chains = new Set<string>();
  const targets = writtenIn(family, [address]);
  const chain = targets.length > 0 ? String(targets.length) : undefined;
  for (const port of ports) publish(port, { chain, targets }, elements, chains);
  return { elements, chains: [...chains] };
}

function writtenIn(family: Family, addresses: readonly string[]): readonly string[] {
  return addresses.flatMap((address) => family.address(address) ?? []);
}

function publish(port: Port, { chain, targets }: Dealt, elements: Map<string, string>, chains: Set<string>): void {
  const key = portKey(port);
  // What was held for too long is refused as what is not held.
  if (targets.length === 0) elements.set(`refused ${key}`, '');
  if (chain === undefined) return;
  chains.add(`p${chain}`);
  elements.set(`published ${key}`, `goto p${chain}`);
  if (targets.length === 0) return;
  elements.set(`published_targets ${key}`, String(port.target));
  for (const [index, address] of targets.entries()) elements.set(`published_backends ${key} . ${index}`, address);
}

/** Addresses that were backends and are not any more, and those among the rest that do not serve any more. */
export function departed(
  before: readonly Endpoint[],
  after: readonly Endpoint[],
): { readonly gone: readonly string[]; readonly resting: readonly string[] } {
  const there = new Set<string>();
  const serving = new Set<string>();
  for (const { backends } of after) {
    for (const backend of backends) {
      there.add(backend.address);
      if (backend.serving) serving.add(backend.address);
    }
  }
  const gone = new Set<string>();
  const resting = new Set<string>();
  for (const { backends } of before) {
    for (const backend of backends) {
      if (backend.address === '') continue;
      if (!there.has(backend.address)) gone.add(backend.address);
      else if (backend.serving && !serving.has(backend.address)) resting.add(backend.address);
    }
  }
  return { gone: [...gone], resting: [...resting] };
}
