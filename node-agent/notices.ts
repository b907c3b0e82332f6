/** What happens on a node by itself, gathered for the event log: each thing said at once, repetitions once in a while, and never a flood. */
import type { NodeNotice } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';

/** What belongs together arrives within this. */
const gatherMs = 50;
/** How long repetitions are only counted after something was said. */
const quietMs = 10_000;
/** Different things said in that time; the others are only counted. */
const distinctLimit = 20;
/** What waits for a session at most; the oldest is forgotten. */
const waitingLimit = 100;

export class Notices {
  readonly #clock: Clock;
  /** False where there is nobody to tell at the moment. */
  readonly #send: (notices: NodeNotice[]) => boolean;
  /** What was said since the quiet began, and how often it has happened since. */
  #said = new Map<string, number>();
  #others = 0;
  #waiting: NodeNotice[] = [];
  #gathering: Timer | undefined;
  #quiet: Timer | undefined;

  constructor(parts: { readonly clock: Clock; readonly send: (notices: NodeNotice[]) => boolean }) {
    this.#clock = parts.clock;
    this.#send = parts.send;
  }

  /** Something of ours in the kernel was put right. */
  repaired(message: string): void {
    this.#quiet ??= this.#clock.after(quietMs, () => this.#sumUp());
    const repeated = this.#said.get(message);
    if (repeated !== undefined) this.#said.set(message, repeated + 1);
    else if (this.#said.size >= distinctLimit) this.#others++;
    else {
      this.#said.set(message, 0);
      this.#say(message, 1);
    }
  }

  /** Tells what waits; to be called when a session begins. */
  flush(): void {
    this.#gathering?.cancel();
    this.#gathering = undefined;
    if (this.#waiting.length > 0 && this.#send(this.#waiting)) this.#waiting = [];
  }

  close(): void {
    this.flush();
    this.#gathering?.cancel();
    this.#quiet?.cancel();
  }

  #say(message: string, count: number): void {
    this.#waiting.push({ action: 'repaired', message, count, atMs: this.#clock.now() });
    if (this.#waiting.length > waitingLimit) this.#waiting.shift();
    this.#gathering ??= this.#clock.after(gatherMs, () => this.flush());
  }

  /** What goes on is said once for each quiet time; what has ended may be said at once when it comes again. */
  #sumUp(): void {
    const goingOn = [...this.#said].filter(([, count]) => count > 0);
    const others = this.#others;
    this.#said = new Map(goingOn.map(([message]) => [message, 0]));
    this.#others = 0;
    this.#quiet = goingOn.length + others > 0 ? this.#clock.after(quietMs, () => this.#sumUp()) : undefined;
    for (const [message, count] of goingOn) this.#say(message, count);
    if (others > 0) this.#say('other things of the network, see the log of the agent', others);
  }
}
