/** Takes everything of ours off a host's network, whatever plan made it, so that the host is as it was before Gantry. */
import fs from 'node:fs';
import path from 'node:path';
import { bridgeName, isPortName } from '#net/plan/node-plan.ts';
import { routeMetric, routeProtocol } from '#net/plan/routes.ts';
import { tableName } from '#net/plan/rules.ts';
import type { Fault } from '#proto/kernel/errors.ts';
import { FormerSettings } from './former-settings.ts';
import { copyPrefix } from './host-firewall.ts';
import { endKeepers } from './kept-sockets.ts';
import { attributesOf, type Message, Netlink } from './netlink.ts';
import { isPinned, removeNetns } from './netns.ts';
import { NftNetlink } from './nft-netlink.ts';
import { Nftables } from './nftables.ts';
import * as rt from './rtnetlink.ts';

const RTM = { deleteRoute: 25, getRoute: 26, deleteRule: 33, getRule: 34 } as const;
const families = { 2: 'IPv4', 10: 'IPv6' } as const;
const RTA_PRIORITY = 6;
const FRA_PROTOCOL = 21;

/** Our links by name, and what they must be: a foreign one of the same name stays. */
const ownLinks: ReadonlyMap<string, readonly string[]> = new Map([
  ['gantry-vx', ['vxlan']],
  // Made by the kernel, or by wireguard-go.
  ['gantry-wg', ['wireguard', 'tun']],
  [bridgeName, ['bridge']],
]);

/**
 * Removes, in the namespace this process is in: tables `gantry`, rules and routes of our protocol, our links, the namespaces of
 * tasks pinned in RUNDIR/netns; and sets settings back to what they were. What was removed, in words. Idempotent; what
 * somebody else owns is not touched. The agent must not run: it would put all back. Faults: the first of what could not be
 * removed, after everything was tried.
 */
export async function resetNetwork(runDir: string): Promise<readonly string[]> {
  const removed: string[] = [];
  const netlink = new Netlink(0);
  try {
    removed.push(...(await removeTables()));
    for (const [family, name] of Object.entries(families)) {
      const rules = removeAll(netlink, Number(family), RTM.getRule, RTM.deleteRule, isOurRule);
      if (rules > 0) removed.push(`${rules} ${name} rules`);
      const routes = removeAll(netlink, Number(family), RTM.getRoute, RTM.deleteRoute, isOurRoute);
      if (routes > 0) removed.push(`${routes} ${name} routes`);
    }
    endKeepers(path.join(runDir, 'dns'));
    removed.push(...removeNamespaces(path.join(runDir, 'netns')), ...removeLinks(netlink));
    removed.push(...new FormerSettings(runDir).restore());
  } finally {
    netlink.close();
  }
  return removed;
}

async function removeTables(): Promise<string[]> {
  const nftables = new Nftables();
  const nftNetlink = new NftNetlink();
  try {
    const tables = nftNetlink
      .tables()
      .filter(({ name }) => name === tableName || name.startsWith(copyPrefix))
      .map(({ family, name }) => `${family} ${name}`);
    for (const table of tables) await nftables.run(`delete table ${table}\n`);
    return tables.map((table) => `table ${table}`);
  } finally {
    nftNetlink.close();
    await nftables.close();
  }
}

const isOurRoute = ({ body }: Message) =>
  body[5] === routeProtocol && attributesOf(body, 12).get(RTA_PRIORITY)?.readUInt32LE(0) === routeMetric;
const isOurRule = ({ body }: Message) => attributesOf(body, 12).get(FRA_PROTOCOL)?.[0] === routeProtocol;

/** What the kernel lists is, sent back to it, the request to delete it (as `ip route flush` does). How many there were. */
function removeAll(
  netlink: Netlink,
  family: number,
  list: number,
  remove: number,
  isOurs: (message: Message) => boolean,
): number {
  const head = Buffer.alloc(12);
  head[0] = family;
  const found = netlink.dump({ what: 'listing what is ours', type: list, flags: 0, body: head }).filter(isOurs);
  const faults = netlink.try(
    found.map(({ body }) => ({ what: 'removing what is ours', type: remove, flags: 0, body })),
  );
  const failed = faults.find((fault): fault is Fault => fault !== undefined && fault.code !== 'not-found');
  if (failed) throw failed;
  return found.length;
}

function removeNamespaces(directory: string): string[] {
  if (!fs.existsSync(directory)) return [];
  const removed = fs.readdirSync(directory).filter((name) => {
    const target = path.join(directory, name);
    const was = isPinned(target);
    removeNetns(target);
    return was;
  });
  return removed.map((name) => `namespace ${name}`);
}

/** The veths of the bridge end with their namespaces, but in the kernel's own time; here nobody waits for speed. */
function removeLinks(netlink: Netlink): string[] {
  const links = rt.listLinks(netlink);
  const bridge = links.find((link) => link.name === bridgeName && link.kind === 'bridge');
  const ports = links.filter((link) => bridge && link.master === bridge.index && isPortName(link.name));
  const own = links.filter((link) => ownLinks.get(link.name)?.includes(link.kind));
  const removed: string[] = [];
  for (const { name } of [...ports, ...own]) {
    const [fault] = netlink.try([rt.deleteLink(name)]);
    if (fault && fault.code !== 'not-found') throw fault;
    if (!fault) removed.push(`link ${name}`);
  }
  return removed;
}
