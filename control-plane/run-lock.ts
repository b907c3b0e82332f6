/** One control plane to a data directory: what is put into it beneath one that runs is taken for damage, or written over. */
import { once } from 'node:events';
import { closeSync, openSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { Fault } from '#proto/kernel/errors.ts';

/** Holds `data` until the returned function is called or the process ends, however it ends. Fault `conflict` where another process holds it. */
export async function holdDataDirectory(data: string): Promise<() => void> {
  await assertNoneRuns(data);
  const directory = openSync(data, 'r');
  const path = socketIn(directory);
  rmSync(path, { force: true });
  const server = createServer((caller) => caller.destroy());
  server.listen(path);
  try {
    await once(server, 'listening');
  } catch (error) {
    closeSync(directory);
    throw error;
  }
  server.unref();
  return () => {
    server.close();
    rmSync(path, { force: true });
    closeSync(directory);
  };
}

/** Faults: `conflict` where a control plane runs on `data`, in whatever network namespace. */
export async function assertNoneRuns(data: string): Promise<void> {
  const directory = openSync(data, 'r');
  try {
    if (await answers(socketIn(directory)))
      throw new Fault('conflict', `a control plane is at work in ${data}`, {
        remedy: 'stop it first (systemctl stop gantry-control-plane), or give another --data',
      });
  } finally {
    closeSync(directory);
  }
}

/** By the open directory: a socket's path may have no more than 107 bytes. */
function socketIn(directory: number): string {
  return `/proc/self/fd/${directory}/running.sock`;
}

/** Whether somebody listens there. */
export function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
