/** The network state of this machine's kernel as far as it is ours: read, changed by steps, and watched. */
import fs from 'node:fs';
import path from 'node:path';
import { gatewayOf } from '#net/plan/cidr.ts';
import type { LinksSeen, NetStep, TablesSeen } from '#net/plan/diff.ts';
import type { FamilyName } from '#net/plan/family.ts';
import { type Fitting, taskLink } from '#net/plan/fittings.ts';
import { macOf } from '#net/plan/mac.ts';
import { bridgeName, type NodePlan, portNameOf } from '#net/plan/node-plan.ts';
import { describeRule } from '#net/plan/return-path.ts';
import { routeKey } from '#net/plan/routes.ts';
import { removeTable, replaceTable, updateTable } from '#net/plan/rules.ts';
import { type TunnelDevice, tunnelName, wireguardName } from '#net/plan/tunnel.ts';
import type { Measured } from '#net/plan/ways.ts';
import { Fault, isFault, unreachable } from '#proto/kernel/errors.ts';
import { Connections } from './connections.ts';
import { Conntrack, type Entry, type ForgetScope } from './conntrack.ts';
import { foreignDrops, strictReversePath } from './foreign.ts';
import { FormerSettings } from './former-settings.ts';
import { HostFirewall } from './host-firewall.ts';
import { Neighbours } from './neighbours.ts';
import { Netlink } from './netlink.ts';
import { createNetns, isPinned, type OpenNetns, openNetns, removeNetns } from './netns.ts';
import { isDormant, NftNetlink } from './nft-netlink.ts';
import { Nftables } from './nftables.ts';
import { PathMtu } from './path-mtu.ts';
import * as routing from './routing.ts';
import * as rt from './rtnetlink.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { CanonicalForms, readTable } from './table.ts';
import { makeFitting, presentFittings, type TaskEnds } from './task-fittings.ts';
import { Traffic } from './traffic.ts';
import * as vxlan from './tunnel.ts';
import { WireGuardLink, type WireGuardMaker } from './wireguard.ts';

/** Without capabilities of their own, tasks may bind any port of their own namespace and ping, as under Docker. */
const taskSysctls = [
  ['net.ipv4.ip_unprivileged_port_start', '0'],
  ['net.ipv4.ping_group_range', '0 2147483647'],
] as const;

export class HostKernel {
  readonly #netnsDir: string;
  readonly #netlink = new Netlink(0);
  /** Deletes links, on a thread of the pool. */
  readonly #deleter = new Netlink(0);
  readonly #monitor = new rt.Monitor(rt.linkGroups, new Set([this.#netlink.portId, this.#deleter.portId]));
  /** Who has changed what the tunnel was told. */
  readonly #tunnelMonitor = new rt.Monitor(rt.neighbourGroups, new Set([this.#netlink.portId]), (message) =>
    vxlan.isNeighbourOf(message, this.#tunnelIndex),
  );
  #tunnelIndex: number | undefined;
  readonly #wireguard: WireGuardLink;
  #paths: PathMtu | undefined;
  readonly #unmeasured: (address: string, link: number) => void;
  readonly #neighbours = new Neighbours();
  readonly #nftables = new Nftables();
  readonly #nftNetlink = new NftNetlink();
  readonly #hostFirewall = new HostFirewall(this.#nftables, (commands) => this.#transact(commands));
  readonly #conntrack: Conntrack;
  readonly #settings: FormerSettings;
  readonly #connections = new Connections();
  #traffic: Traffic | undefined;
  readonly #forms = new CanonicalForms();
  /** nftables' generation as of our last look or deed; undefined: somebody came between. */
  #knownGeneration: number | undefined;

  /**
   * `netnsDir`: where the namespaces of tasks are pinned. It acts on the namespace it is made in. `leaving`: as Conntrack's;
   * `wireguard`: what it takes to make its device, and not only to read it. `unmeasured`: as what PathMtu says.
   */
  constructor(
    netnsDir: string,
    parts: {
      readonly leaving?: (entries: readonly Entry[]) => Promise<unknown>;
      readonly wireguard?: WireGuardMaker;
      readonly unmeasured?: (address: string, link: number) => void;
    } = {},
  ) {
    this.#netnsDir = netnsDir;
    this.#unmeasured = parts.unmeasured ?? (() => {});
    this.#wireguard = new WireGuardLink({ runDir: path.dirname(netnsDir), netlink: this.#netlink }, parts.wireguard);
    this.#settings = new FormerSettings(path.dirname(netnsDir));
    this.#conntrack = new Conntrack(parts.leaving);
    fs.mkdirSync(netnsDir, { recursive: true, mode: 0o755 });
  }

