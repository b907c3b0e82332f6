/** Which containers run on which host of a sandbox, read from the machine's /proc: the same eyes for whoever started them. */
import { readFileSync } from 'node:fs';
import { type Hierarchy, machineHierarchies, processesIn } from '#node-agent/sandbox/cgroups.ts';
import type { Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { workers } from './bench-cluster.ts';
import { privateBytes, sum } from './measure.ts';

/** A sandbox is one pid namespace in the machine's, a host one in that, a container one in a host's. */
const hostDepth = 3;
const containerDepth = 4;

/** The first processes of containers, by host; one is there from the moment its own program runs. */
export type Count = ReadonlyMap<string, ReadonlySet<number>>;

export class Census {
  readonly #sandbox: string;
  /** One tree is enough, and a dozen cost a dozen times as much to read. */
  readonly #tree: readonly Hierarchy[];
  /** What is known of a process for as long as it lives: whether it is a container's first. */
  readonly #known = new Map<number, boolean>();

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox.layout.name;
    this.#tree = machineHierarchies()
      .filter(({ options }) => !options.startsWith('none'))
      .slice(0, 1);
  }

  take(): Count {
    const seen = new Set<number>();
    const count = new Map<string, Set<number>>();
    for (const host of workers) {
      const pids = this.#processes(host);
      for (const pid of pids) seen.add(pid);
      count.set(host, new Set(pids.filter((pid) => this.#isFirst(pid))));
    }
    for (const pid of this.#known.keys()) if (!seen.has(pid)) this.#known.delete(pid);
    return count;
  }

  /** Looks every 25 ms until `test` holds; what it saw then, and when. Rejects with the last count after `timeoutMs`. */
  async until(
    test: (count: Count) => boolean,
    timeoutMs: number,
  ): Promise<{ readonly at: number; readonly count: Count }> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const at = performance.now();
      const count = this.take();
      if (test(count)) return { at, count };
      if (at > deadline) {
        const found = [...count].map(([host, pids]) => `${host} ${pids.size}`).join(', ');
        throw new Error(`after ${timeoutMs} ms the containers of sandbox ${this.#sandbox} are: ${found}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  /** Bytes that the processes of a host hold alone, those inside of containers left out. */
  hostBytes(host: string): number {
    return sum(
      this.#processes(host, machineHierarchies()).map((pid) =>
        lookAt(pid)?.depth === hostDepth ? privateBytes(pid) : 0,
      ),
    );
  }

  #processes(host: string, trees = this.#tree): number[] {
    return processesIn(trees, `gantry-sandbox/${this.#sandbox}/${host}`);
  }

  #isFirst(pid: number): boolean {
    const known = this.#known.get(pid);
    if (known !== undefined) return known;
    const look = lookAt(pid);
    if (!look) return false;
    const first = look.depth === containerDepth && look.innermost === 1;
    // A runtime's own process becomes the container's program at its start: to be looked at again.
    if (first && /^(runc|crun)/.test(look.name)) return false;
    // Nor is it known yet of one that may still be about to enter a namespace.
    if (first || look.depth === containerDepth) this.#known.set(pid, first);
    return first;
  }
}

export function total(count: Count, hosts: readonly string[] = workers): number {
  return sum(hosts.map((host) => count.get(host)?.size ?? 0));
}

export function pidsOf(count: Count): Set<number> {
  return new Set([...count.values()].flatMap((pids) => [...pids]));
}

/** Undefined for one that has ended. */
function lookAt(
  pid: number,
): { readonly name: string; readonly depth: number; readonly innermost: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const numbers = /^NSpid:(.*)$/m.exec(status)![1]!.trim().split(/\s+/).map(Number);
    return { name: /^Name:\s*(.*)$/m.exec(status)![1]!, depth: numbers.length, innermost: numbers.at(-1)! };
  } catch {
    return undefined;
  }
}
