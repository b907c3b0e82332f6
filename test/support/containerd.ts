/** A private containerd for one test: own directories, no CRI, nothing left when it stops. */

import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { startProcess, type TestProcess } from './process.ts';

export interface TestContainerd {
  readonly socket: string;
  readonly directory: string;
  /** SIGKILL, and a new one over the same state. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Becomes the program in place, so that signals reach it. */
const ownMounts = ['--mount', '--propagation', 'private'];

/** Starts containerd in a mount namespace of its own, so that its mounts end with it. */
export async function startContainerd(): Promise<TestContainerd> {
  const directory = await mkdtemp(join(tmpdir(), 'gantry-containerd-'));
  const socket = join(directory, 'containerd.sock');
  const config = join(directory, 'config.toml');
  await writeFile(
    config,
    `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${socket}"
[ttrpc]
  address = ""
[debug]
  address = ""
  level = "warn"
`,
  );
  let running: TestProcess;
  const start = async () => {
    await rm(socket, { force: true });
    running = startProcess('unshare', [...ownMounts, 'containerd', '--config', config]);
    await eventually(() => {
      if (running.exited) throw new Error(`containerd did not start: ${running.output()}`);
      return readFileSync('/proc/net/unix', 'utf8').includes(socket);
    });
  };
  await start();
  return {
    socket,
    directory,
    async restart() {
      running.kill('SIGKILL');
      await running.stop();
      await start();
    },
    async stop() {
      await running.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
