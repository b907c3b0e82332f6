/**
 * The watchdog: a small process that lives on when the agent ends, hangs or is stopped. It sends the host's beats and says in
 * them how the agent is. It writes down the lease they are granted, and kills the singletons that outlive it. Started by the agent as `main.ts RUN BUILD BOOTID`, adopted by the next one; it ends when told to, when
 * its socket is not in RUN any more, and when the agent that started it ends before it has put it in charge.
 */
import { mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe } from '#proto/kernel/errors.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { kernelProbe } from '#proto/kernel-probe.ts';
import { procStat } from '../proc-stat.ts';
import { cgroupOf, findCgroups } from '../runtime/cgroup.ts';
import { grpcBeatLines } from './grpc-beat-line.ts';
import { openLease } from './lease-file.ts';
import { killOverdue, lookEveryMs } from './overdue.ts';
import {
  type AgentWord,
  hear,
  ownSocket,
  say,
  type WatchdogWord,
  watchdogPidFile,
  watchdogSocket,
} from './protocol.ts';
import { Watchdog } from './watchdog.ts';

const [run, build, bootId] = process.argv.slice(2);
if (run === undefined || build === undefined || bootId === undefined)
  throw new Error('usage: main.ts RUN BUILD BOOTID');
const leases = join(run, 'fence');
mkdirSync(leases, { recursive: true, mode: 0o700 });
const lease = openLease(leases, bootId);
const cgroups = findCgroups();
const clock = systemClock;
const path = watchdogSocket(run);
const own = ownSocket(run, process.pid);
/** How often it looks whether it is still the one in charge. */
const inChargeMs = 1_000;
/** Whoever has started it speaks to it by then. */
const unspokenMs = 5_000;
let inCharge = false;
let spokenTo = false;

// grpc-js names the server by its IP address in TLS; Node warns about it at every start (DEP0123).
process.noDeprecation = true;

/** Said once, until it is otherwise. `why` empty: all is well. */
const complaints = new Map<string, string>();
const complain = (of: string, why = '') => {
  if (why !== '' && complaints.get(of) !== why) process.stderr.write(`watchdog: ${of}: ${why}\n`);
  complaints.set(of, why);
};

const watchdog = new Watchdog({
  clock,
  ...grpcBeatLines(clock, systemRandom),
  probe: kernelProbe(clock),
  lease,
  statOf: procStat,
  build,
  pid: process.pid,
  complain: (why) => complain('the lease cannot be written', why),
});

const server = createServer((socket) => {
  spokenTo = true;
  const link = { say: (word: WatchdogWord) => say(socket, word) };
  socket.on('error', () => {}); // 'close' follows.
  socket.on('close', () => {
    if (!inCharge) end();
    watchdog.left(link);
  });
  hear<AgentWord>(socket, (word) => {
    if (word.say === 'end') end();
    if (word.say === 'charge') {
      takeCharge();
      link.say({ say: 'charged' });
    } else watchdog.take(link, word);
  });
});

/** The third line, behind the guards and the agent. */
function killOverdues(): void {
  try {
    for (const task of killOverdue({ clock, cgroups, groupOf: cgroupOf, lease, directory: leases }))
      process.stderr.write(`watchdog: the lease is over: singleton ${task} is killed\n`);
    complain('what outlives its lease cannot be killed');
  } catch (error) {
    complain('what outlives its lease cannot be killed', describe(error));
  }
  clock.after(lookEveryMs, killOverdues);
}

/** Put in place whole: whoever finds it finds somebody who answers. */
function takeCharge(): void {
  if (inCharge) return;
  writeFileSync(watchdogPidFile(run!), `${process.pid} ${procStat(process.pid)?.startTicks}\n`);
  renameSync(own, path);
  inCharge = true;
  const { ino } = statSync(path);
  const look = () => {
    if (statSync(path, { throwIfNoEntry: false })?.ino !== ino) end();
    clock.after(inChargeMs, look);
  };
  look();
}

/** Found by who has started it; whoever finds it can speak to it. */
function listen(): void {
  const unready = `${own}.next`;
  rmSync(unready, { force: true });
  server.listen(unready, () => renameSync(unready, own));
  process.on('exit', leave);
  clock.after(unspokenMs, () => {
    if (!spokenTo) end();
  });
}

function leave(): void {
  rmSync(own, { force: true });
}

/** At once, whatever its threads do: an exit waits for them. */
function end(): void {
  leave();
  process.kill(process.pid, 'SIGKILL');
}

/** A busy machine must not hold the beat up. Without the right to, it goes on as it is. */
function goFirst(): void {
  try {
    setPriority(-10);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SYSTEM_ERROR') throw error;
  }
}

goFirst();
listen();
killOverdues();
