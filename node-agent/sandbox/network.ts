/** The sandbox's own wires: a virtual switch, and a world beyond it; both live in namespaces of their own, nothing in the machine's. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { ipBatch } from './command.ts';
import { codeDir, type Layout, outsideAddress, worldAddress } from './layout.ts';

/** Starts a part of the sandbox in the cgroup `part`; one that runs `once` takes the sandbox with it when it ends. */
export type StartPart = (part: string, line: string, once: boolean) => ChildProcess;

/** Makes the switch and the world, and the gateway through which the forwarder enters. */
export async function startNetwork(
  start: StartPart,
  layout: Layout,
  clock: Clock,
): Promise<{ readonly switchPid: number }> {
  const hold = async (part: string) => {
    const pid = start(part, 'unshare --net sleep infinity', true).pid;
    if (pid === undefined) throw new Fault('internal', `cannot start the ${part} of the sandbox`);
    await untilApart(pid, clock);
    return pid;
  };
  const [switchPid, worldPid] = await Promise.all([hold('switch'), hold('world')]);
  await ipBatch(switchPid, [
    'link set lo up',
    'link add switch0 type bridge',
    'link set switch0 up',
    `link add world type veth peer name eth0 netns ${worldPid}`,
    'link set world master switch0 up',
  ]);
  await ipBatch(worldPid, [
    'link set lo up',
    `addr add ${outsideAddress}/32 dev lo`,
    `addr add ${worldAddress}/24 dev eth0`,
    'link set eth0 up',
  ]);
  rmSync(layout.gatewaySocket, { force: true });
  const gateway = join(codeDir, 'node-agent/sandbox/gateway.ts');
  start('world', `nsenter -t ${worldPid} -n '${process.execPath}' '${gateway}' '${layout.gatewaySocket}'`, false);
  const deadline = clock.monotonic() + 10_000;
  while (!existsSync(layout.gatewaySocket) && clock.monotonic() < deadline) await clock.sleep(10);
  return { switchPid };
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
