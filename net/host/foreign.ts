/** What others on this machine have set up that stands in the way of tasks: said, with the remedy, and never changed. */
import { formatAddress, parseCidr } from '#net/plan/cidr.ts';
import { bridgeName } from '#net/plan/node-plan.ts';
import { tableName } from '#net/plan/rules.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Netlink } from './netlink.ts';
import type { Nftables } from './nftables.ts';
import * as routing from './routing.ts';
import * as rt from './rtnetlink.ts';
import { readSysctl } from './sysctl.ts';

/**
 * Foreign chains that drop what is forwarded unless a rule of theirs accepts it (as Docker's FORWARD does), in tables that
 * say nothing of `network` or our bridge, and are not `off`. An accept of ours is no help: a packet must pass every table.
 */
export async function foreignDrops(
  nftables: Nftables,
  off: ReadonlySet<string>,
  network: string,
): Promise<readonly Fault[]> {
  const obstacles: Fault[] = [];
  for (const { chain } of await nftables.list('list chains', { terse: true })) {
    if (chain?.hook !== 'forward' || chain.policy !== 'drop' || !['ip', 'inet'].includes(String(chain.family)))
      continue;
    const table = `${chain.family} ${chain.table}`;
    if (table === `ip ${tableName}` || off.has(table)) continue;
    const text = await listed(nftables, table);
    const base = formatAddress(parseCidr(network).base);
    if ([`"${bridgeName}"`, ` ${base}/`, ` ${base}-`].some((name) => text.includes(name))) continue;
    const what = `chain ${chain.name} of table ${table} drops what is forwarded by default, and names neither ${network} nor ${bridgeName}`;
    const remedy = remedyFor(table, String(chain.name), text.includes('chain DOCKER-USER {'), network);
    obstacles.push(new Fault('precondition', `${what}: packets of tasks end there`, { remedy }));
  }
  return obstacles;
}

async function listed(nftables: Nftables, table: string): Promise<string> {
  try {
    return await nftables.text(`list table ${table}`, { terse: true });
  } catch (error) {
    // Gone meanwhile, or beyond this nft: then nothing can be said of it.
    if (isFault(error, 'invalid')) return '';
    throw error;
  }
}

function remedyFor(table: string, chain: string, docker: boolean, network: string): string {
  const accept = (command: string, from: string, to: string, verdict: string) =>
    `${command} ${from} ${network} ${verdict} && ${command} ${to} ${network} ${verdict}`;
  return table === 'ip filter' && chain === 'FORWARD'
    ? accept(`iptables -I ${docker ? 'DOCKER-USER' : chain}`, '-s', '-d', '-j ACCEPT')
    : accept(`nft insert rule ${table} ${chain}`, 'ip saddr', 'ip daddr', 'accept');
}

/** Nobody's address: the way to it is the way to clients outside. */
const anybody = '192.0.2.1';

/**
 * Strict reverse path filtering on the link of `address` where the way to clients is another link: what clients send by
 * another node would be dropped here.
 */
export function strictReversePath(netlink: Netlink, address: string): readonly Fault[] {
  const index = rt.listAddresses(netlink).find((item) => item.cidr.startsWith(`${address}/`))?.index;
  const link = rt.listLinks(netlink).find((item) => item.index === index)?.name;
  if (link === undefined || routing.wayTo(netlink, anybody)?.link === index) return [];
  const modes = ['all', link].map((name) => Number(readSysctl(`net.ipv4.conf.${name}.rp_filter`) ?? 0));
  if (Math.max(...modes) !== 1) return [];
  const what = `rp_filter is strict on ${link}, and clients are reached by another link`;
  const remedy = `sysctl -w net.ipv4.conf.${link}.rp_filter=2`;
  return [new Fault('precondition', `${what}: what they send by another node is dropped here`, { remedy })];
}
