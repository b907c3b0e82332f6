/** The sandbox's own wires: virtual switches, routers between them, and a world beyond; all live in namespaces of their own, nothing in the machine's. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { cardLines, ipBatch, runCommand } from './command.ts';
import { codeDir, type Layout } from './layout.ts';
import { bridges, natPlaces, outside, routerPlaces, type Topology, worldPlace } from './topology.ts';

/** Starts a part of the sandbox in the cgroup `part`; one that runs `once` takes the sandbox with it when it ends. */
export type StartPart = (part: string, line: string, once: boolean) => ChildProcess;

/** Makes the switch, the routers and the world, and the gateway through which the forwarder enters. */
export async function startNetwork(
  start: StartPart,
  layout: Layout,
  topology: Topology,
  clock: Clock,
): Promise<{ readonly switchPid: number }> {
  const hold = async (part: string) => {
    const pid = start(part, 'unshare --net sleep infinity', true).pid;
    if (pid === undefined) throw new Fault('internal', `cannot start the ${part} of the sandbox`);
    await untilApart(pid, clock);
    return pid;
  };
  const [switchPid, worldPid] = await Promise.all([hold('switch'), hold('world')]);
  const used = [
    bridges.first,
    ...(topology.layout === 'routed' ? [bridges.second] : []),
    ...(topology.nat.length > 0 ? [bridges.behind] : []),
  ];
  await ipBatch(switchPid, [
    'link set lo up',
    ...used.flatMap((bridge) => [`link add ${bridge} type bridge`, `link set ${bridge} up`]),
    ...cable('world', bridges.first, 'eth0', worldPid),
  ]);
  const { addresses, routes } = worldPlace(topology);
  await ipBatch(worldPid, [
    'link set lo up',
    `addr add ${outside.address}/32 dev lo`,
    ...(topology.ipv6 ? [`addr add ${outside.address6}/128 dev lo`] : []),
    ...cardLines('eth0', addresses, routes),
  ]);
  if (topology.layout === 'routed') await startRouter(await hold('router'), switchPid, topology);
  if (topology.nat.length > 0) await startNat(await hold('nat'), switchPid, topology);
  rmSync(layout.gatewaySocket, { force: true });
  const gateway = join(codeDir, 'node-agent/sandbox/gateway.ts');
  const words = [layout.gatewaySocket, outside.address, ...(topology.ipv6 ? [outside.address6] : [])];
  const line = [process.execPath, gateway, ...words].map((word) => `'${word}'`).join(' ');
  start('world', `nsenter -t ${worldPid} -n ${line}`, false);
  const deadline = clock.monotonic() + 10_000;
  while (!existsSync(layout.gatewaySocket) && clock.monotonic() < deadline) await clock.sleep(10);
  return { switchPid };
}

/** Between the two links. */
async function startRouter(pid: number, switchPid: number, topology: Topology): Promise<void> {
  const { cards, routes } = routerPlaces(topology);
  await ipBatch(
    switchPid,
    cards.flatMap(({ bridge }, index) => cable(`router${index}`, bridge, `eth${index}`, pid)),
  );
  await forward(pid);
  await ipBatch(pid, [
    'link set lo up',
    ...cards.flatMap(({ addresses }, index) => cardLines(`eth${index}`, addresses)),
    ...routes.map((route) => `route replace ${route}`),
  ]);
}

/** Between the first link and those whose addresses it translates. */
async function startNat(pid: number, switchPid: number, topology: Topology): Promise<void> {
  const { outer, inner, network } = natPlaces(topology);
  await ipBatch(switchPid, [
    ...cable('nat0', bridges.first, 'eth0', pid),
    ...cable('nat1', bridges.behind, 'eth1', pid),
  ]);
  await forward(pid);
  await ipBatch(pid, [
    'link set lo up',
    ...cardLines('eth1', [inner]),
    ...cardLines('eth0', outer.addresses, outer.routes),
  ]);
  const rules = `table ip translate {
    chain out { type nat hook postrouting priority srcnat; ip saddr ${network} oifname eth0 masquerade; }
    chain in { type filter hook forward priority filter; iifname eth0 ct state new drop; }
  }`;
  await runCommand('nsenter', ['-t', String(pid), '-n', 'nft', rules]);
}

/** A new namespace takes over what the machine has set. */
function forward(pid: number): Promise<string> {
  const lines = [
    'echo 1 > /proc/sys/net/ipv4/ip_forward',
    'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter',
    'if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; fi',
  ];
  return runCommand('nsenter', ['-t', String(pid), '-n', 'sh', '-ec', lines.join('\n')]);
}

function cable(port: string, bridge: string, card: string, pid: number): string[] {
  return [`link add ${port} type veth peer name ${card} netns ${pid}`, `link set ${port} master ${bridge} up`];
}

async function untilApart(pid: number, clock: Clock): Promise<void> {
  const own = readlinkSync('/proc/self/ns/net');
  const deadline = clock.monotonic() + 5_000;
  while (clock.monotonic() < deadline) {
    try {
      if (readlinkSync(`/proc/${pid}/ns/net`) !== own) return;
    } catch {
      break;
    }
    await clock.sleep(5);
  }
  throw new Fault('unavailable', 'the machine lets us make no network namespace', { remedy: 'run as root' });
}
