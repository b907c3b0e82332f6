/** `gantry cluster show` and `gantry cluster set`. */
import type { ClusterConfig } from '#proto/gen/gantry/v1/agent.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';
import { table } from './words.ts';

export function show(options: CommonOptions): Promise<number> {
  return withSession(options, async (session) => {
    const { cluster } = await session.call(methods.info, {});
    if (session.json) session.printJson(cluster);
    else printSettings(session, cluster);
    return exitCodes.ok;
  });
}

/** `words`: NAME=VALUE each. */
export async function set(options: CommonOptions, words: readonly string[]): Promise<number> {
  const settings: Record<string, string> = {};
  for (const word of words) {
    const cut = word.indexOf('=');
    if (cut <= 0)
      throw new Fault('invalid', `"${word}" is not a setting`, {
        remedy: 'write NAME=VALUE, such as encryption=wireguard',
      });
    settings[word.slice(0, cut)] = word.slice(cut + 1);
  }
  return withSession(options, async (session) => {
    const { cluster, notes } = await session.call(methods.setCluster, { settings });
    if (session.json) session.printJson({ ...cluster, notes });
    else {
      printSettings(session, cluster);
      for (const note of notes) session.print(session.colours.yellow(note));
    }
    return exitCodes.ok;
  });
}

function printSettings(session: Session, cluster: ClusterConfig | undefined): void {
  if (!cluster) {
    session.print('The cluster has no record yet.');
    return;
  }
  const rows = [
    ['network', cluster.network, "addresses of nodes' tasks"],
    ['vip-network', cluster.vipNetwork, 'addresses of services'],
    ['network6', cluster.network6, 'IPv6 addresses: it, and the IPv4 address'],
    ['domain', cluster.domain, 'DNS names of services'],
    ['encapsulation', cluster.encapsulation, 'VXLAN between nodes: auto (where they share no link), always, never'],
    ['encryption', cluster.encryption || 'off', 'of all between nodes: wireguard, off'],
    ['trash', span(cluster.trashMs), 'how long `gantry undo` brings back what was removed: 24h, 7d, off'],
    [
      'orphan-after',
      span(cluster.orphanAfterMs),
      'how long tasks of a node that is down may come back with it: 24h, 30m, off',
    ],
    [
      'agent-away-limit',
      span(cluster.agentAwayLimitMs),
      'how long tasks of a host that lives without its agent are left alone: 30s, 10m, off (as long as it lives)',
    ],
    [
      'flap-damping',
      span(cluster.flapDampingMs),
      'how long a node that was down twice is passed over when it is back, twice as long each further time: 10s, off',
    ],
    [
      'rebalance',
      String(cluster.rebalancePerMinute || 'off'),
      'tasks moved in a minute to even out nodes; off: when asked',
    ],
    ['rebalance-at-once', String(cluster.rebalanceAtOnce), 'how many of them'],
    ['strategy', cluster.strategy, 'of services that name none: spread, binpack'],
  ];
  session.print(table(['SETTING', 'VALUE', 'MEANING'], rows, session.colours.bold));
}

function span(ms: number): string {
  if (ms === 0) return 'off';
  if (ms % 60_000 !== 0) return `${ms / 1_000}s`;
  return ms % 3_600_000 === 0 ? `${ms / 3_600_000}h` : `${ms / 60_000}m`;
}
