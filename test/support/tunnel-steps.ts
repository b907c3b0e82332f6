/** A kernel's tunnels in a few lines: what each step does to them, and what the kernel would refuse. */
import type { LinksSeen, NetStep } from '#net/plan/diff.ts';
import type { Route } from '#net/plan/routes.ts';
import { type Tunnel, tunnelName, wireguardName } from '#net/plan/tunnel.ts';

/** The links after a step that concerns tunnels; undefined for another step. Throws where it cannot be taken. */
export function takeTunnelStep(links: LinksSeen, step: NetStep): LinksSeen | undefined {
  const change = (changed: (tunnel: Tunnel) => Partial<Tunnel>): LinksSeen => {
    if (!links.tunnel) throw new Error(`no tunnel for ${step.why}`);
    return { ...links, tunnel: { ...links.tunnel, ...changed(links.tunnel) } };
  };
  switch (step.kind) {
    case 'address-add':
    case 'address-remove':
      if (step.link !== tunnelName) return undefined;
      return change(({ device }) => {
        const others = device.addresses.filter((address) => address !== step.address);
        return { device: { ...device, addresses: step.kind === 'address-add' ? [...others, step.address] : others } };
      });
    case 'tunnel': {
      const device = { ...step.device, addresses: [] };
      return { ...without(links, tunnelName), tunnel: { device, forwarding: new Map(), neighbours: new Map() } };
    }
    case 'tunnel-set':
      return change(({ device }) => ({ device: { ...step.device, addresses: device.addresses } }));
    case 'tunnel-remove':
      if (!links.tunnel) throw new Error('no tunnel to remove');
      return { ...without(links, tunnelName), tunnel: undefined };
    case 'forwarding':
      return change(({ forwarding }) => ({ forwarding: new Map(forwarding).set(step.mac, step.underlay) }));
    case 'forwarding-remove':
      return change(({ forwarding }) => ({ forwarding: lacking(forwarding, step.mac) }));
    case 'neighbour':
      return change(({ neighbours }) => ({ neighbours: new Map(neighbours).set(step.address, step.mac) }));
    case 'neighbour-remove':
      return change(({ neighbours }) => ({ neighbours: lacking(neighbours, step.address) }));
    case 'wireguard':
      return { ...links, wireguard: step.wireguard };
    case 'wireguard-remove':
      if (!links.wireguard) throw new Error('no WireGuard device to remove');
      return { ...without(links, wireguardName), wireguard: undefined };
    case 'route':
      if (isBy(step.route, tunnelName) && !links.tunnel) throw new Error('a route by no tunnel');
      if (isBy(step.route, wireguardName) && !links.wireguard) throw new Error('a route by no WireGuard device');
      return undefined;
    default:
      return undefined;
  }
}

const isBy = (route: Route, link: string) => route.type !== 'unreachable' && route.link === link;

/** A link goes, and the routes by it with it. */
function without(links: LinksSeen, link: string): LinksSeen {
  return { ...links, routes: new Map([...links.routes].filter(([, route]) => !isBy(route, link))) };
}

function lacking<V>(map: ReadonlyMap<string, V>, key: string): ReadonlyMap<string, V> {
  const rest = new Map(map);
  if (!rest.delete(key)) throw new Error(`no ${key}`);
  return rest;
}
