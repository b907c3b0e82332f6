/** A fence in memory: of the machine, so that it outlives its agents, as guards do. */
import type { Fence } from '#node-agent/watchdog/fence.ts';
import { dueAt, mayBegin } from '#node-agent/watchdog/lease.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { FakeContainerHost } from './fake-runtime.ts';

const lookEveryMs = 50;
const killSignal = 9;

export class FakeFence implements Fence {
  readonly #clock: Clock;
  readonly #host: FakeContainerHost;
  readonly #armed = new Set<TaskId>();
  readonly #killed = new Set<TaskId>();
  #untilMs: number;
  #timer: Timer | undefined;

  /** `clock`: of the machine. `untilMs`: a lease it has to begin with. */
  constructor(clock: Clock, host: FakeContainerHost, untilMs = 0) {
    this.#clock = clock;
    this.#host = host;
    this.#untilMs = untilMs;
  }

  renew(untilMs: number): void {
    this.#untilMs = Math.max(this.#untilMs, untilMs);
  }

  mayBegin(): boolean {
    return mayBegin(this.#untilMs, this.#clock.boottime());
  }

  async arm(task: TaskId): Promise<void> {
    if (!this.mayBegin()) throw new Fault('unavailable', 'this node holds no lease at the moment');
    this.#armed.add(task);
    this.#timer ??= this.#clock.after(lookEveryMs, () => this.#lookOn());
  }

  killed(task: TaskId): string | undefined {
    return this.#killed.has(task) ? 'its lease ended' : undefined;
  }

  async empty(task: TaskId): Promise<void> {
    this.#host.end(task, 128 + killSignal);
  }

  forget(task: TaskId): void {
    this.#armed.delete(task);
    this.#killed.delete(task);
  }

  /** Ends whatever has outlived the lease: what guards do first when a machine that stood still goes on. */
  look(): void {
    const due = dueAt(this.#untilMs, this.#clock.boottime());
    for (const task of this.#armed) {
      const container = this.#host.containers.get(task);
      if (!container || container.exit || due !== 'kill') continue;
      this.#killed.add(task);
      this.#host.end(task, 128 + killSignal);
    }
  }

  #lookOn(): void {
    this.look();
    this.#timer = this.#armed.size > 0 ? this.#clock.after(lookEveryMs, () => this.#lookOn()) : undefined;
  }
}
