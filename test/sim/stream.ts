/** One two-way stream on the simulated line: both ends of it, and what is on its way between them, in order. */
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { MessageStream, StreamListener } from '#proto/stream.ts';
import type { Process } from './process.ts';

/** Who is at an end of a stream: the machine, as links know it, and the process in it. */
export interface Party {
  readonly machine: string;
  readonly process: Process;
}

/** What streams run over. */
export interface Line {
  readonly clock: Clock;
  isCut(from: string, to: string): boolean;
  /** Of one message in a stream. */
  transitMs(from: string, to: string): number;
  /** Until a message is sent again once the line is mended. */
  retransmitMs(): number;
}

type Item<T> = { readonly open: true } | { readonly message: T } | { readonly end: Fault | undefined };

/** Messages on their way before `send` says that it is full. */
const windowSize = 64;

export interface Answer {
  readonly party: Party;
  readonly accept: (server: MessageStream<unknown, unknown>) => void;
}

/** Both ends of one stream, and what is on its way between them. */
export class Stream {
  readonly caller: End;
  readonly #server: End;
  readonly #line: Line;
  gone: () => void = () => {};

  constructor(
    line: Line,
    caller: Party,
    machine: string,
    copyUp: (message: unknown) => unknown,
    copyDown: (message: unknown) => unknown,
    answer: () => Answer | undefined,
  ) {
    this.#line = line;
    this.caller = new End(line, caller.machine, machine, copyUp);
    this.#server = new End(line, machine, caller.machine, copyDown);
    this.caller.peer = this.#server;
    this.#server.peer = this.caller;
    this.caller.process = caller.process;
    this.#server.opened = () => {
      const found = answer();
      if (!found) {
        this.#server.close(new Fault('unavailable', `nobody listens at ${machine}`));
        return;
      }
      this.#server.process = found.party.process;
      found.party.process.do(() => found.accept(this.#server));
    };
    this.caller.ended = () => this.gone();
    this.#server.ended = () => this.gone();
    this.caller.transmit({ open: true });
  }

  touches(machine: string): boolean {
    return this.caller.machine === machine || this.#server.machine === machine;
  }
  /** Nothing arrives at either end for so long; then all of it does. */
  hinder(ms: number): void {
    for (const end of [this.caller, this.#server]) end.hinder(ms);
  }
  mended(from: string, to: string): void {
    for (const end of [this.caller, this.#server])
      if (end.machine === from && end.peer.machine === to) end.retransmit();
  }
  reset(): void {
    this.gone();
    for (const end of [this.caller, this.#server]) {
      this.#line.clock.after(1, () => end.break(new Fault('unavailable', 'the connection was reset')));
    }
  }
  left(process: Process): void {
    for (const end of [this.caller, this.#server]) {
      if (end.process === process) end.close(new Fault('unavailable', 'the other end has died'));
    }
  }
  vanished(machine: string): void {
    for (const end of [this.caller, this.#server]) if (end.machine === machine) end.vanish();
  }
}

class End implements MessageStream<unknown, unknown> {
  peer!: End;
  /** The process that holds this end; none before the call has arrived. */
  process: Process | undefined;
  readonly machine: string;
  opened: () => void = () => {};
  ended: () => void = () => {};
  readonly #line: Line;
  readonly #to: string;
  readonly #copy: (message: unknown) => unknown;
  #listener: StreamListener<unknown> | undefined;
  /** Sent, and not arrived. Every arrival takes the first: in order, however long each took. */
  readonly #way: Item<unknown>[] = [];
  readonly #arrives = () => this.#arrive();
  #stalled = 0;
  #hinderedUntilMs = 0;
  #full = false;
  readonly #unread: Item<unknown>[] = [];
  #paused = false;
  #closed = false;
  #deaf = false;

  constructor(line: Line, machine: string, to: string, copy: (message: unknown) => unknown) {
    this.#line = line;
    this.machine = machine;
    this.#to = to;
    this.#copy = copy;
  }

  listen(listener: StreamListener<unknown>): void {
    this.#listener = listener;
    this.process?.after(0, () => this.#read());
  }
  send(message: unknown): boolean {
    if (this.#closed) return true;
    this.transmit({ message: this.#copy(message) });
    this.#full ||= this.#way.length >= windowSize;
    return !this.#full;
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    this.#read();
  }
  close(fault?: Fault): void {
    if (this.#closed) return;
    this.#closed = true;
    this.transmit({ end: fault });
  }

  transmit(item: Item<unknown>): void {
    this.#way.push(item);
    this.#line.clock.after(this.#line.transitMs(this.machine, this.#to), this.#arrives);
  }
  hinder(ms: number): void {
    const untilMs = this.#line.clock.monotonic() + ms;
    this.#hinderedUntilMs = Math.max(this.#hinderedUntilMs, untilMs);
  }
  retransmit(): void {
    for (; this.#stalled > 0; this.#stalled--) {
      this.#line.clock.after(this.#line.retransmitMs(), this.#arrives);
    }
  }
  /** The connection is broken; the process at this end learns it. */
  break(fault: Fault): void {
    this.#way.length = 0;
    if (this.#closed) return;
    this.#closed = true;
    this.process?.do(() => this.#listener?.closed(fault));
  }
  /** This end's machine is gone, and what it had sent with it. */
  vanish(): void {
    this.#closed = true;
    this.#deaf = true;
    this.#way.length = 0;
  }

  #arrive(): void {
    if (this.#hinderedUntilMs > 0) {
      const waitMs = this.#hinderedUntilMs - this.#line.clock.monotonic();
      if (waitMs > 0) {
        this.#line.clock.after(waitMs, this.#arrives);
        return;
      }
      this.#hinderedUntilMs = 0;
    }
    if (this.#line.isCut(this.machine, this.#to)) {
      this.#stalled++;
      return;
    }
    if (this.peer.#deaf) return;
    const item = this.#way.shift();
    if (!item) return;
    if (this.#full && this.#way.length < windowSize / 2) {
      this.#full = false;
      if (!this.#closed) this.process?.do(() => this.#listener?.drain?.());
    }
    const { peer } = this;
    if ('end' in item) this.ended();
    if ('open' in item) peer.opened();
    else if (peer.process?.running) peer.#take(item);
    else if (peer.process) peer.process.do(() => peer.#take(item));
    else if ('end' in item) peer.#take(item);
  }

  #take(item: Item<unknown>): void {
    this.#unread.push(item);
    this.#read();
  }

  #read(): void {
    while (this.#listener && !this.#paused && !this.#closed && this.#unread.length > 0) {
      const item = this.#unread.shift()!;
      if ('message' in item) this.#listener.message(item.message);
      else if ('end' in item) {
        this.#closed = true;
        this.#listener.closed(item.end);
      }
    }
  }
}
