/** Whether the kernel of a host lives: it refuses a connection to a port where nobody listens, whatever its processes do. */
import { connect } from 'node:net';
import type { Clock } from './kernel/clock.ts';

/** Nobody listens there (tcpmux); somebody who does is an answer too. */
const port = 1;
/** A lost packet is no silence: so many attempts, so far apart. */
const attempts = 3;
const apartMs = 100;

export type KernelProbe = (address: string, withinMs: number) => Promise<boolean>;

/** The probe of the machine's own network. Resolves true with the first answer; never rejects. */
export function tcpProbe(clock: Clock): KernelProbe {
  return (address, withinMs) =>
    new Promise((resolve) => {
      const sockets = new Set<ReturnType<typeof connect>>();
      const timers = Array.from({ length: attempts }, (_, index) => clock.after(index * apartMs, attempt));
      // What has arrived while this process was late is read in the turn before the second timer.
      let end = clock.after(withinMs, () => {
        end = clock.after(0, () => finish(false));
      });
      function attempt(): void {
        const socket = connect({ host: address, port });
        sockets.add(socket);
        socket.on('connect', () => finish(true));
        socket.on('error', ({ code }: NodeJS.ErrnoException) => {
          if (code === 'ECONNREFUSED' || code === 'ECONNRESET') finish(true);
        });
      }
      function finish(answered: boolean): void {
        for (const timer of timers) timer.cancel();
        end.cancel();
        for (const socket of sockets) socket.destroy();
        resolve(answered);
      }
    });
}
