/** A node at the level of statuses: takes its set, makes its tasks run, end and fail, and says so, over a line that can be cut. */
import type { Random } from '#proto/kernel/random.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isActive, isTerminal, type Task, type TaskState, type TaskStatus } from '#proto/model/task.ts';
import type { FakeClock } from '#test/support/fake-clock.ts';

/** How often, in percent, a task goes wrong in each way. */
export interface Mischief {
  rejected: number;
  failsAtStart: number;
  diesLater: number;
}

/** A process on a machine, and the address it answers on. */
export interface LiveTask {
  readonly id: TaskId;
  readonly address: string;
}

/** A node's full set, as read when it was sent. */
export interface SetMessage {
  readonly items: readonly AssignmentItem[];
  readonly node: Node;
  readonly revision: number;
  readonly epoch: number;
}

/** What the world does to a node, whatever runs on it. */
export interface WorldAgent {
  readonly id: NodeId;
  readonly up: boolean;
  readonly reachable: boolean;
  cut: boolean;
  /** A slow line: added to every message. */
  delayMs: number;
  live(): LiveTask[];
  /** The full set: what is not in it ends and is forgotten. */
  receive(message: SetMessage): void;
  /** A new session: everything it knows is said again. */
  greet(): void;
  crash(): void;
  boot(): void;
  heal(): void;
  /** Kills the process of one of its tasks. */
  killOne(): void;
}

interface Local {
  task: Task;
  status: TaskStatus;
  /** Bumped when what was under way no longer holds. */
  step: number;
}

export interface AgentParts {
  readonly clock: FakeClock;
  readonly random: Random;
  readonly mischief: Mischief;
  /** Delivers to whoever leads now. */
  report(node: NodeId, statuses: readonly TaskStatus[]): void;
  beat(node: NodeId): void;
  connect(node: NodeId): void;
}

export class SimAgent implements WorldAgent {
  readonly id: NodeId;
  readonly #parts: AgentParts;
  readonly #tasks = new Map<TaskId, Local>();
  up = true;
  cut = false;
  /** A slow line: added to every message. */
  delayMs = 0;
  #reportAtMs = 0;

  constructor(id: NodeId, parts: AgentParts) {
    this.id = id;
    this.#parts = parts;
    this.#beat();
  }

  get reachable(): boolean {
    return this.up && !this.cut;
  }

  /** Tasks with a process on this machine now. */
  live(): LiveTask[] {
    return [...this.#tasks.values()]
      .filter(({ status }) => !isTerminal(status.state) && status.state !== 'assigned')
      .map(({ task }) => task);
  }

  /** The full set: what is not in it ends and is forgotten. */
  receive({ items }: SetMessage): void {
    if (!this.reachable) return;
    const tasks = items.flatMap((item) => (item.kind === 'task' ? [item.task] : []));
    const ids = new Set(tasks.map(({ id }) => id));
    for (const [id, local] of this.#tasks) {
      if (ids.has(id)) continue;
      local.step++;
      this.#tasks.delete(id);
    }
    for (const task of tasks) {
      const local = this.#tasks.get(task.id);
      if (!local) this.#begin(task);
      else {
        const told = isActive(local.task) && !isActive(task);
        local.task = task;
        if (told && !isTerminal(local.status.state)) this.#stop(local);
      }
    }
  }

  /** A new session: everything it knows is said again. */
  greet(): void {
    if (!this.reachable) return;
    this.#parts.connect(this.id);
    this.#say([...this.#tasks.values()].map(({ status }) => status));
  }

  crash(): void {
    this.up = false;
  }

  /** Boots again: its journal knows what ran before and has ended with the machine. */
  boot(): void {
    if (this.up) return;
    this.up = true;
    for (const local of this.#tasks.values()) {
      local.step++;
      if (!isTerminal(local.status.state)) this.#set(local, 'failed', { error: 'the machine was restarted' });
    }
    this.#beat();
    this.greet();
  }

  heal(): void {
    if (!this.cut) return;
    this.cut = false;
    this.greet();
  }

  /** Kills the process of one of its tasks. */
  killOne(): void {
    const running = [...this.#tasks.values()].filter(({ status }) => status.state === 'running');
    const victim = running[this.#parts.random.int(Math.max(1, running.length))];
    if (!victim || !this.up) return;
    victim.step++;
    this.#set(victim, 'failed', { exitCode: 137 });
  }

  #beat(): void {
    if (!this.up) return;
    if (!this.cut) {
      const lateMs = this.delayMs + this.#parts.random.int(20);
      this.#parts.clock.after(lateMs, () => this.#parts.beat(this.id));
    }
    this.#parts.clock.after(200, () => this.#beat());
  }

  #begin(task: Task): void {
    const { random, mischief, clock } = this.#parts;
    const local: Local = { task, status: statusOf(task), step: 0 };
    this.#tasks.set(task.id, local);
    if (!isActive(task)) {
      this.#set(local, 'shutdown', {});
      return;
    }
    this.#later(local, 1 + random.int(30), () => {
      this.#set(local, 'preparing', {});
      const waitMs = Math.max(20 + random.int(300), task.startAfterMs - clock.now());
      this.#later(local, waitMs, () => {
        if (random.int(100) < mischief.rejected) return this.#set(local, 'rejected', { error: 'no such image' });
        if (random.int(100) < mischief.failsAtStart) return this.#set(local, 'failed', { exitCode: 1 });
        this.#set(local, 'running', { startedAtMs: clock.now() });
        if (random.int(100) >= mischief.diesLater) return;
        this.#later(local, 100 + random.int(8_000), () => {
          if (random.int(3) > 0) this.#set(local, 'failed', { exitCode: 2 });
          else this.#set(local, 'complete', {});
        });
      });
    });
  }

  #stop(local: Local): void {
    local.step++;
    this.#later(local, 1 + this.#parts.random.int(400), () => this.#set(local, 'shutdown', {}));
  }

  #later(local: Local, ms: number, action: () => void): void {
    const { step } = local;
    this.#parts.clock.after(ms, () => {
      if (this.up && local.step === step && this.#tasks.get(local.task.id) === local) action();
    });
  }

  #set(local: Local, state: TaskState, fields: Partial<TaskStatus>): void {
    const atMs = this.#parts.clock.now();
    const finishedAtMs = isTerminal(state) ? atMs : 0;
    local.status = { ...local.status, ...fields, state, atMs, finishedAtMs };
    this.#say([local.status]);
  }

  /** In order, and later; lost where the line is cut. */
  #say(statuses: readonly TaskStatus[]): void {
    const { clock, random, report } = this.#parts;
    if (!this.reachable) return;
    this.#reportAtMs = Math.max(this.#reportAtMs, clock.monotonic() + this.delayMs + 1 + random.int(10));
    clock.after(this.#reportAtMs - clock.monotonic(), () => {
      if (this.reachable) report(this.id, statuses);
    });
  }
}

function statusOf(task: Task): TaskStatus {
  const { id, state, message, error, stateAtMs, startedAtMs, finishedAtMs, exitCode } = task;
  const rest = { oomKilled: false, health: '', pid: 0, imageDigest: '' } as const;
  return { taskId: id, state, message, error, atMs: stateAtMs, startedAtMs, finishedAtMs, exitCode, ...rest };
}
