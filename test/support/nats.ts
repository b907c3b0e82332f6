/** A nats-server with JetStream for one test, on loopback, that can be killed and come back with its data. */
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { startProcess, type TestProcess } from './process.ts';
import { freePort } from './registry.ts';

export interface TestNats {
  readonly url: string;
  /** SIGKILL; its data stays. */
  kill(): Promise<void>;
  /** As its disk were lost: to be called while it is dead. */
  loseData(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts it; `args` are added to its command line. */
export async function startNats(args: readonly string[] = []): Promise<TestNats> {
  const directory = await mkdtemp(join(tmpdir(), 'gantry-nats-'));
  const port = await freePort();
  let running: TestProcess | undefined;
  const start = async () => {
    running = startProcess('nats-server', [
      '--jetstream',
      '--store_dir',
      directory,
      '--addr',
      '127.0.0.1',
      '--port',
      String(port),
      ...args,
    ]);
    await eventually(() => {
      if (running?.exited) throw new Error(`nats-server did not start: ${running.output()}`);
      return new Promise<boolean>((resolve) => {
        const socket = net.connect(port, '127.0.0.1', () => {
          socket.destroy();
          resolve(true);
        });
        socket.on('error', () => resolve(false));
      });
    });
  };
  await start();
  return {
    url: `${args.includes('--tlsverify') ? 'tls' : 'nats'}://127.0.0.1:${port}`,
    start,
    async kill() {
      running?.kill('SIGKILL');
      await running?.stop();
    },
    loseData: () => rm(join(directory, 'jetstream'), { recursive: true, force: true }),
    async stop() {
      await running?.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
