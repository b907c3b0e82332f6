/**
 * Whether the kernel of a host lives, whatever its processes do. It is asked two things: a connection to a port where nobody listens, which it
 * refuses, and, where that is not answered at once because a firewall drops it, an ICMP echo. Node has no sockets for ICMP, and a
 * library for them would be in memory on every host for ever, so `ping` asks: it is there (bootstrap.sh), works across routers
 * as ARP does not, and is started for hosts that are silent to the first question alone, a few at a time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { connect, isIP } from 'node:net';
import type { Clock } from './kernel/clock.ts';

/** Nobody listens there (tcpmux); somebody who does is an answer too. */
const port = 1;
/** How long an answer is waited for, by the leader and by peers: kernels answer in far less, whatever else their machines do. */
export const probeMs = 250;
/** A lost packet is no silence: when each question is asked, ms. */
const connectAtMs = [0, 100, 200];
const pingAtMs = [10, 100];
/** What a ping has from its start: on a busy machine that may be late. */
const echoMs = 100;
/** At once, of one process: where many hosts fall silent together, the first question has to do. */
const mostPings = 8;
/** To start one blocks this process for some milliseconds: for no more than this, of each second. */
const mostSpawningMs = 250;

export type KernelProbe = (address: string, withinMs: number) => Promise<boolean>;

/** The probe of the machine's own network. Resolves true with the first answer, else a moment after `withinMs`; never rejects. */
export function kernelProbe(clock: Clock): KernelProbe {
  let pings = 0;
  let spawning = { sinceMs: 0, ms: 0 };
  return (address, withinMs) =>
    new Promise((resolve) => {
      const open = new Set<{ end(): void }>();
      const timers = [
        ...connectAtMs.map((ms) => clock.after(ms, knock)),
        // An answer that has come while this process was late is read before the second timer.
        ...pingAtMs.map((ms) => clock.after(ms, () => timers.push(clock.after(0, ping)))),
      ];
      let untilMs = clock.monotonic() + withinMs;
      let end = clock.after(withinMs, close);

      function knock(): void {
        const socket = connect({ host: address, port });
        open.add({ end: () => socket.destroy() });
        socket.on('connect', () => finish(true));
        socket.on('error', ({ code }: NodeJS.ErrnoException) => {
          if (code === 'ECONNREFUSED' || code === 'ECONNRESET') finish(true);
        });
      }
      function ping(): void {
        const beganMs = clock.monotonic();
        if (beganMs - spawning.sinceMs > 1_000) spawning = { sinceMs: beganMs, ms: 0 };
        if (pings === mostPings || spawning.ms > mostSpawningMs || isIP(address) === 0) return;
        pings++;
        // It ends by itself, too, should this process.
        const child: ChildProcess = spawn('ping', ['-n', '-q', '-c', '1', '-w', '1', address], { stdio: 'ignore' });
        spawning.ms += clock.monotonic() - beganMs;
        open.add({ end: () => child.kill('SIGKILL') });
        child.on('spawn', () => {
          untilMs = Math.max(untilMs, clock.monotonic() + echoMs);
        });
        child.on('error', () => {}); // There is none here: 'close' follows.
        child.on('close', (code) => {
          pings--;
          if (code === 0) finish(true);
        });
      }
      function close(): void {
        const leftMs = untilMs - clock.monotonic();
        // What has arrived while this process was late is read in the turn before the second timer.
        end = leftMs > 0 ? clock.after(leftMs, close) : clock.after(0, () => finish(false));
      }
      function finish(answered: boolean): void {
        for (const timer of timers) timer.cancel();
        end.cancel();
        for (const one of open) one.end();
        open.clear();
        resolve(answered);
      }
    });
}
