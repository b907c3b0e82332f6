/** A task in its own namespace: its address and way out, who else answers for the address, and what listens. */
import { isPinned, openNetns } from '#net/host/netns.ts';
import * as rt from '#net/host/rtnetlink.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import { macOf } from '#net/plan/mac.ts';
import { bridgeName, portNameOf } from '#net/plan/node-plan.ts';
import type { ProbeTask } from '#proto/gen/gantry/v1/probe.ts';
import { broken, good, type Say } from './fact.ts';
import { isOpen, type Listener, listeners } from './listeners.ts';
import { wayOf } from './route-lookup.ts';
import { arpOwners } from './sockets.ts';
import type { View } from './view.ts';

const arpWaitMs = 400;

export async function probeTask(view: View, probe: ProbeTask, say: Say): Promise<void> {
  if (probe.taskId === '') {
    // It has its node's network.
    listening(probe, listeners(undefined), say);
    return;
  }
  const path = view.netnsOf(probe.taskId);
  if (!isPinned(path)) {
    say(
      broken(
        'address',
        `${probe.name} has no network namespace at ${path}`,
        `gantry restart its service; the agent's log says who removed it`,
      ),
    );
    return;
  }
  ownEnd(view, probe, path, say);
  listening(probe, listeners(path), say);
  await conflict(view, probe, say);
}

function ownEnd(view: View, probe: ProbeTask, path: string, say: Say): void {
  using netns = openNetns(path);
  const gateway = gatewayOf(view.plan.input.subnet);
  const restart = `the task's network was changed from within or by hand: replace it with gantry restart`;
  const link = rt.findLink(netns.netlink, 'eth0');
  if (!link) {
    say(broken('address', `${probe.name} has no link eth0`, restart));
    return;
  }
  const has = rt
    .listAddresses(netns.netlink)
    .filter(({ index }) => index === link.index)
    .map(({ cidr }) => cidr.split('/')[0]);
  if (!link.up) say(broken('address', `eth0 of ${probe.name} is down`, restart));
  else if (!has.includes(probe.address))
    say(
      broken('address', `eth0 of ${probe.name} has ${has.join(', ') || 'no address'}, not ${probe.address}`, restart, {
        wanted: probe.address,
        seen: has.join(' '),
      }),
    );
  else
    say(good('address', `${probe.name} has ${probe.address} on eth0`, { wanted: probe.address, seen: has.join(' ') }));
  const way = wayOf(netns.netlink, { to: '192.0.2.1' });
  if (typeof way === 'string' || way.gateway !== gateway) {
    const seen = typeof way === 'string' ? 'none' : `via ${way.gateway || 'the link'}`;
    say(
      broken('route', `the default route of ${probe.name} is ${seen}, not via ${gateway}`, restart, {
        wanted: `default via ${gateway}`,
        seen,
      }),
    );
  } else say(good('route', `${probe.name} sends everything to ${gateway}`));
}

/** Exactly one must answer for the address on the bridge: the task's own MAC. */
async function conflict(view: View, probe: ProbeTask, say: Say): Promise<void> {
  const bridge = rt.findLink(view.netlink, bridgeName);
  if (!bridge) return;
  const from = gatewayOf(view.plan.input.subnet);
  const macs = await arpOwners(view.clock, {
    link: bridge.index,
    mac: bridge.mac,
    from,
    address: probe.address,
    waitMs: arpWaitMs,
  });
  const own = macOf(probe.address);
  const others = [...macs].filter((mac) => mac !== own);
  if (others.length > 0) {
    const who = others.join(' and ');
    say(
      broken(
        'conflict',
        `${who} answers for ${probe.address} of ${probe.name} too`,
        `find the link with the MAC ${who} (bridge fdb show br ${bridgeName}; ip -all netns exec ip link), and take the address ${probe.address} off it`,
        { subject: probe.address, wanted: own, seen: [...macs].join(' ') },
      ),
    );
  } else if (macs.size === 0) {
    say(
      broken(
        'address',
        `nobody on ${bridgeName} answers for ${probe.address}`,
        `is ${portNameOf(probe.taskId)} up and on ${bridgeName}? ip link show ${portNameOf(probe.taskId)}; else gantry restart the service`,
        { subject: probe.address },
      ),
    );
  } else say(good('conflict', `nobody else answers for ${probe.address}`, { seen: own }));
}

function listening(probe: ProbeTask, found: readonly Listener[], say: Say): void {
  for (const port of probe.ports) {
    const there = found.filter((one) => one.protocol === port.protocol && one.port === port.target);
    const name = `${port.target}/${port.protocol}`;
    const listed = [...new Set(found.filter(isOpen).map((one) => `${one.port}/${one.protocol}`))].sort();
    if (there.some(isOpen))
      say(good('listener', `${probe.name} listens on ${name}`, { wanted: name, seen: listed.join(' ') }));
    else if (there.length > 0)
      say(
        broken(
          'listener',
          `${probe.name} listens on ${name} of ${there[0]?.address} only`,
          'have the program listen on 0.0.0.0',
          { wanted: name, seen: `${there[0]?.address}:${port.target}` },
        ),
      );
    else {
      const else_ = listed.length > 0 ? `; it listens on ${listed.join(', ')}` : '; it listens on no port';
      say(
        broken(
          'listener',
          `nothing in ${probe.name} listens on ${name}${else_}`,
          `have the program listen on ${port.target}, or name the port it has in the Compose file; gantry logs ${probe.name} may say why it does not`,
          { wanted: name, seen: listed.join(' ') },
        ),
      );
    }
  }
}
