/** The watchdog of a simulated machine: the production one in a process of its own, which agents start, find and replace. In place of sockets and /proc. */
import type { Heartbeat, HeartbeatTarget } from '#node-agent/heartbeat.ts';
import type { ProcStat } from '#node-agent/proc-stat.ts';
import type { BeatLine } from '#node-agent/watchdog/beats.ts';
import { type AgentWord, type BeatIdentity, protocol, type WatchdogWord } from '#node-agent/watchdog/protocol.ts';
import { type AgentLink, Watchdog } from '#node-agent/watchdog/watchdog.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { KernelProbe } from '#proto/kernel-probe.ts';
import { Process } from './process.ts';

/** From its start until it can be spoken to; and what six turns that nobody answers take. */
const startMs = 250;
const unansweredMs = 700;

const turned: AgentWord = { say: 'turn', sequence: 0 };

/** Links are by the simulated line: nobody looks at certificates. */
const nobody: BeatIdentity = { keyPem: '', certificatePem: '', caPem: '' };

export interface WatchdogPlaceParts {
  /** Of the machine. */
  readonly clock: Clock;
  readonly dial: (watchdog: Process, address: string) => BeatLine;
  readonly probe: (watchdog: Process) => KernelProbe;
  readonly renew: (untilMs: number) => void;
  /** HOST:PORT of the control plane's replicas. */
  readonly addresses: readonly string[];
  /** What /proc says of an agent's pid. */
  readonly statOf: (pid: number) => ProcStat | undefined;
  /** The process has ended or stands still for ever: its connections close. */
  readonly ended: (watchdog: Process) => void;
}

interface Run {
  readonly process: Process;
  readonly watchdog: Watchdog;
}

/** Where the watchdog of one boot of a machine is: there is one, or there is none. */
export class WatchdogPlace {
  readonly #parts: WatchdogPlaceParts;
  #run: Run | undefined;
  #tie: Tie | undefined;

  constructor(parts: WatchdogPlaceParts) {
    this.#parts = parts;
  }

  get process(): Process | undefined {
    return this.#run?.process;
  }
  get addresses(): readonly string[] {
    return this.#parts.addresses;
  }

  /** The beats of an agent that begins; it adopts the watchdog that is there. */
  heartbeat(agent: Process, pid: number): Heartbeat {
    this.#tie = new Tie(this, agent, pid);
    return this.#tie;
  }

  /** Its kernel closes what an agent had open. */
  agentEnded(): void {
    void this.#tie?.close();
    this.#tie = undefined;
  }

  /** A word of an agent, as soon as it can be read. */
  hear(link: AgentLink, word: AgentWord): void {
    const run = this.#run;
    run?.process.do(() => run.watchdog.take(link, word));
  }

  /** An agent's end of the socket is closed. */
  left(link: AgentLink): void {
    const run = this.#run;
    run?.process.do(() => run.watchdog.left(link));
  }

  /** One more process, which takes the place of the one before when it can be spoken to. */
  start(then: () => void): void {
    const { clock, dial, probe, renew, statOf, ended } = this.#parts;
    clock.after(startMs, () => {
      const before = this.#run;
      const process = new Process(clock);
      const watchdog = new Watchdog({
        clock: process,
        dial: (address) => dial(process, address),
        keepWarm() {},
        probe: probe(process),
        lease: { renew },
        statOf: (pid) => {
          // A main loop that turns says so ten times a second; here it is asked when somebody wants to know.
          if (this.#run?.process === process) this.#tie?.turn(watchdog);
          return statOf(pid);
        },
        build: 'simulated',
        pid: 1,
        complain: () => {},
      });
      this.#run = { process, watchdog };
      if (before) this.#end(before, ended);
      then();
    });
  }

  /** SIGKILL. An agent that runs starts another one. */
  kill(): void {
    if (!this.#run) return;
    this.#end(this.#run, this.#parts.ended);
    this.#run = undefined;
    this.#tie?.lost();
  }

  /** SIGSTOP. An agent that runs replaces it. */
  stop(): void {
    const run = this.#run;
    if (!run?.process.running) return;
    run.process.pause();
    this.#tie?.unanswered(() => this.#run === run && !run.process.running);
  }

  /** With the machine, which is off: nobody closes anything. */
  vanish(): void {
    this.#run?.process.kill();
    this.#run = undefined;
  }

  #end({ process }: Run, ended: (watchdog: Process) => void): void {
    ended(process);
    process.kill();
  }
}

/** An agent's side, as heartbeat-watchdog.ts: says hello, aims, and starts another one where there is none or it does not answer. */
class Tie implements Heartbeat {
  readonly #place: WatchdogPlace;
  readonly #agent: Process;
  readonly #pid: number;
  #link: AgentLink | undefined;
  #greeted = false;
  #starting = false;
  #target: HeartbeatTarget | undefined;
  #silent: () => void = () => {};

  constructor(place: WatchdogPlace, agent: Process, pid: number) {
    this.#place = place;
    this.#agent = agent;
    this.#pid = pid;
    if (place.process) this.#dial();
    else this.#start();
  }

  aim(target: HeartbeatTarget | undefined): void {
    this.#target = target;
    this.#sayAim();
  }
  keepWarm(): void {}
  onSilence(listener: () => void): void {
    this.#silent = listener;
  }
  async close(): Promise<void> {
    if (this.#link) this.#place.left(this.#link);
  }

  /** What the watchdog is to have heard when it looks. */
  turn(watchdog: Watchdog): void {
    if (this.#link && this.#greeted && this.#agent.running) watchdog.take(this.#link, turned);
  }
  lost(): void {
    this.#agent.after(1, () => this.#start());
  }
  /** `still`: it has not answered by then either. */
  unanswered(still: () => boolean): void {
    this.#agent.after(unansweredMs, () => {
      if (still()) this.#start();
    });
  }

  #start(): void {
    if (this.#starting) return;
    this.#starting = true;
    this.#greeted = false;
    this.#place.start(() =>
      this.#agent.do(() => {
        this.#starting = false;
        this.#dial();
      }),
    );
  }

  #dial(): void {
    const link: AgentLink = {
      say: (word) => {
        // That a watchdog still answers is found by asking it (`unanswered`).
        if (word.say === 'turn') return;
        this.#agent.after(0, () => {
          if (this.#link === link) this.#take(word);
        });
      },
    };
    this.#link = link;
    this.#greeted = false;
    this.#say({ say: 'hello', pid: this.#pid });
  }

  #take(word: WatchdogWord): void {
    if (word.say === 'silent' && word.session === this.#target?.session) this.#silent();
    if (word.say !== 'hello' || word.protocol !== protocol) return;
    this.#greeted = true;
    this.#sayAim();
  }

  #say(word: AgentWord): void {
    if (this.#link) this.#place.hear(this.#link, word);
  }

  #sayAim(): void {
    const { addresses } = this.#place;
    if (this.#greeted) this.#say({ say: 'aim', target: this.#target, addresses, identity: nobody });
  }
}
