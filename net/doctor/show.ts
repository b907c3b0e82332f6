/** What the node should have and has, thing by thing: `gantry net show`. */
import { gatewayOf } from '#net/plan/cidr.ts';
import { diffTable } from '#net/plan/diff.ts';
import { type Bridge, bridgeName, elementsOf } from '#net/plan/node-plan.ts';
import { describeRoute } from '#net/plan/routes.ts';
import { tableName } from '#net/plan/rules.ts';
import { valuesOf } from '#net/plan/shards.ts';
import { describeWireGuard, type Tunnel, tunnelName, type WireGuard, wireguardName } from '#net/plan/tunnel.ts';
import { broken, good, type Say, unknown } from './fact.ts';
import { askName } from './name-probe.ts';
import type { View } from './view.ts';

const remedy = 'the agent puts it right within 2 s; gantry net doctor says what keeps it from that';
/** A node of ten thousand services has too many to read. */
const mostServices = 500;

export async function showNode(view: View, say: Say): Promise<void> {
  const { plan, input } = view.plan;
  const seen = view.kernel.readLinks(plan);
  const row = (hop: Parameters<typeof good>[0], subject: string, wanted: string, has: string) =>
    say(
      wanted === has
        ? good(hop, subject, { subject, wanted, seen: has })
        : broken(hop, subject, remedy, { subject, wanted, seen: has }),
    );
  row('bridge', bridgeName, describeBridge(plan.bridge), describeBridge(seen.bridge));
  for (const [name, value] of plan.sysctls) row('forwarding', name, value, seen.sysctls.get(name) ?? '');
  for (const port of plan.ports)
    row('address', port, `up, on ${bridgeName}`, seen.ports.has(port) ? `up, on ${bridgeName}` : '');
  for (const [key, route] of [...plan.routes, ...[...seen.routes].filter(([key]) => !plan.routes.has(key))]) {
    const [wanted, has] = [plan.routes.get(key), seen.routes.get(key)];
    row('route', `route ${route.destination}`, wanted ? describeRoute(wanted) : '', has ? describeRoute(has) : '');
  }
  for (const rule of new Set([...plan.rules.keys(), ...seen.rules.keys()]))
    row('route', `rule ${rule.split(':')[0]}`, plan.rules.has(rule) ? rule : '', seen.rules.has(rule) ? rule : '');
  for (const { peer, kind, reason } of view.plan.ways.list) {
    const subject = `way to ${peer.name}`;
    const way = `${kind}: ${reason}`;
    say(
      kind === 'none'
        ? broken('tunnel', subject, noWay(view), { subject, wanted: 'a way', seen: reason })
        : good('tunnel', subject, { subject, wanted: way, seen: way }),
    );
  }
  if (plan.tunnel || seen.tunnel) row('tunnel', tunnelName, describeTunnel(plan.tunnel), describeTunnel(seen.tunnel));
  if (plan.wireguard || seen.wireguard)
    row('tunnel', wireguardName, describeKeys(plan.wireguard), describeKeys(seen.wireguard));
  await showTable(view, say);
  const server = gatewayOf(input.subnet);
  const reply = await askName(view.clock, undefined, server, 'gantry-doctor.invalid');
  row('dns', `name server ${server}:53`, 'answers', reply.kind === 'silent' ? reply.why : 'answers');
}

const noWay = (view: View) => view.plan.ways.missing[0]?.remedy ?? remedy;

function describeKeys(wireguard: WireGuard | undefined): string {
  return wireguard ? describeWireGuard(wireguard).replaceAll('\n', ', ') : '';
}

function describeTunnel(tunnel: Tunnel | undefined): string {
  if (!tunnel) return '';
  const { device, forwarding } = tunnel;
  const ends = [...forwarding].map(([mac, underlay]) => `${mac} at ${underlay}`).sort();
  return [
    device.addresses.join(' '),
    `from ${device.local}`,
    `mtu ${device.mtu}`,
    device.up ? 'up' : 'down',
    ...ends,
  ].join(', ');
}

function describeBridge(bridge: Bridge | undefined): string {
  return bridge ? [bridge.mac, bridge.up ? 'up' : 'down', ...bridge.addresses].join(' ') : '';
}

/** The table by service: what its elements lead to, and how many of them differ. */
async function showTable(view: View, say: Say): Promise<void> {
  const { firewall } = view.plan.plan;
  const { ip: table } = await view.kernel.readTables(view.plan.plan);
  const total = elementsOf(firewall).size;
  const steps = diffTable(firewall, table);
  const subject = `table ip ${tableName}`;
  const wanted = `${firewall.declarations.size} chains and maps, ${total} elements`;
  if (steps.length === 0) say(good('table', subject, { subject, wanted, seen: wanted }));
  for (const { why } of steps) say(broken('table', why, remedy, { subject, wanted, seen: why }));
  let shown = 0;
  for (const { endpoint, elements } of valuesOf(firewall.endpoints)) {
    if (shown++ === mostServices) {
      say(unknown('vip', `only the first ${mostServices} services are shown`, ''));
      return;
    }
    const differs = [...elements].filter(([element, value]) => table?.elements.get(element) !== value);
    const name = `${endpoint.project}/${endpoint.name}`;
    const backends = endpoint.backends.filter(({ serving }) => serving).map(({ address }) => address);
    const means = `${endpoint.vip || 'no VIP'} → ${backends.join(' ') || 'nobody'}`;
    const has = differs.map(([element]) => `${element} → ${table?.elements.get(element) ?? 'missing'}`).join(', ');
    say(
      differs.length === 0
        ? good('vip', name, { subject: name, wanted: means, seen: means })
        : broken('vip', name, remedy, { subject: name, wanted: means, seen: has }),
    );
  }
}
