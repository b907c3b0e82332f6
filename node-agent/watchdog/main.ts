/**
 * The watchdog: a small process that lives on when the agent ends, hangs or is stopped. It sends the host's beats and says in
 * them how the agent is. It writes down the lease they are granted, and kills the singletons that outlive it. Started by the agent as `main.ts RUN BUILD BOOTID`, adopted by the next one; it ends when told to, or when
 * its socket is not in RUN any more.
 */
import { mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe } from '#proto/kernel/errors.ts';
import { tcpProbe } from '#proto/kernel-probe.ts';
import type { HeartbeatTarget } from '../heartbeat.ts';
import { procStat } from '../proc-stat.ts';
import { cgroupOf, findCgroups } from '../runtime/cgroup.ts';
import { Beats } from './beats.ts';
import { conditionOf, loopLagMs } from './condition.ts';
import { openLease } from './lease-file.ts';
import { killOverdue, lookEveryMs } from './overdue.ts';
import { type AgentWord, hear, protocol, say, type WatchdogWord, watchdogPidFile, watchdogSocket } from './protocol.ts';

const [run, build, bootId] = process.argv.slice(2);
if (run === undefined || build === undefined || bootId === undefined)
  throw new Error('usage: main.ts RUN BUILD BOOTID');
const leases = join(run, 'fence');
mkdirSync(leases, { recursive: true, mode: 0o700 });
const lease = openLease(leases, bootId);
const cgroups = findCgroups();
const clock = systemClock;
const path = watchdogSocket(run);
/** How often it looks whether it is still the one in charge. */
const inChargeMs = 1_000;

// grpc-js names the server by its IP address in TLS; Node warns about it at every start (DEP0123).
process.noDeprecation = true;

interface Agent {
  readonly socket: Socket;
  readonly pid: number;
  readonly startTicks: number;
}
let agent: Agent | undefined;
let connected = false;
let turnedAtMs = clock.monotonic();
let target: HeartbeatTarget | undefined;

/** What was heard of others, for the next beat. */
let heard: { nodeId: string; answered: boolean }[] = [];
const probe = tcpProbe(clock);
/** As long as the leader waits for its own. */
const probeMs = 250;

/** Said once, until it is otherwise. `why` empty: all is well. */
const complaints = new Map<string, string>();
const complain = (of: string, why = '') => {
  if (why !== '' && complaints.get(of) !== why) process.stderr.write(`watchdog: ${of}: ${why}\n`);
  complaints.set(of, why);
};

const beats = new Beats({
  clock,
  say: () => {
    const sinceTurnMs = clock.monotonic() - turnedAtMs;
    const { pid = 0, startTicks = 0 } = agent ?? {};
    const condition = conditionOf({ stat: procStat(pid), startTicks, connected, sinceTurnMs });
    const probes = heard;
    heard = [];
    return { session: target?.session ?? 0, loopLagMs: loopLagMs(sinceTurnMs), condition, probes };
  },
  probe: (orders) => {
    for (const { nodeId, address } of orders)
      void probe(address, probeMs).then((answered) => {
        heard.push({ nodeId, answered });
        beats.beatNow();
      });
  },
  leased: (untilMs) => {
    try {
      lease.renew(untilMs);
      complain('the lease cannot be written');
    } catch (error) {
      // Then the lease ends, and the beats go on.
      complain('the lease cannot be written', describe(error));
    }
  },
  silent: () => {
    if (agent && target) say<WatchdogWord>(agent.socket, { say: 'silent', session: target.session });
  },
});

const server = createServer((socket) => {
  socket.on('error', () => {}); // 'close' follows.
  socket.on('close', () => {
    if (agent?.socket === socket) connected = false;
  });
  hear<AgentWord>(socket, (word) => take(socket, word));
});

function take(socket: Socket, word: AgentWord): void {
  switch (word.say) {
    case 'hello':
      agent = { socket, pid: word.pid, startTicks: procStat(word.pid)?.startTicks ?? 0 };
      connected = true;
      turnedAtMs = clock.monotonic();
      target = undefined;
      say<WatchdogWord>(socket, { say: 'hello', protocol, build: build!, pid: process.pid });
      break;
    case 'aim':
      target = word.target;
      if (word.target) beats.aim(word.target, word.addresses, word.identity);
      break;
    case 'turn':
      turnedAtMs = clock.monotonic();
      say<WatchdogWord>(socket, { say: 'turn', sequence: word.sequence });
      break;
    case 'end':
      process.exit(0);
  }
}

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
  const own = `${path}.${process.pid}`;
  server.listen(own, () => {
    writeFileSync(watchdogPidFile(run!), `${process.pid} ${procStat(process.pid)?.startTicks}\n`);
    renameSync(own, path);
    const { ino } = statSync(path);
    const look = () => {
      if (statSync(path, { throwIfNoEntry: false })?.ino !== ino) process.exit(0);
      clock.after(inChargeMs, look);
    };
    look();
  });
  process.on('exit', () => rmSync(own, { force: true }));
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
takeCharge();
killOverdues();
