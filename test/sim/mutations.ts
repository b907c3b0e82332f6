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
        find: 'if (status.state !== task.state && !mayAdvance(task.state, status.state)) return task;',
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
    name: "a removed node's subnet and addresses are taken over while they rest (moby#33795)",
    edits: [
      {
        file: 'control-plane/reconcilers/addresses.ts',
        find: 'if (endedAtMs + addressRestMs > now) rest',
        replace: 'if (endedAtMs > now) rest',
      },
    ],
    seeds: 40,
  },
  {
    name: 'after a compaction what was deleted meanwhile stays (etcd#18089)',
    edits: [
      {
        file: 'control-plane/store/feed.ts',
        find: 'for (const key of this.snapshot.keys(table))\n        if (!seen',
        replace: 'for (const key of this.snapshot.keys(table))\n        if (false && !seen',
      },
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
    name: 'an agent goes back to a leader that was deposed (kubernetes#59848)',
    edits: [
      {
        file: 'node-agent/session.ts',
        find: 'if (epoch >= newest) {\n      if (epoch > newest)',
        replace: 'if (epoch >= 0) {\n      if (epoch !== newest)',
      },
    ],
    seeds: 40,
  },
  {
    name: 'a task that cannot be prepared is replaced forty times a second',
    edits: [
      {
        file: 'node-agent/task/decide.ts',
        find: "if (earlyMs > 0 && seen.container === 'none')",
        replace: 'if (earlyMs > now.wallMs)',
      },
    ],
    seeds: 20,
  },
  {
    name: 'successors that never came up stay while newer revisions overtake them',
    edits: [
      { file: 'control-plane/reconcilers/seat.ts', find: '? [...leaving] : overtaken(leaving)', replace: '? [...leaving] : []' },
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'new Map([...nowhere, ...overtaken(leaving)])',
        replace: 'new Map(nowhere)',
      },
    ],
    seeds: 200,
  },
  {
    name: 'a seat that has gone over gets a successor of the older revision',
    edits: [
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'return replace(facts, seat, leaving, goesOver);',
        replace: 'return replace(facts, seat, leaving, mayMove);',
      },
    ],
    seeds: 200,
  },
  {
    name: 'a successor that has completed leaves its forerunner in its seat for good',
    edits: [
      {
        file: 'control-plane/reconcilers/rollout.ts',
        find: "active.length > 0 ? { at: 'failed' } : { at: 'new', settledAtMs: 0 }",
        replace: "{ at: 'new', settledAtMs: 0 }",
      },
    ],
    seeds: 200,
  },
  {
    name: 'a node that is removed takes a volume with it that an older revision has',
    edits: [
      {
        file: 'control-plane/reconcilers/service-changes.ts',
        find: 'const mounted = usersBy(context.snapshot, (template, mode) => pinnedVolumes(mode, template));',
        replace:
          "const mounted = new Set([...context.snapshot.all('service')].flatMap(({ spec }) => pinnedVolumes(spec.mode, spec.template)));",
      },
    ],
    seeds: 200,
  },
  {
    name: 'nobody takes the seats of a node that is down',
    edits: [
      {
        file: 'control-plane/reconcilers/orphan.ts',
        find: "if (node && node.state !== 'down') continue;",
        replace: 'if (node) continue;',
      },
    ],
    seeds: 40,
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
    name: 'the text of a secret goes while a rollback still needs it',
    edits: [
      {
        file: 'control-plane/reconcilers/document-usage.ts',
        find: 'return previous ? [spec.template, previous.template] : [spec.template];',
        replace: 'return previous ? [spec.template] : [spec.template];',
      },
      {
        file: 'control-plane/reconcilers/document-usage.ts',
        find: "if (table === 'version') return [(value as Tables['version']).spec.template];",
        replace: "if (table === 'version') return [];",
      },
    ],
    seeds: 40,
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
];
