/** A packet's way out of a node as the kernel would choose it, step by step: the prediction that a watched packet then proves. */
import { openNetns } from '#net/host/netns.ts';
import { findLink, listLinks } from '#net/host/rtnetlink.ts';
import { containsAddress } from '#net/plan/cidr.ts';
import { bridgeName } from '#net/plan/node-plan.ts';
import { routeProtocol } from '#net/plan/routes.ts';
import { valuesOf } from '#net/plan/shards.ts';
import type { ProbeSteps } from '#proto/gen/gantry/v1/probe.ts';
import { broken, good, type Say } from './fact.ts';
import { type Way, wayOf } from './route-lookup.ts';
import type { View } from './view.ts';

export async function probeSteps(view: View, probe: ProbeSteps, say: Say): Promise<void> {
  const { address, from, port } = probe;
  const links = listLinks(view.netlink);
  const nameOf = (index: number) => links.find((link) => link.index === index)?.name ?? `link ${index}`;
  if (probe.taskId !== '') {
    using netns = openNetns(view.netnsOf(probe.taskId));
    const eth0 = findLink(netns.netlink, 'eth0')?.index;
    tell(say, `${from} sends to ${address}${port ? `:${port}` : ''}`, wayOf(netns.netlink, { to: address }), (index) =>
      index === eth0 ? 'eth0' : `link ${index}`,
    );
    say(good('bridge', `it comes in by ${bridgeName}, whose host is its router`));
  }
  const target = translate(view, address, port, say);
  const way = wayOf(view.netlink, { to: target });
  tell(say, `to ${target}`, way, nameOf);
}

/** What the table makes of the destination: the first of the backends, for the rest of the way. */
function translate(view: View, address: string, port: number, say: Say): string {
  const { input, plan } = view.plan;
  const isVip = containsAddress(input.vipNetwork, address);
  for (const { endpoint, owned } of valuesOf(plan.firewall.endpoints)) {
    const backends = endpoint.backends.filter(({ serving }) => serving).map((backend) => backend.address);
    const published = address === input.address && owned.find((one) => one.published === port);
    if (isVip ? endpoint.vip !== address : !published) continue;
    const what = `${endpoint.project}/${endpoint.name}`;
    const rule = isVip ? `map services: ${address}` : `map published: port ${port}`;
    if (backends.length === 0) {
      say(
        broken(
          'vip',
          `${rule} is ${what}, which nobody serves: refused`,
          'gantry ps shows whether its tasks run and are healthy',
        ),
      );
      return address;
    }
    const to = published ? `, port ${published.target}` : '';
    say(good('vip', `${rule} is ${what}: one of ${backends.join(', ')} at random${to}`, { subject: what }));
    return backends[0] as string;
  }
  if (isVip)
    say(
      broken(
        'vip',
        `${address} is no service's VIP here: refused`,
        'gantry services; the agent may not have heard of it yet',
      ),
    );
  return address;
}

function tell(say: Say, what: string, way: Way | string, nameOf: (index: number) => string): void {
  if (typeof way === 'string') {
    say(broken('route', `${what}: no route (${way})`, 'gantry net show tells the routes that should be there'));
    return;
  }
  const via = way.gateway === '' ? '' : ` via ${way.gateway}`;
  const whose = way.protocol === routeProtocol ? ', ours' : '';
  const mtu = way.mtu ? `, mtu ${way.mtu}` : '';
  const text = `${what}: ${way.type === 'unicast' ? '' : `${way.type} `}${way.route}${via} dev ${nameOf(way.link)}${mtu}${whose}`;
  say(good('route', text, { seen: `${way.route}${via}` }));
}
