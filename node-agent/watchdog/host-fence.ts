/**
 * The fence of a real machine, in lines that do not need each other: a guard for each singleton (guard.sh), which lives on when all
 * of ours dies, and this process, which replaces guards that have died and kills by itself what they should have.
 */
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Cgroups } from '../runtime/cgroup.ts';
import { waitFor } from '../runtime/children.ts';
import { pipe, spawn } from '../runtime/libc.ts';
import { startTicksOf } from '../runtime/processes.ts';
import { signalNumber } from '../runtime/signals.ts';
import type { Fence, FencedProcess } from './fence.ts';
import { askMs, guardMs, mayBegin } from './lease.ts';
import { armedIn, killedPath, killOverdue, lookEveryMs, type OverdueParts } from './overdue.ts';

/** Runs the guards; of Debian's essential packages. */
export const shell = '/bin/bash';
const script = join(import.meta.dirname, 'guard.sh');
const readyWithinMs = 2_000;

/** On disk, so that a later agent knows who is armed. */
interface Armed extends FencedProcess {
  readonly guardPid: number;
  readonly guardTicks: number;
}

/** The directory is made where it is missing. */
export interface HostFenceParts extends OverdueParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly cgroups: Cgroups;
  readonly bootId: string;
}

/** Takes up what an earlier agent has armed. `close`: guards go on. */
export function hostFence(parts: HostFenceParts): Fence & { close(): void } {
  return new HostFence(parts);
}

class HostFence implements Fence {
  readonly #parts: HostFenceParts;
  readonly #armed = new Map<TaskId, Armed>();
  readonly #replacing = new Set<TaskId>();
  #timer: Timer | undefined;

  constructor(parts: HostFenceParts) {
    this.#parts = parts;
    mkdirSync(parts.directory, { recursive: true, mode: 0o700 });
    for (const id of armedIn(parts.directory)) {
      if (this.#processes(id).length === 0) this.forget(id);
      else this.#armed.set(id, JSON.parse(readFileSync(this.#path(id), 'utf8')) as Armed);
    }
    this.#look();
  }

  mayBegin(): boolean {
    return mayBegin(this.#parts.lease.untilMs(), this.#parts.clock.boottime());
  }

  async arm(task: TaskId, process: FencedProcess): Promise<void> {
    const known = this.#armed.get(task);
    if (known && startTicksOf(known.guardPid) === known.guardTicks) return;
    if (!this.mayBegin()) throw new Fault('unavailable', 'this node holds no lease at the moment');
    const guardPid = await this.#guard(task, process);
    const armed = { ...process, guardPid, guardTicks: startTicksOf(guardPid) ?? 0 };
    writeFileSync(`${this.#path(task)}.next`, JSON.stringify(armed), { mode: 0o600 });
    renameSync(`${this.#path(task)}.next`, this.#path(task));
    this.#armed.set(task, armed);
  }

  killed(task: TaskId): string | undefined {
    try {
      return readFileSync(killedPath(this.#parts.directory, task), 'utf8').trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async empty(task: TaskId): Promise<void> {
    const { cgroups, groupOf, clock } = this.#parts;
    while (this.#processes(task).length > 0) {
      cgroups.kill(groupOf(task));
      await clock.sleep(10);
    }
  }

  forget(task: TaskId): void {
    this.#armed.delete(task);
    for (const path of [this.#path(task), killedPath(this.#parts.directory, task)]) rmSync(path, { force: true });
  }

  close(): void {
    this.#timer?.cancel();
  }

  /** The second line: kills what the guards should have killed, and replaces those that are gone. */
  #look(): void {
    const { clock, log } = this.#parts;
    this.#timer = clock.after(lookEveryMs, () => this.#look());
    if (this.#armed.size === 0) return;
    const killed = killOverdue(this.#parts, this.#armed.keys());
    for (const task of killed) log.warn('the lease is over: a singleton is killed', { task });
    for (const [task, armed] of this.#armed)
      if (startTicksOf(armed.guardPid) !== armed.guardTicks && this.#processes(task).length > 0)
        void this.#replace(task, armed);
  }

  async #replace(task: TaskId, { pid, signal }: Armed): Promise<void> {
    if (this.#replacing.has(task)) return;
    this.#replacing.add(task);
    try {
      this.#parts.log.warn('the guard of a singleton has died: it gets another one', { task });
      await this.arm(task, { pid, signal });
    } catch (error) {
      this.#parts.log.warn('a singleton is without its guard, trying again', { task, error });
    } finally {
      this.#replacing.delete(task);
    }
  }

  /** Starts a guard; its pid, once it says that it watches. */
  async #guard(task: TaskId, { pid, signal }: FencedProcess): Promise<number> {
    const { cgroups, groupOf, lease, bootId, clock } = this.#parts;
    const group = groupOf(task);
    const words = pipe();
    const nothing = openSync('/dev/null', 'r+');
    let guard: number;
    try {
      guard = spawn({
        path: shell,
        args: [
          ...[script, lease.path, bootId, killedPath(this.#parts.directory, task), cgroups.freezer(group), String(pid)],
          ...[String(signalNumber(signal)), String(guardMs), String(askMs)],
        ],
        env: ['LC_ALL=C'],
        cwd: '/',
        fds: [nothing, words.write, nothing],
      });
    } catch (error) {
      closeSync(words.read);
      throw new Fault('unavailable', `no guard could be started: ${(error as Error).message}`, { cause: error });
    } finally {
      closeSync(nothing);
      closeSync(words.write);
    }
    void waitFor(guard);
    if (!(await saysReady(words.read, clock))) throw new Fault('unavailable', 'the guard does not say that it watches');
    // Beside conmon: whoever ends the agent's control group does not end it.
    await cgroups.adopt(`${group.slice(0, group.lastIndexOf('/'))}/guards`, guard).catch(() => {});
    return guard;
  }

  #processes(task: TaskId): readonly number[] {
    return this.#parts.cgroups.processes(this.#parts.groupOf(task));
  }

  #path(task: TaskId): string {
    return join(this.#parts.directory, task);
  }
}

/** False: it ended before it said so, or took too long. */
function saysReady(fd: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = new Socket({ fd, readable: true, writable: false });
    const finish = (ready: boolean) => {
      timer.cancel();
      socket.destroy();
      resolve(ready);
    };
    const timer = clock.after(readyWithinMs, () => finish(false));
    socket.on('data', () => finish(true));
    socket.on('error', () => finish(false));
    socket.on('end', () => finish(false));
  });
}
