/** The network of a node in the kernel it runs on. */
import path from 'node:path';
import type { Probe, ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { type ServiceId, type TaskId, taskId } from '#proto/model/ids.ts';
import { DnsServer } from './dns/server.ts';
import { resolvConfUpstream } from './dns/upstream.ts';
import { dnsView } from './dns/view.ts';
import { examine } from './doctor/doctor.ts';
import { RepairLog } from './doctor/repair-log.ts';
import { Holder } from './holder.ts';
import type { Entry, ForgetScope } from './host/conntrack.ts';
import { HeldPackets } from './host/held-packets.ts';
import { HostKernel } from './host/host-kernel.ts';
import { KeptSockets } from './host/kept-sockets.ts';
import { destroySockets, endsOf } from './host/sock-destroy.ts';
import type { Attachment, Network, NetworkRepair, NetworkWanted } from './network.ts';
import { departed, portKey } from './plan/balance.ts';
import { containsAddress, formatAddress, gatewayOf, parseCidr, sizeOf, tryAddress } from './plan/cidr.ts';
import { embed6 } from './plan/cidr6.ts';
import { countedOf } from './plan/counted.ts';
import type { NetStep } from './plan/diff.ts';
import { defaultLan, fittingsOf } from './plan/fittings.ts';
import { networksOf } from './plan/isolation.ts';
import { hasIpv6 } from './plan/local-tasks.ts';
import { type Planned, portNameOf, type Surroundings } from './plan/node-plan.ts';
import { changesBetween } from './plan/shards.ts';
import { type Measured, measuredFor, type PeerWay } from './plan/ways.ts';
import { Reconciler } from './reconcile.ts';

/** Below the five seconds that resolvers wait for us. */
const upstreamTimeoutMs = 4000;
const strangersEveryMs = 60_000;

export interface HostNetworkParts {
  readonly clock: Clock;
  readonly log: Log;
  /** The agent's run directory (`/run/gantry`): namespaces are pinned in its `netns/`. Must not outlive a reboot. */
  readonly runDir: string;
  /** Where this node's WireGuard key is kept, and made when it is missing. */
  readonly dataDir: string;
  /** Where the host's resolvers are named; default /etc/resolv.conf. */
  readonly resolvConf?: string;
  /** The name server's sockets end with this process, instead of waiting for the next one. */
  readonly endsSockets?: boolean;
}

/** The Network of the namespace this process is in. Nothing is touched before the first apply; Fault('precondition') without libnftables. */
export async function hostNetwork(
  parts: HostNetworkParts,
): Promise<Network & { /** Of this node; empty where it cannot do WireGuard. */ readonly wireguardKey: string }> {
  return new HostNetwork(parts);
}

const readMtuEveryMs = 5_000;

class HostNetwork implements Network {
  readonly #log: Log;
  readonly #kernel: HostKernel;
  readonly #dns: DnsServer;
  readonly #reconciler: Reconciler;
  readonly #parts: HostNetworkParts;
  readonly #netnsDir: string;
  readonly #repairs: RepairLog;
  readonly #holder: Holder;
  readonly #callListeners = new Set<(service: ServiceId) => void>();
  /** The tasks with a namespace, and their addresses; '' until asked: one of a process before this. */
  readonly #tasks = new Map<string, string>();
  /** Of those tasks that were attached by this process. */
  readonly #attachments = new Map<string, Attachment>();
  #mtu = 1500;
  #mtuReadMs = Number.NEGATIVE_INFINITY;
  #closed = false;
  #strangersTimer: Timer | undefined;
  #mtuAddress = '';
  #measured: { readonly ways: readonly PeerWay[]; readonly mtu: number; readonly of: readonly Measured[] } = {
    ways: [],
    mtu: 0,
    of: [],
  };

  constructor(parts: HostNetworkParts) {
    this.#log = parts.log.with('network');
    this.#parts = parts;
    this.#netnsDir = path.join(parts.runDir, 'netns');
    this.#repairs = new RepairLog(parts.clock);
    const { clock, dataDir, runDir } = parts;
    this.#holder = new Holder({
      clock,
      log: this.#log,
      open: () => new HeldPackets(),
      called: (service) => {
        for (const listener of this.#callListeners) listener(service);
      },
    });
    this.#kernel = new HostKernel(path.join(runDir, 'netns'), {
      leaving: (entries) => this.#endWaiting(entries),
      wireguard: { clock, dataDir },
      unmeasured: (address, link) =>
        this.#log.info('a peer answers no echo request: the path to it is taken to be as wide as the link', {
          address,
          why: `${link} bytes`,
        }),
    });
    for (const id of this.#kernel.attached()) this.#tasks.set(id, '');
    const gateway = () => (this.#reconciler.wanted ? [gatewayOf(this.#reconciler.wanted.subnet)] : []);
    const upstream = resolvConfUpstream({
      clock: parts.clock,
      path: parts.resolvConf ?? '/etc/resolv.conf',
      timeoutMs: upstreamTimeoutMs,
      notThese: gateway,
    });
    const log = this.#log.with('dns');
    const sockets = parts.endsSockets ? {} : { sockets: new KeptSockets(path.join(runDir, 'dns'), log) };
    this.#dns = new DnsServer({ clock, log, upstream, ...sockets });
    const kernel = {
      readLinks: this.#kernel.readLinks.bind(this.#kernel),
      readTables: this.#kernel.readTables.bind(this.#kernel),
      obstacles: this.#kernel.obstacles.bind(this.#kernel),
      disturbed: this.#kernel.disturbed.bind(this.#kernel),
      take: (step: NetStep) => this.#kernel.take(step, (port) => this.#reattach(port)),
    };
    this.#reconciler = new Reconciler(
      { clock: parts.clock, log: this.#log, kernel },
      (wanted) => ({
        ports: new Set([...this.#tasks.keys()].map(portNameOf)),
        macs: this.#kernel.macs(peersOf(wanted)),
        ...this.#widths(wanted),
        wireguardKey: this.#kernel.wireguardKey,
        bridged: this.#kernel.bridged(),
      }),
      (planned, before) => this.#settle(planned, before),
    );
    this.#reconciler.onRepair(({ kind, message }) => this.#repairs.note(kind, message));
  }

  /** How wide the link of this node is, and the paths to its peers. */
  #widths(wanted: NetworkWanted): Pick<Surroundings, 'linkMtu' | 'mtus'> {
    const now = this.#parts.clock.monotonic();
    if (wanted.address !== this.#mtuAddress || now - this.#mtuReadMs >= readMtuEveryMs) {
      this.#mtu = this.#kernel.mtuTowards(wanted.address);
      this.#mtuAddress = wanted.address;
      this.#mtuReadMs = now;
    }
    const planned = this.#reconciler.planned;
    const { ways, mtu } = this.#measured;
    if (planned && (ways !== planned.ways.list || mtu !== this.#mtu)) {
      const { list } = planned.ways;
      this.#measured = { ways: list, mtu: this.#mtu, of: measuredFor(list, planned.input.subnet, this.#mtu) };
    }
    return { linkMtu: this.#mtu, mtus: this.#kernel.pathMtus(this.#measured.of, now) };
  }

  get wireguardKey(): string {
    return this.#kernel.wireguardKey;
  }

  apply(wanted: NetworkWanted): Promise<void> {
    return this.#reconciler.apply(this.#withAttached(wanted));
  }

  /**
   * The tasks that were attached are there, whether or not the revision knows of them yet; the same object where it does. What it no longer
   * knows, and is not gone, has no port that another one has by now.
   */
  #withAttached(wanted: NetworkWanted): NetworkWanted {
    const known = new Set(wanted.attachments.map((task) => task.taskId));
    const taken = new Set(wanted.attachments.flatMap((task) => task.hostPorts.map(portKey)));
    const more = [...this.#attachments.values()].flatMap((task) => {
      if (known.has(task.taskId)) return [];
      const hostPorts = task.hostPorts.filter((port) => !taken.has(portKey(port)));
      return hostPorts.length === task.hostPorts.length ? task : { ...task, hostPorts };
    });
    return more.length === 0 ? wanted : { ...wanted, attachments: [...wanted.attachments, ...more] };
  }

  async #settle(planned: Planned, before: Planned | undefined): Promise<void> {
    const wanted = this.#reconciler.wanted as NetworkWanted;
    this.#holder.follow(planned);
    this.#namesChanged(wanted);
    await this.#dns.listen(planned.plan.bridge.addresses.map((address) => address.replace(/\/.*/, '')));
    if (before && before !== planned) this.#forgetDeparted(planned, before);
    if (!before) this.#forgetStrangersNow();
  }

  /** A task may ask before the revision that names it is applied. */
  #namesChanged(wanted: NetworkWanted): void {
    const attachments = [...this.#attachments.values(), ...wanted.attachments];
    this.#dns.update((previous) => dnsView({ ...wanted, attachments }, previous));
  }

  /** Flows to backends that are gone would reach nobody, or the next owner of the address, for as long as they go on. */
  #forgetDeparted(planned: Planned, before: Planned): void {
    const then: Endpoint[] = [];
    const now: Endpoint[] = [];
    for (const [, group, old] of changesBetween(planned.plan.firewall.endpoints, before.plan.firewall.endpoints)) {
      if (old) then.push(old.endpoint);
      if (group) now.push(group.endpoint);
    }
    const { gone, resting } = departed(then, now);
    // Nobody waits: new connections go elsewhere already.
    const wanted = planned.input;
    for (const address of gone) {
      const isHosts = address === wanted.address || wanted.peers.some((peer) => peer.address === address);
      if (!isHosts) void this.#forget(address, 'all');
      // Tasks of a host's own network: where another is left, whose connections are whose cannot be told.
      else if (!isBackend(wanted.endpoints, address)) void this.#forget(address, 'led');
    }
    for (const address of resting) void this.#forget(address, 'answered-udp');
  }

  /**
   * Connections to tasks of the cluster that are no more, and whose leaving nobody saw: this process was not there, or the
   * kernel remembered one anew. Looked for at the start, and every minute.
   */
  #forgetStrangersNow(): void {
    if (this.#closed || !this.#reconciler.wanted) return;
    this.#kernel
      .forgetStrangers(() => this.#strangers())
      .catch((error) => this.#log.warn('old connections could not be forgotten', { error }))
      .finally(() => {
        this.#strangersTimer?.cancel();
        if (!this.#closed) {
          this.#strangersTimer = this.#parts.clock.after(strangersEveryMs, () => this.#forgetStrangersNow());
        }
      });
  }

  /** Addresses of the cluster's nodes that no task has, as far as is known now. */
  #strangers(): (address: string) => boolean {
    const wanted = this.#reconciler.wanted as NetworkWanted;
    const own = [wanted.subnet, ...wanted.peers.flatMap(({ subnet }) => (subnet === '' ? [] : [subnet]))];
    const known = new Set<string>(own.flatMap(reservedOf));
    for (const { address, addresses } of [...wanted.attachments, ...wanted.endpoints.flatMap((one) => one.backends)]) {
      for (const one of [address, ...addresses.map((further) => further.address)]) known.add(one);
    }
    return (address) =>
      !known.has(address) && own.some((subnet) => containsAddress(subnet, address)) && !this.#isAttached(address);
  }

  /** It may have been attached since the revision was made. */
  #isAttached(address: string): boolean {
    return [...this.#attachments.values()].some((task) => task.address === address);
  }

  async #forget(address: string, scope: ForgetScope): Promise<void> {
    try {
      await this.#kernel.forget(address, scope);
    } catch (error) {
      this.#log.warn('old connections could not be forgotten', { address, error });
    }
  }

  /**
   * Local tasks, and the host itself, must not wait for an answer from who is gone. Others, who came by this node, are reset
   * when they send: a connection that nobody remembers begins with no SYN (plan/rules).
   */
  async #endWaiting(entries: readonly Entry[]): Promise<void> {
    const wanted = this.#reconciler.wanted;
    const own = wanted ? [wanted.address, gatewayOf(wanted.subnet)] : [];
    const netnsOf = new Map<string, string | undefined>(own.map((address) => [address, undefined]));
    for (const [id, address] of this.#tasks) {
      if (address !== '') netnsOf.set(address, this.#kernel.netnsPathOf(id));
    }
    for (const { taskId: id, address, addresses } of wanted?.attachments ?? []) {
      if (!this.#tasks.has(id)) continue;
      const netns = this.#kernel.netnsPathOf(id);
      for (const one of [address, ...addresses.map((item) => item.address)]) netnsOf.set(one, netns);
    }
    const ends = Map.groupBy(
      entries.flatMap(endsOf).filter(({ local }) => netnsOf.has(local)),
      ({ local }) => netnsOf.get(local),
    );
    for (const [netns, sockets] of ends) {
      try {
        const count = await destroySockets(netns, sockets);
        if (count > 0) this.#log.info('ended sockets whose other end is gone', { count });
      } catch (error) {
        // A task that has left meanwhile waits for nobody.
        if (!isFault(error, 'not-found'))
          this.#log.warn('sockets whose other end is gone could not be ended', { error });
      }
    }
  }

  async attach(attachment: Attachment) {
    const wanted = this.#reconciler.wanted;
    if (!wanted) {
      throw new Fault('precondition', `task ${attachment.taskId} cannot be attached: this node has no network yet`, {
        remedy: 'apply first',
      });
    }
    if (!containsAddress(wanted.subnet, attachment.address)) {
      throw new Fault('invalid', `address ${attachment.address} is not in this node's subnet ${wanted.subnet}`);
    }
    const gateway = gatewayOf(wanted.subnet);
    let netnsPath: string;
    try {
      netnsPath = this.#attachNow(attachment, wanted);
    } catch (error) {
      // The bridge: not made yet, or taken away by hand a moment ago.
      if (!isFault(error, 'not-found')) throw error;
      await this.#reconciler.recheck();
      netnsPath = this.#attachNow(attachment, wanted);
    }
    this.#attachments.set(attachment.taskId, attachment);
    await this.#allow(this.#reconciler.wanted ?? wanted);
    return { netnsPath, gateway, dns: gateway };
  }

  /** Rules and names of a task that was attached before the revision that knows of it is applied. */
  async #allow(wanted: NetworkWanted): Promise<void> {
    const now = this.#withAttached(wanted);
    // What else fails, as a way to a peer may, is said and tried again by the loop, and no reason to fail here.
    if (now !== wanted) await this.#reconciler.apply(now).catch(() => {});
    this.#namesChanged(now);
  }

  #attachNow(task: Attachment, wanted: NetworkWanted): string {
    const networks = networksOf(wanted.networks);
    const netnsPath = this.#kernel.attach({
      ...task,
      subnet: wanted.subnet,
      mtu: this.#mtu,
      bridged: this.#kernel.bridged(),
      byDefault: defaultLan(task, networks) === undefined,
      ipv6: hasIpv6(task, networks),
    });
    this.#tasks.set(task.taskId, task.address);
    this.#kernel.fit(task.taskId, fittingsOf(task, networks, wanted).values());
    return netnsPath;
  }

  /** Gives the task of a link that is gone a new one; nothing for a task that has left meanwhile. */
  #reattach(port: string): void {
    const wanted = this.#reconciler.wanted;
    const id = [...this.#tasks.keys()].find((task) => portNameOf(task) === port);
    const attachment = wanted?.attachments.find((item) => item.taskId === id);
    if (attachment && wanted) this.#attachNow(attachment, wanted);
  }

  async detach(id: TaskId): Promise<void> {
    const address = this.#tasks.get(id) || this.#kernel.addressOf(id);
    this.#tasks.delete(id);
    this.#attachments.delete(id);
    this.#kernel.detach(id);
    if (address) await this.#forget(address, 'all');
  }

  async attached(): Promise<readonly TaskId[]> {
    return [...this.#tasks.keys()].map(taskId);
  }

  async connections(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const network6 = this.#reconciler.wanted?.network6 ?? '';
    const forms = addresses.map((address) => [address, ...(network6 === '' ? [] : [embed6(network6, address)])]);
    const counts = await this.#kernel.connections(forms.flat());
    const sum = (of: readonly string[]) => of.reduce((total, one) => total + (counts.get(one) ?? 0), 0);
    return new Map(addresses.map((address, index) => [address, sum(forms[index] ?? [])]));
  }

  async traffic(): Promise<ReadonlyMap<ServiceId, number>> {
    const counted = countedOf(this.#reconciler.planned?.plan);
    if (counted.services.size === 0) return new Map();
    const calls = new Map<ServiceId, number>();
    for (const [key, count] of await this.#kernel.traffic(counted.families)) {
      const service = counted.services.get(key);
      if (service !== undefined) calls.set(service, (calls.get(service) ?? 0) + count);
    }
    return calls;
  }

  examine(probes: readonly Probe[], say: (fact: ProbeFact) => void, signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    const planned = () => this.#reconciler.planned;
    const repairs = () => this.#repairs.recent();
    const parts = { clock, log: this.#log, netnsDir: this.#netnsDir, planned, repairs };
    return examine(parts, probes, say, signal);
  }

  onCall(listener: (service: ServiceId) => void): () => void {
    this.#callListeners.add(listener);
    return () => this.#callListeners.delete(listener);
  }

  onRepair(listener: (repair: NetworkRepair) => void): () => void {
    return this.#reconciler.onRepair(listener);
  }

  /** Stops watching and answering names; links, routes and rules stay, so that a restart disturbs no packet. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#strangersTimer?.cancel();
    this.#holder.close();
    await this.#reconciler.close();
    await this.#dns.close();
    await this.#kernel.close();
  }
}

function isBackend(endpoints: readonly Endpoint[], address: string): boolean {
  return endpoints.some((endpoint) => endpoint.backends.some((backend) => backend.address === address));
}

/** The addresses of a subnet that no task has: the gateway's, and the last one, by which nodes encrypt. */
function reservedOf(subnet: string): readonly string[] {
  const cidr = parseCidr(subnet);
  return [gatewayOf(subnet), formatAddress(cidr.base + sizeOf(cidr) - 1)];
}

function peersOf(wanted: NetworkWanted): readonly string[] {
  return wanted.peers.flatMap((peer) =>
    peer.nodeId === wanted.nodeId || tryAddress(peer.address) === undefined ? [] : [peer.address],
  );
}
