/** Containers of busybox for tests: a root filesystem, a network namespace, and a runtime below a directory of its own. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findCgroups } from '#node-agent/runtime/cgroup.ts';
import { conmonRuntime } from '#node-agent/runtime/conmon-runtime.ts';
import type { ConmonRuntimeParts } from '#node-agent/runtime/container-host.ts';
import type { ContainerRequest, ImageConfig, Runtime } from '#node-agent/runtime/runtime.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { noControls } from '#proto/model/controls.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import { type ContainerSpec, containerSpec } from '#proto/model/service.ts';

export const emptyImage: ImageConfig = {
  entrypoint: [],
  command: [],
  env: [],
  user: '',
  workingDir: '',
  volumes: [],
  stopSignal: '',
  labels: {},
  exposedPorts: [],
};

export function newTaskId(): TaskId {
  return taskId(newId(systemRandom));
}

/** A request that runs `script` in busybox's shell. */
export function shellRequest(
  place: { readonly rootfs: string; readonly netnsPath: string; readonly logs: string },
  script: string,
  container: Partial<ContainerSpec> = {},
  fields: Partial<ContainerRequest> = {},
): ContainerRequest {
  const id = fields.id ?? newTaskId();
  return {
    id,
    container: containerSpec('busybox', { command: ['/bin/sh', '-c', script], ...container }),
    image: emptyImage,
    rootfs: [{ type: 'bind', source: place.rootfs, options: ['rbind'] }],
    mounts: [],
    hostname: 'web-1',
    network: { path: place.netnsPath },
    limits: noResources,
    controls: noControls,
    runtime: 'runc',
    logPath: join(place.logs, `${id}.log`),
    annotations: { 'gantry.task': id },
    ...fields,
  };
}

export interface ContainerLab {
  readonly directory: string;
  readonly rootfs: string;
  readonly netnsPath: string;
  readonly logs: string;
  /** A runtime over the same directories: a second one is the agent after a restart. */
  open(parts?: Partial<ConmonRuntimeParts>): Promise<Runtime>;
  close(parts?: Partial<ConmonRuntimeParts>): Promise<void>;
}

/** A busybox root filesystem at `path`, as an image would unpack. */
export function makeRootfs(path: string): void {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'sys', 'tmp', 'root', 'home/app', 'data/inner']) {
    mkdirSync(join(path, name), { recursive: true });
  }
  chmodSync(join(path, 'tmp'), 0o1777);
  copyFileSync('/bin/busybox', join(path, 'bin/busybox'));
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n')) {
    if (applet !== 'busybox') symlinkSync('busybox', join(path, 'bin', applet));
  }
  writeFileSync(join(path, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/home/app:/bin/sh\n');
  writeFileSync(join(path, 'etc/group'), 'root:x:0:\napp:x:1234:\nshared:x:2000:app,other\n');
}

export async function containerLab(): Promise<ContainerLab> {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-runtime-'));
  const name = directory.slice(directory.lastIndexOf('/') + 1);
  const rootfs = join(directory, 'image');
  makeRootfs(rootfs);
  execFileSync('ip', ['netns', 'add', name]);
  const runtimes: Runtime[] = [];
  const cgroupParent = `/${name}`;
  const open = async (parts: Partial<ConmonRuntimeParts> = {}) => {
    const runtime = await conmonRuntime({
      clock: systemClock,
      log: silentLog,
      root: join(directory, 'agent'),
      run: join(directory, 'run'),
      cgroupParent,
      ...parts,
    });
    runtimes.push(runtime);
    return runtime;
  };
  return {
    directory,
    rootfs,
    netnsPath: `/run/netns/${name}`,
    logs: join(directory, 'logs'),
    open,
    async close(parts = {}) {
      for (const runtime of runtimes) await runtime.close();
      const last = await open(parts);
      for (const { id } of await last.list()) await last.delete(id);
      await last.close();
      findCgroups().remove(cgroupParent);
      execFileSync('ip', ['netns', 'delete', name]);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
