/** Bugs that were fixed, or that others have had, each as the change of the source that puts it back: what looks for bugs must find them. */

export interface Edit {
  /** From the root of the tree. */
  readonly file: string;
  /** Text that is there once. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  /** What goes wrong with it. */
  readonly name: string;
  readonly edits: readonly Edit[];
  /** It is caught within so many seeds, from 1 on. */
  readonly seeds: number;
}

export const mutations: readonly Mutation[] = [
  {
    name: 'a leader writes without saying which epoch it is of',
    edits: [
      {
        file: 'control-plane/controllers/loop.ts',
        find: 'commit(eachOnce(changes.slice(done, end)), { epoch: this.#epoch })',
        replace: 'commit(eachOnce(changes.slice(done, end)))',
      },
    ],
    seeds: 10,
  },
  {
    name: 'reports take a task back to a state that it has left',
    edits: [
      {
        file: 'proto/model/task.ts',
        find: 'if (isTerminal(task.state)) return task;\n  if (status.state !== task.state && !mayAdvance(task.state, status.state)) return task;',
        replace: '',
      },
    ],
    seeds: 20,
  },
  {
    name: 'an address means somebody else at once',
    edits: [
      { file: 'control-plane/reconcilers/addresses.ts', find: 'addressRestMs = 60_000', replace: 'addressRestMs = 1' },
    ],
    seeds: 20,
  },
  {
    name: 'tasks are stopped while others still send to them',
    edits: [
      {
        file: 'control-plane/dispatch/withdrawal.ts',
        find: 'return this.#held.has(task);',
        replace: 'return task === undefined;',
      },
    ],
    seeds: 10,
  },
  {
    name: 'a container that nobody wants any more stays (containerd#13784)',
    edits: [
      {
        file: 'node-agent/task/decide.ts',
        find: "return { steps: [{ do: 'effect', effect: 'cleanup', why: 'it has ended' }] };",
        replace: 'return nothing;',
      },
    ],
    seeds: 3,
  },
  {
    name: 'a service begins before those that it depends on',
    edits: [
      {
        file: 'control-plane/reconcilers/start-order.ts',
        find: 'if (dependsOn.length === 0) return holds;',
        replace: 'if (dependsOn.length >= 0) return holds;',
      },
    ],
    seeds: 10,
  },
  {
    name: 'a rollout begins one seat more than it may',
    edits: [
      {
        file: 'control-plane/reconcilers/rollout.ts',
        find: 'Math.max(0, policy.parallelism - inFlight)',
        replace: 'Math.max(0, policy.parallelism + 1 - inFlight)',
      },
    ],
    seeds: 20,
  },
  {
    name: 'a singleton begins elsewhere before the lease of its node is over',
    edits: [
      {
        file: 'control-plane/reconcilers/absence.ts',
        find: "return node.fenced ? { kind: 'orphan', task, why } : undefined;",
        replace: "return node.fenced || node.state === 'down' ? { kind: 'orphan', task, why } : undefined;",
      },
    ],
    seeds: 20,
  },
];
