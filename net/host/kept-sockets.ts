/**
 * The name server's sockets outlive the agent by a minute: a shell that does nothing keeps them open, so that questions asked
 * while an agent is killed and begun anew wait for the next one, instead of being refused.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { descriptorOf, isBoundTo, serverSocket } from './inet-sockets.ts';
import { closeFd } from './libc.ts';

/** Descriptors, of which whoever gets them is the owner. */
export interface ServerSockets {
  readonly udp: number;
  readonly tcp: number;
}

/** Who keeps the sockets of an address: the process of that pid that began at that tick. */
interface Keeper {
  readonly pid: number;
  readonly startTicks: number;
  readonly port: number;
}

/** The keeper's descriptors. */
const kept = { udp: 3, tcp: 4 } as const;
/** It waits for the agent's end of a pipe to close, which a kill closes too, and then for the next agent. */
const script = 'cat; exec sleep 60';

export class KeptSockets {
  readonly #directory: string;
  readonly #log: Log;
  readonly #children = new Map<string, ChildProcess>();

  /** `directory`: of this boot, where the keepers are remembered. */
  constructor(directory: string, log: Log) {
    this.#directory = directory;
    this.#log = log;
  }

  /** The sockets that an agent before has left, else new ones. Faults as `serverSocket`. */
  open(address: string, port: number): ServerSockets {
    const before = readKeeper(this.#directory, address);
    const taken = before && before.port === port ? take(before, address) : undefined;
    if (before && !taken) end(before);
    const sockets = taken ?? made(address, port);
    try {
      this.#keep(address, port, sockets);
    } catch (error) {
      this.#log.warn('the sockets of the name server end with this agent', { address, error });
    }
    if (before && taken) end(before);
    return sockets;
  }

  /** The address is no longer listened on. */
  release(address: string): void {
    this.#children.delete(address);
    const keeper = readKeeper(this.#directory, address);
    if (keeper) end(keeper);
    fs.rmSync(path.join(this.#directory, address), { force: true });
  }

  #keep(address: string, port: number, { udp, tcp }: ServerSockets): void {
    const child = spawn('/bin/sh', ['-c', script], {
      stdio: ['pipe', 'ignore', 'ignore', udp, tcp],
      cwd: '/',
      env: { PATH: '/usr/bin:/bin' },
      // A session of its own: what is sent to the agent's is not for it.
      detached: true,
    });
    child.on('error', (error) => this.#log.warn('the sockets of the name server end with this agent', { error }));
    child.unref();
    (child.stdin as unknown as { unref(): void } | null)?.unref();
    this.#children.set(address, child);
    const startTicks = startTicksOf(child.pid ?? 0);
    if (child.pid === undefined || startTicks === undefined) return;
    const keeper: Keeper = { pid: child.pid, startTicks, port };
    fs.mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    // In one step: an agent that is killed here leaves the keeper of before remembered, or this one.
    const file = path.join(this.#directory, address);
    fs.writeFileSync(`${file}.new`, JSON.stringify(keeper), { mode: 0o600 });
    fs.renameSync(`${file}.new`, file);
  }
}

/** Ends what keeps sockets for an agent that will not come back. */
export function endKeepers(directory: string): void {
  for (const address of fs.existsSync(directory) ? fs.readdirSync(directory) : []) {
    const keeper = readKeeper(directory, address);
    if (keeper) end(keeper);
  }
  fs.rmSync(directory, { recursive: true, force: true });
}

/** undefined where they cannot be had: another kernel, or a keeper that is none. */
function take(keeper: Keeper, address: string): ServerSockets | undefined {
  const taken: number[] = [];
  try {
    for (const fd of [kept.udp, kept.tcp]) taken.push(descriptorOf(keeper.pid, fd));
    const [udp, tcp] = taken;
    if (udp !== undefined && tcp !== undefined && taken.every((fd) => isBoundTo(fd, address, keeper.port))) {
      return { udp, tcp };
    }
  } catch (error) {
    if (!isFault(error)) throw error;
  }
  for (const fd of taken) closeFd(fd);
  return undefined;
}

function made(address: string, port: number): ServerSockets {
  const udp = serverSocket('udp', address, port);
  try {
    return { udp, tcp: serverSocket('tcp', address, port) };
  } catch (error) {
    closeFd(udp);
    throw error;
  }
}

/** With what it has begun. */
function end({ pid }: Keeper): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** The keeper that is remembered and still is the one. */
function readKeeper(directory: string, address: string): Keeper | undefined {
  try {
    const keeper = JSON.parse(fs.readFileSync(path.join(directory, address), 'utf8')) as Keeper;
    return startTicksOf(keeper.pid) === keeper.startTicks ? keeper : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** proc(5): the 22nd field of stat, the second being a name in brackets that may have any character. */
function startTicksOf(pid: number): number | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return undefined;
  }
}
