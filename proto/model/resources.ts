/** Amounts of what a machine has. */
export interface Resources {
  /** Thousandths of a core. */
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  /** Processes and threads. */
  readonly pids: number;
}

export const noResources: Resources = { cpuMillis: 0, memoryBytes: 0, pids: 0 };

export function add(a: Resources, b: Resources): Resources {
  return { cpuMillis: a.cpuMillis + b.cpuMillis, memoryBytes: a.memoryBytes + b.memoryBytes, pids: a.pids + b.pids };
}
