/** What an agent and the watchdog of its host say to each other: a line of JSON each, over a unix socket in the run directory. */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { HeartbeatTarget } from '../heartbeat.ts';

/** Changes with every change of meaning below: a watchdog that speaks another one is replaced. */
export const protocol = 3;

/** What a TLS client shows and trusts, PEM. */
export interface BeatIdentity {
  readonly keyPem: string;
  readonly certificatePem: string;
  readonly caPem: string;
}

/** From the agent. */
export type AgentWord =
  /** First of all. `pid` is what the watchdog looks after from now on. */
  | { readonly say: 'hello'; readonly pid: number }
  /** Where to beat, and where else the control plane may be. Without a target the agent has no session: beats go on, and say so. */
  | {
      readonly say: 'aim';
      readonly target: HeartbeatTarget | undefined;
      readonly addresses: readonly string[];
      readonly identity: BeatIdentity;
    }
  /** To these replicas, and to no others, a connection is to stand open. */
  | { readonly say: 'keep-warm'; readonly addresses: readonly string[]; readonly identity: BeatIdentity }
  /** The agent's main loop turns. Answered with the same sequence. */
  | { readonly say: 'turn'; readonly sequence: number }
  /** It takes the place of the one before, if any. Until then it looks after the agent and beats, and nobody else finds it. */
  | { readonly say: 'charge' }
  /** The watchdog is not needed any more, or another one has taken over. */
  | { readonly say: 'end' };

/** From the watchdog. */
export type WatchdogWord =
  /** Answers the agent's. `build` is what it was started as: another code is replaced. */
  | { readonly say: 'hello'; readonly protocol: number; readonly build: string; readonly pid: number }
  | { readonly say: 'turn'; readonly sequence: number }
  /** Beats of this session are acknowledged: once for each aim. */
  | { readonly say: 'heard'; readonly session: number }
  /** It is in charge. */
  | { readonly say: 'charged' }
  /** Beats of this session are not acknowledged any more. */
  | { readonly say: 'silent'; readonly session: number };

/** Where the watchdog of a run directory listens; whoever is named by it is the one in charge. */
export function watchdogSocket(run: string): string {
  return join(run, 'watchdog.sock');
}

/** Where a watchdog listens that is not in charge yet. */
export function ownSocket(run: string, pid: number): string {
  return `${watchdogSocket(run)}.${pid}`;
}

/** Holds `PID STARTTICKS` of the one in charge: one that hangs says nothing any more. */
export function watchdogPidFile(run: string): string {
  return join(run, 'watchdog.pid');
}

export function say<Word>(socket: Socket, word: Word): void {
  if (socket.writable) socket.write(`${JSON.stringify(word)}\n`);
}

/** Calls `take` for every line that arrives. What is no JSON ends the connection: it is none of ours. */
export function hear<Word>(socket: Socket, take: (word: Word) => void): void {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      let word: Word;
      try {
        word = JSON.parse(line) as Word;
      } catch {
        socket.destroy();
        return;
      }
      take(word);
    }
  });
}