  /** Links, addresses, routes and settings of ours. `plan` says which settings to look at. */
  readLinks(plan: NodePlan): LinksSeen {
    this.#monitor.disturbed();
    const links = rt.listLinks(this.#netlink);
    const bridge = links.find((link) => link.name === bridgeName);
    if (bridge && bridge.kind !== 'bridge') {
      throw new Fault('precondition', `the link ${bridgeName} is a ${bridge.kind || 'device'}, not our bridge`, {
        remedy: `rename it: ip link set ${bridgeName} name OTHER`,
      });
    }
    const addresses = bridge ? rt.listAddresses(this.#netlink).filter((item) => item.index === bridge.index) : [];
    const nameOf = (index: number) => links.find((link) => link.index === index)?.name ?? '';
    const tunnel = this.#ownTunnel(links);
    const wireguard = links.find((link) => link.name === wireguardName);
    return {
      sysctls: new Map([...plan.sysctls.keys()].flatMap((name) => pair(name, readSysctl(name)))),
      bridge: bridge && { mac: bridge.mac, up: bridge.up, addresses: addresses.map((item) => item.cidr) },
      ports: new Set(
        links
          .filter((link) => bridge && link.master === bridge.index && isSound(link, plan.bridged))
          .map((link) => link.name),
      ),
      bridged: plan.bridged,
      fittings: bridge ? this.#readFittings(plan, bridge.index) : new Map(),
      routes: new Map(routing.listRoutes(this.#netlink, nameOf).map((route) => [routeKey(route), route])),
      rules: new Map(routing.listRules(this.#netlink).map((rule) => [describeRule(rule), rule])),
      tunnel: tunnel && vxlan.readTunnel(this.#netlink, tunnel),
      wireguard: wireguard && this.#wireguard.read(wireguard),
    };
  }

  /** The device of our tunnels; not one that somebody made otherwise, which is replaced. */
  #ownTunnel(links: readonly rt.Link[]): rt.Link | undefined {
    this.#tunnelMonitor.disturbed();
    const link = links.find(({ name }) => name === tunnelName);
    if (link && link.kind !== 'vxlan') {
      throw new Fault('precondition', `the link ${tunnelName} is a ${link.kind || 'device'}, not our tunnel`, {
        remedy: `rename it: ip link set ${tunnelName} name OTHER`,
      });
    }
    const own = link && vxlan.isTunnel(link) ? link : undefined;
    this.#tunnelIndex = own?.index;
    return own;
  }

  /** Our nftables tables, in the words of `plan`. */
  async readTables(plan: NodePlan): Promise<TablesSeen> {
    const before = this.#nftNetlink.generation();
    const tables = this.#nftNetlink.tables();
    const read = (family: FamilyName, firewall: NodePlan['firewall6']) =>
      readTable(this.#nftables, tables, family, firewall?.declarations ?? new Map(), this.#forms);
    const seen = { ip: await read('ip', plan.firewall), ip6: await read('ip6', plan.firewall6) };
    for (const family of ['ip', 'ip6'] as const) this.#hostFirewall.knows(family, seen[family]?.elements.keys() ?? []);
    this.#knownGeneration = before;
    return seen;
  }

  /** What foreign there is in the way of packets. */
  async obstacles(wanted: { readonly network: string; readonly address: string }): Promise<readonly Fault[]> {
    const dormant = this.#nftNetlink.tables().filter(isDormant);
    const off = new Set(dormant.map(({ family, name }) => `${family} ${name}`));
    return [
      ...(await this.#hostFirewall.follow(off)),
      ...(await foreignDrops(this.#nftables, off, wanted.network)),
      ...strictReversePath(this.#netlink, wanted.address),
    ];
  }

  /** Takes one step; `reattach` makes the link of a port that is gone. */
  async take(step: NetStep, reattach: (port: string) => void): Promise<void> {
    switch (step.kind) {
      case 'sysctl':
        if (step.name === forwarding6) this.#keepListening();
        return this.#settings.change(step.name, step.value);
      case 'bridge':
        return this.#setBridge(step.mac);
      case 'address-add':
        return this.#netlink.do(rt.addAddress(this.#indexOf(step.link), step.address));
      case 'address-remove':
        return ignoring(['not-found'], () =>
          this.#netlink.do(rt.deleteAddress(this.#indexOf(step.link), step.address)),
        );
      case 'tunnel':
        return this.#makeTunnel(step.device);
      case 'tunnel-set':
        return this.#netlink.do(rt.setLink({ ...step.device, index: this.#indexOf(tunnelName) }));
      case 'tunnel-remove':
        return ignoring(['not-found'], () => this.#netlink.do(rt.deleteLink(tunnelName)));
      case 'forwarding':
        return this.#netlink.do(vxlan.addForwarding(this.#indexOf(tunnelName), step.mac, step.underlay));
      case 'forwarding-remove':
        return ignoring(['not-found'], () =>
          this.#netlink.do(vxlan.removeForwarding(this.#indexOf(tunnelName), step.mac, step.underlay)),
        );
      case 'neighbour':
        return this.#netlink.do(vxlan.addNeighbour(this.#indexOf(tunnelName), step.address, step.mac));
      case 'neighbour-remove':
        return ignoring(['not-found'], () =>
          this.#netlink.do(vxlan.removeNeighbour(this.#indexOf(tunnelName), step.address, step.mac)),
        );
      case 'wireguard':
        return this.#wireguard.set(step.wireguard);
      case 'wireguard-remove':
        return ignoring(['not-found'], () => this.#netlink.do(rt.deleteLink(wireguardName)));
      case 'port':
        return this.#setPort(step.port, step.bridged, reattach);
      case 'fitting':
        return this.fit(step.taskId, [step.fitting]);
      case 'port-remove':
        return this.#removePort(step.port);
      case 'route':
        return this.#netlink.do(routing.replaceRoute(step.route, (name) => this.#indexOf(name)));
      case 'route-remove':
        return ignoring(['not-found'], () => this.#netlink.do(routing.deleteRoute(step.route)));
      case 'rule':
        return ignoring(['exists'], () => this.#netlink.do(routing.addRule(step.rule)));
      case 'rule-remove':
        return ignoring(['not-found'], () => this.#netlink.do(routing.deleteRule(step.rule)));
      case 'table-replace':
        return this.#hostFirewall.around(step.family, [], step.elements.keys(), () =>
          this.#transact(replaceTable(step.family, step.declarations, step.elements)),
        );
      case 'table-remove':
        return this.#transact(removeTable(step.family));
      case 'table-update':
        return this.#hostFirewall.around(
          step.family,
          step.removeElements,
          step.addElements.map(([element]) => element),
          () => this.#transact(updateTable(step)),
        );
      default:
        return unreachable(step);
    }
  }

  async #transact(commands: string): Promise<void> {
    const before = this.#nftNetlink.generation();
    await this.#nftables.run(commands);
    const after = this.#nftNetlink.generation();
    const alone = this.#knownGeneration === before && after === before + 1;
    this.#knownGeneration = alone ? after : undefined;
  }

  /** Which of the two somebody else may have changed since the last look; costs some ten microseconds. */
  disturbed(plan: NodePlan): { readonly links: boolean; readonly table: boolean } {
    const told = this.#tunnelMonitor.disturbed();
    const links =
      this.#monitor.disturbed() || told || [...plan.sysctls].some(([name, value]) => readSysctl(name) !== value);
    return { links, table: this.#nftNetlink.generation() !== this.#knownGeneration };
  }

  /** As WireGuardLink.publicKey. */
  get wireguardKey(): string {
    return this.#wireguard.publicKey;
  }

  /** The host has nftables see what passes between ports of a bridge; 10 microseconds. */
  bridged(): boolean {
    return readSysctl('net.bridge.bridge-nf-call-iptables') === '1';
  }

  /** As Neighbours.macs. */
  macs(addresses: readonly string[]): ReadonlyMap<string, string> {
    return this.#neighbours.macs(addresses);
  }

  #setBridge(mac: string): void {
    const bridge = rt.findLink(this.#netlink, bridgeName);
    this.#netlink.do(bridge ? rt.setLink({ index: bridge.index, mac }) : rt.createBridge(bridgeName, mac));
  }

  #makeTunnel(device: TunnelDevice): void {
    ignoring(['not-found'], () => this.#netlink.do(rt.deleteLink(tunnelName)));
    this.#netlink.do(vxlan.createTunnel(device));
    this.#tunnelIndex = this.#indexOf(tunnelName);
  }

  /** A host that forwards does not listen to routers any more, and would lose the default route that it has from them. */
  #keepListening(): void {
    for (const link of fs.readdirSync('/proc/sys/net/ipv6/conf')) {
      const name = `net.ipv6.conf.${link}.accept_ra`;
      if (link !== 'all' && link !== 'default' && readSysctl(name) === '1') this.#settings.change(name, '2');
    }
  }

  #setPort(port: string, bridged: boolean, reattach: (port: string) => void): void {
    const link = rt.findLink(this.#netlink, port);
    const sound = link && link.master === this.#indexOf(bridgeName) && isSound(link, bridged);
    if (!sound) reattach(port);
  }

  async #removePort(port: string): Promise<void> {
    try {
      await this.#deleter.doOnThread(rt.deleteLink(port));
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  #indexOf(name: string): number {
    const link = rt.findLink(this.#netlink, name);
    if (!link) throw new Fault('not-found', `there is no link ${name}`);
    return link.index;
  }

  /** As PathMtu.widths. */
  pathMtus(measured: readonly Measured[], nowMs: number): ReadonlyMap<string, number> {
    this.#paths ??= new PathMtu(this.#unmeasured);
    return this.#paths.widths(measured, nowMs);
  }

  /** The MTU of the link that has this address; 1500 where none has. */
  mtuTowards(address: string): number {
    const found = rt.listAddresses(this.#netlink).find((item) => item.cidr.startsWith(`${address}/`));
    return rt.listLinks(this.#netlink).find((link) => link.index === found?.index)?.mtu ?? 1500;
  }

  netnsPathOf(taskId: string): string {
    return path.join(this.#netnsDir, taskId);
  }

  /**
   * A pinned namespace for a task with `eth0`, its address (as a /32: all its packets pass by the gateway, where VIPs are
   * translated, and back) and routes; whatever of that is there already is kept. Synchronous: about 2 ms.
   */
  attach(task: {
    readonly taskId: string;
    readonly address: string;
    readonly subnet: string;
    readonly mtu: number;
    readonly bridged: boolean;
    /** Its default route is by its gateway. */
    readonly byDefault: boolean;
    readonly ipv6: boolean;
  }): string {
    const target = this.netnsPathOf(task.taskId);
    const gateway = gatewayOf(task.subnet);
    using netns = this.#openOrCreate(target, task.ipv6);
    const port = portNameOf(task.taskId);
    const bridge = this.#indexOf(bridgeName);
    const before = rt.findLink(this.#netlink, port);
    if (!before) {
      this.#netlink.do(
        rt.createVeth({
          name: port,
          peer: taskLink,
          peerMac: macOf(task.address),
          netnsFd: netns.fd,
          bridge,
          mtu: task.mtu,
        }),
      );
      // A port needs no address of its own; and the kernel's making one would be news each time.
      const own = `net.ipv6.conf.${port}.disable_ipv6`;
      if (readSysctl(own) === '0') writeSysctl(own, '1');
    }
    const mac = macOf(task.address);
    const index = before?.index ?? this.#indexOf(port);
    this.#netlink.do(...rt.enslave(index, bridge, mac, task.bridged), rt.fixNeighbour(bridge, task.address, mac));
    this.#prepareTask(netns, task.address, gateway, task.byDefault);
    return target;
  }

  #openOrCreate(target: string, ipv6: boolean): OpenNetns {
    if (isPinned(target)) return openNetns(target);
    return createNetns(target, () => {
      const own = ipv6 ? [] : [['net.ipv6.conf.default.disable_ipv6', '1'] as const];
      for (const [name, value] of [...taskSysctls, ...own])
        if (readSysctl(name) !== undefined) writeSysctl(name, value);
    });
  }

  #prepareTask(netns: OpenNetns, address: string, gateway: string, byDefault: boolean): void {
    const link = rt.findLink(netns.netlink, taskLink);
    if (!link) throw new Fault('internal', `${netns.path} has no ${taskLink}`);
    const loopbackIndex = 1;
    netns.netlink.do(
      rt.setLink({ index: loopbackIndex }),
      rt.addAddress(link.index, `${address}/32`),
      rt.setLink({ index: link.index }),
      ...routing.taskRoutes(link.index, gateway, byDefault),
    );
  }

  /** Makes fittings of a task that is attached; Fault('not-found') without a namespace, else as makeFitting. */
  fit(taskId: string, fittings: Iterable<Fitting>): void {
    using netns = openNetns(this.netnsPathOf(taskId));
    const ends = this.#endsOf(taskId, netns, this.#indexOf(bridgeName));
    for (const fitting of fittings) makeFitting(ends, fitting);
  }

  #endsOf(taskId: string, netns: OpenNetns, bridge: number): TaskEnds {
    const mac = rt.findLink(netns.netlink, taskLink)?.mac ?? '';
    return { netns, host: this.#netlink, bridge, port: portNameOf(taskId), mac };
  }

  #readFittings(plan: NodePlan, bridge: number): LinksSeen['fittings'] {
    return new Map(
      [...plan.fittings].flatMap(([taskId, wanted]) => {
        if (!isPinned(this.netnsPathOf(taskId))) return [];
        using netns = openNetns(this.netnsPathOf(taskId));
        return [[taskId, presentFittings(this.#endsOf(taskId, netns, bridge), wanted)] as const];
      }),
    );
  }

  /** The address of a task's namespace, as the kernel has it; undefined where it has none. */
  addressOf(taskId: string): string | undefined {
    const target = this.netnsPathOf(taskId);
    if (!isPinned(target)) return undefined;
    using netns = openNetns(target);
    const index = rt.findLink(netns.netlink, taskLink)?.index;
    return rt
      .listAddresses(netns.netlink)
      .find((item) => item.index === index)
      ?.cidr.split('/')[0];
  }

  /**
   * Unpins a task's namespace; nothing where there is none. With its last process the kernel ends it, and the link with
   * it, in its own time and many at once: to delete the link here would hold up everybody for 40 ms.
   */
  detach(taskId: string): void {
    removeNetns(this.netnsPathOf(taskId));
  }

  /** The tasks whose namespaces are pinned here. Plain files, as a reboot leaves them, are cleared away. */
  attached(): string[] {
    return fs.readdirSync(this.#netnsDir).filter((name) => {
      const target = path.join(this.#netnsDir, name);
      if (isPinned(target)) return true;
      fs.rmSync(target, { force: true });
      return false;
    });
  }

  /** As Conntrack.forgetStrangers. */
  forgetStrangers(strangers: () => (address: string) => boolean): Promise<number> {
    return this.#conntrack.forgetStrangers(strangers);
  }

  /** Forgets connections: see Conntrack.forget. */
  forget(address: string, scope: ForgetScope): Promise<unknown> {
    return this.#conntrack.forget(address, scope);
  }

  /** How many connections these addresses answer: see Connections.count. */
  connections(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    return this.#connections.count(addresses);
  }

  /** As Traffic.news. */
  traffic(families: readonly FamilyName[]): Promise<ReadonlyMap<string, number>> {
    this.#traffic ??= new Traffic();
    return this.#traffic.news(families);
  }

  /** Lets go of the sockets; the kernel keeps what it has. */
  async close(): Promise<void> {
    await this.#nftables.close();
    this.#monitor.close();
    this.#tunnelMonitor.close();
    this.#paths?.close();
    this.#neighbours.close();
    this.#nftNetlink.close();
    await this.#conntrack.close();
    await this.#connections.close();
    await this.#traffic?.close();
    this.#deleter.close();
    this.#netlink.close();
  }
}

/** A port of our bridge as it should be. */
function isSound({ up, port }: rt.Link, bridged: boolean): boolean {
  return up && port?.locked === true && (port.isolated || bridged);
}

const forwarding6 = 'net.ipv6.conf.all.forwarding';

function pair(name: string, value: string | undefined): [string, string][] {
  return value === undefined ? [] : [[name, value]];
}

function ignoring(codes: readonly ('not-found' | 'exists')[], action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!isFault(error, ...codes)) throw error;
  }
}
