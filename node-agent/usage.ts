/** Measures the tasks of autoscaled services, and how often such services are called by way of this node; says so in one message every two seconds. */
import type { Network } from '#net/network.ts';
import type { ServiceTraffic, TaskUsage, UsageBatch } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';
import type { Runtime } from './runtime/runtime.ts';
import type { TaskRunner } from './task/runner.ts';
import { hasOwnNetwork } from './task/task-network.ts';

/** A running task that is to be measured. */
export interface Measured {
  readonly id: TaskId;
  /** Those at which others may have connections open; empty: nobody asks for that. */
  readonly addresses: readonly string[];
}

/** Running tasks of services that are autoscaled; of those that may come to have none, who has connections to them is asked for, too. */
export function measuredOf(
  runners: Iterable<Pick<TaskRunner, 'status' | 'wanted'>>,
  endpointOf: (service: ServiceId) => Endpoint | undefined,
): readonly Measured[] {
  const measured: Measured[] = [];
  for (const { status, wanted } of runners) {
    if (status.state !== 'running') continue;
    const { id, serviceId, address, addresses } = wanted.task;
    const endpoint = endpointOf(serviceId);
    if (!endpoint?.measured) continue;
    const all = [address, ...addresses.map((one) => one.address)];
    measured.push({ id, addresses: endpoint.holdMs > 0 && hasOwnNetwork(wanted) ? all : [] });
  }
  return measured;
}

export interface UsageParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly runtime: Pick<Runtime, 'stats'>;
  readonly network: Pick<Network, 'traffic' | 'connections'>;
  readonly measured: () => readonly Measured[];
  /** False where there is nobody to tell at the moment. */
  readonly send: (batch: UsageBatch) => boolean;
}

const measureEveryMs = 2_000;
/** Ten thousand services that are counted take a tenth of a second to read: then it is done less often. */
const mostEveryMs = 6_000;
const mostShare = 0.02;

interface Reading {
  readonly atMs: number;
  readonly cpuSeconds: number;
}

export class UsageReporter {
  readonly #parts: UsageParts;
  #readings = new Map<TaskId, Reading>();
  #timer: Timer | undefined;
  #failure = '';
  #closed = false;

  constructor(parts: UsageParts) {
    this.#parts = parts;
    this.#later(0);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #later(tookMs: number): void {
    const waitMs = Math.min(mostEveryMs, Math.max(measureEveryMs, tookMs / mostShare));
    this.#timer = this.#parts.clock.after(waitMs, () => void this.#measure());
  }

  async #measure(): Promise<void> {
    const beganAt = this.#parts.clock.monotonic();
    try {
      const measured = this.#parts.measured();
      const [tasks, services] = await Promise.all([this.#tasks(measured), this.#services()]);
      if (!this.#closed && tasks.length + services.length > 0) this.#parts.send({ tasks, services });
      this.#failure = '';
    } catch (error) {
      const text = String(error);
      if (text !== this.#failure) this.#parts.log.warn('usage could not be measured, trying again', { error });
      this.#failure = text;
    }
    if (!this.#closed) this.#later(this.#parts.clock.monotonic() - beganAt);
  }

  async #tasks(measured: readonly Measured[]): Promise<TaskUsage[]> {
    const connections = await this.#connections(measured);
    const before = this.#readings;
    this.#readings = new Map();
    const usages: TaskUsage[] = [];
    for (const { id, addresses } of measured) {
      // It may have ended meanwhile.
      const stats = await this.#parts.runtime.stats(id).catch(() => undefined);
      if (!stats) continue;
      const now = this.#parts.clock.monotonic();
      const last = before.get(id);
      this.#readings.set(id, { atMs: now, cpuSeconds: stats.cpuSeconds });
      // What it used since it was last measured: the first time there is nothing to say.
      if (!last || now <= last.atMs) continue;
      const cpuMillis = Math.max(0, Math.round(((stats.cpuSeconds - last.cpuSeconds) * 1e6) / (now - last.atMs)));
      const open = addresses.reduce((sum, address) => sum + (connections.get(address) ?? 0), 0);
      usages.push({ taskId: id, cpuMillis, memoryBytes: stats.memoryBytes, connections: open });
    }
    return usages;
  }

  async #connections(measured: readonly Measured[]): Promise<ReadonlyMap<string, number>> {
    const addresses = measured.flatMap((task) => task.addresses);
    return addresses.length === 0 ? new Map() : await this.#parts.network.connections(addresses);
  }

  async #services(): Promise<ServiceTraffic[]> {
    const traffic = await this.#parts.network.traffic();
    return [...traffic].map(([serviceId, connections]) => ({ serviceId, connections }));
  }
}
