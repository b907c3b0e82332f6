/** A task's fittings in the kernel: made, and looked for. */
import { describeFitting, type Fitting, type Fittings, taskLink } from '#net/plan/fittings.ts';
import { describeRoute } from '#net/plan/routes.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { attribute, type Netlink, NLM_F_CREATE, NLM_F_EXCL, nested, type Request } from './netlink.ts';
import type { OpenNetns } from './netns.ts';
import { limit, listLimits } from './qdisc.ts';
import * as routing from './routing.ts';
import * as rt from './rtnetlink.ts';
import { macBytes } from './rtnetlink.ts';

const IFLA_LINK = 5;
const MACVLAN_MODE_BRIDGE = 4;

/** The two ends of a task's network: the namespace, and its port on the host. */
export interface TaskEnds {
  readonly netns: OpenNetns;
  readonly host: Netlink;
  readonly bridge: number;
  readonly port: string;
  readonly mac: string;
}

/**
 * Makes what is not there as it should be. A `lan` whose parent is no link of the host, or one that macvlan cannot be put on, is
 * Fault('precondition').
 */
export function makeFitting(ends: TaskEnds, fitting: Fitting): void {
  const { netns, host } = ends;
  const indexOf = (name: string) => {
    const link = rt.findLink(netns.netlink, name);
    if (!link) throw new Fault('not-found', `the task of ${ends.port} has no link ${name}`);
    return link.index;
  };
  switch (fitting.kind) {
    case 'lan':
      fitLan(ends, fitting);
      return;
    case 'address':
      netns.netlink.do(
        rt.addAddress(indexOf(fitting.link), fitting.cidr),
        rt.setLink({ index: indexOf(fitting.link) }),
      );
      if (fitting.link === taskLink) {
        host.do(rt.fixNeighbour(ends.bridge, fitting.cidr.split('/')[0] as string, ends.mac));
      }
      return;
    case 'route':
      netns.netlink.do(routing.replaceRoute(fitting.route, indexOf));
      return;
    case 'rate': {
      const port = fitting.direction === 'ingress' ? rt.findLink(host, ends.port) : undefined;
      if (port) host.do(limit(port.index, fitting.bitsPerSecond));
      if (fitting.direction === 'egress') netns.netlink.do(limit(indexOf(taskLink), fitting.bitsPerSecond));
      return;
    }
  }
}

function fitLan({ netns, host }: TaskEnds, { link, parent, mac, network }: Extract<Fitting, { kind: 'lan' }>): void {
  const remedy = `name one that this node has as driver_opts.parent of network ${network}, or keep its services off this node (placement.constraints)`;
  const on = rt.findLink(host, parent);
  if (!on)
    throw new Fault('precondition', `this node has no link ${parent}, the parent of network ${network}`, { remedy });
  const there = rt.findLink(netns.netlink, link);
  if (!there) {
    try {
      host.do(createMacvlan({ name: link, parent: on.index, mac, netnsFd: netns.fd }));
    } catch (error) {
      if (!isFault(error)) throw error;
      const what = `no link can be put beside ${parent} of this node, for network ${network}`;
      throw new Fault('precondition', `${what}: ${error.message}`, { cause: error, remedy });
    }
  }
  const made = there ?? rt.findLink(netns.netlink, link);
  if (made) netns.netlink.do(rt.setLink({ index: made.index }));
}

function createMacvlan(link: { name: string; parent: number; mac: string; netnsFd: number }): Request {
  const mode = Buffer.alloc(4);
  mode.writeUInt32LE(MACVLAN_MODE_BRIDGE);
  const kind = [attribute(1, 'macvlan'), nested(2, attribute(1, mode))];
  return {
    what: `making link ${link.name}`,
    type: rt.RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: rt.linkBody(
      0,
      0,
      0,
      attribute(rt.IFLA.name, link.name),
      attribute(rt.IFLA.address, macBytes(link.mac)),
      attribute(IFLA_LINK, link.parent),
      attribute(rt.IFLA.netnsFd, link.netnsFd),
      nested(rt.IFLA.linkInfo, ...kind),
    ),
  };
}

/** Those of `wanted` that are there. */
export function presentFittings({ netns, host, port }: TaskEnds, wanted: Fittings): Fittings {
  const links = rt.listLinks(netns.netlink);
  const nameOf = (index: number) => links.find((link) => link.index === index)?.name ?? '';
  const found = new Set([
    ...links.filter(({ up, kind }) => up && kind === 'macvlan').map(({ name }) => `lan ${name}`),
    ...rt.listAddresses(netns.netlink).map(({ index, cidr }) => `address ${cidr} of ${nameOf(index)}`),
    ...routing.listRoutes(netns.netlink, nameOf).map((route) => `route ${describeRoute(route)}`),
  ]);
  const inside = listLimits(netns.netlink);
  const outside = [...wanted.values()].some(({ kind }) => kind === 'rate') ? listLimits(host) : new Map();
  const own = rt.findLink(host, port)?.index ?? -1;
  const isThere = (fitting: Fitting): boolean => {
    switch (fitting.kind) {
      case 'lan':
        return found.has(`lan ${fitting.link}`);
      case 'rate': {
        const rate =
          fitting.direction === 'ingress'
            ? outside.get(own)
            : inside.get(links.find(({ name }) => name === taskLink)?.index ?? -1);
        // The kernel counts in bytes.
        return rate !== undefined && Math.abs(rate - fitting.bitsPerSecond) < 8;
      }
      default:
        return found.has(describeFitting(fitting));
    }
  };
  return new Map([...wanted].filter(([, fitting]) => isThere(fitting)));
}
