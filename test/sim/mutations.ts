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
  /** It is caught within so many seeds, from `from` (1 unless told) on. */
  readonly seeds: number;
  readonly from?: number;
  /** By this plot; `first` unless told. The others are told without their quiet. */
  readonly story?: 'first' | 'whole' | 'turnover' | 'singletons' | 'verdicts';
  /** Of that plot these chapters alone, by name: the more of what it is about. */
  readonly chapters?: readonly string[];
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
  {
    name: 'a leader that begins does not know which addresses rest',
    story: 'whole',
    chapters: ['services', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/reconcilers/addresses.ts',
        find: 'if (endedAtMs + addressRestMs > now) rest(pool',
        replace: 'if (endedAtMs + addressRestMs > now && now < 0) rest(pool',
      },
    ],
    seeds: 4,
  },
  {
    name: 'a host is judged by silence alone, whatever its kernel answers',
    story: 'whole',
    chapters: ['services', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/reconcilers/node-health.ts',
        find: 'const kernel = kernelVerdict(seen, lastMs, node.answersProbes ?? false, noEar);',
        replace: "const kernel = 'untold';",
      },
    ],
    seeds: 4,
  },
  {
    name: 'what only other hosts hear of a kernel does not count',
    story: 'whole',
    chapters: ['services', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/reconcilers/kernel-verdict.ts',
        find: '[round.leader, ...round.peers.values()] : [];',
        replace: '[round.leader] : [];',
      },
      {
        file: 'control-plane/dispatch/kernel-probes.ts',
        find: 'if (answered) this.#answered(node);',
        replace: '',
      },
    ],
    seeds: 4,
  },
  {
    name: 'a leader that is cut off hears somebody, where the answer of a kernel is awaited or was heard just before',
    story: 'verdicts',
    edits: [
      {
        file: 'control-plane/reconcilers/node-health.ts',
        find: "unheardAtMs: kernel === 'lives' ? unknownAtMs",
        replace: "unheardAtMs: kernel === 'lives' || isDoubtful ? deadlineMs",
      },
    ],
    from: 10,
    seeds: 3,
  },
  {
    name: 'a leader that is cut off hears somebody, where more patience is owed to one after it was late itself',
    story: 'verdicts',
    edits: [
      {
        file: 'control-plane/reconcilers/node-health.ts',
        find: 'Math.min(lastMs + patienceMs, unknownAtMs)',
        replace: 'unknownAtMs',
      },
    ],
    from: 6,
    seeds: 3,
  },
  {
    name: 'most nodes that fall silent at once are taken for down as one alone is',
    story: 'verdicts',
    edits: [
      {
        file: 'control-plane/reconcilers/node-health.ts',
        find: 'const patient = deaf || (quiet >= 2 && quiet * 2 > judged.length);',
        replace: 'const patient = deaf;',
      },
    ],
    from: 15,
    seeds: 10,
  },
  {
    name: 'duplicates run on when a node comes back',
    story: 'whole',
    chapters: ['services', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'const others = staying.filter((task) => task !== best && isUp(best)',
        replace: 'const others = staying.filter((task) => task !== best && !isUp(best)',
      },
    ],
    seeds: 4,
  },
  {
    name: 'tasks leave for others that are no more important',
    story: 'whole',
    chapters: ['services', 'priorities', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/scheduler/preempt.ts',
        find: 'if (of >= priority) return undefined;',
        replace: 'if (of > priority) return undefined;',
      },
      {
        file: 'control-plane/scheduler/preempt.ts',
        find: 'isWanted(task) && classOf(task) < priority',
        replace: 'isWanted(task) && classOf(task) <= priority',
      },
    ],
    seeds: 6,
  },
  {
    name: 'one task more is isolated than is kept',
    story: 'whole',
    chapters: ['isolation'],
    edits: [
      {
        file: 'control-plane/reconcilers/isolation.ts',
        find: 'isolated < atMost ? noReplacement',
        replace: 'isolated <= atMost ? noReplacement',
      },
    ],
    seeds: 4,
  },
  {
    name: 'an instant of a schedule is decided twice',
    story: 'whole',
    chapters: ['services', 'jobs'],
    edits: [
      {
        file: 'control-plane/reconcilers/schedule.ts',
        find: 'decidedUntilMs: atMs };',
        replace: 'decidedUntilMs: next.decidedUntilMs };',
      },
    ],
    seeds: 4,
  },
  {
    name: 'what was just added by the autoscaler is taken away at once',
    story: 'whole',
    chapters: ['services', 'autoscaling', 'watchdogs'],
    edits: [
      {
        file: 'control-plane/reconcilers/autoscale.ts',
        find: 'highs: [...recent(before.highs, spec.down.stabilizationMs)',
        replace: 'highs: [...recent(before.highs, spec.up.stabilizationMs)',
      },
    ],
    seeds: 4,
  },
  {
    name: 'agents obey a leader that was deposed',
    story: 'turnover',
    edits: [
      { file: 'node-agent/session.ts', find: 'if (epoch >= newest) {', replace: 'if (epoch >= 0) {' },
      {
        file: 'control-plane/dispatch/session.ts',
        find: 'if (hello.epoch > epoch) {',
        replace: 'if (hello.epoch < 0) {',
      },
    ],
    from: 4,
    seeds: 4,
  },
  {
    name: 'a node that says what it holds is left with what has changed since',
    edits: [
      {
        file: 'control-plane/dispatch/session.ts',
        find: 'if (this.#held && this.#held[part] === shared.digestOf(part)) filling.kept.push(part);',
        replace: 'if (this.#held) filling.kept.push(part);',
      },
    ],
    seeds: 3,
  },
  {
    name: 'a replica leads again with an epoch that another one has written',
    story: 'turnover',
    edits: [
      {
        file: 'control-plane/leader.ts',
        find: 'return replica === this.#parts.self.replica && this.#ours.has(epoch);',
        replace: "return replica !== '' && this.#ours.has(epoch);",
      },
    ],
    seeds: 4,
  },
  {
    name: 'a leader goes on although another one has a newer epoch',
    story: 'turnover',
    edits: [
      {
        file: 'control-plane/leader.ts',
        find: 'if (!this.#term || leadership?.epoch === this.#term.epoch) return;',
        replace: 'if (!this.#term || leadership !== undefined) return;',
      },
    ],
    seeds: 4,
  },
  {
    name: 'an update stops what runs before its successor is prepared',
    story: 'whole',
    chapters: ['services', 'images'],
    edits: [
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'const gone = [...leaving].filter(([task]) => isPrepared || !runsOn(facts, task));',
        replace: 'const gone = isPrepared ? [...leaving] : [...leaving];',
      },
    ],
    seeds: 4,
  },
  {
    name: 'what is prepared for a seat runs beside who has it',
    story: 'whole',
    chapters: ['services', 'images'],
    edits: [
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'if (others.length > 0 || !facts.mayRun(next)) return stops;',
        replace: 'if (others.length > 1 || !facts.mayRun(next)) return stops;',
      },
    ],
    seeds: 4,
  },
  {
    name: 'successors that never came up stay while newer revisions overtake them',
    story: 'whole',
    chapters: ['services', 'overtaking'],
    edits: [
      {
        file: 'control-plane/reconcilers/seat.ts',
        find: 'return all.filter(([task]) => task !== holder);',
        replace: 'return all.filter(([task]) => task === undefined || holder === undefined);',
      },
    ],
    seeds: 4,
  },
  {
    name: 'a service that is removed waits for ever for one that depends on it, whose removal was undone',
    story: 'whole',
    chapters: ['watchdogs', 'removals'],
    edits: [
      {
        file: 'control-plane/controllers/loop.ts',
        find: 'if (before?.removing && !after?.removing) this.#markDependencies(before);',
        replace: 'if (!after) this.#markDependencies(before);',
      },
    ],
    seeds: 4,
  },
  {
    name: 'a lease counts from when it is heard of, not from when its beat was sent',
    story: 'singletons',
    edits: [
      {
        file: 'node-agent/watchdog/beats.ts',
        find: 'const untilMs = this.#sent.granted(ack.sequence, ack.leaseMs);',
        replace: 'const untilMs = ack.leaseMs > 0 ? this.#parts.clock.boottime() + ack.leaseMs : 0;',
      },
    ],
    seeds: 8,
  },
  {
    name: 'a node is granted a lease before it knows what it has lost',
    story: 'singletons',
    edits: [
      {
        file: 'control-plane/dispatch/dispatch.ts',
        find: 'const granted = !node.fenced && !this.liveness.withheld(node.id, modRevision) &&',
        replace: 'const granted = !this.liveness.withheld(node.id, modRevision) &&',
      },
    ],
    seeds: 4,
  },
  {
    name: 'what was deleted before a compaction stays in the view of who had not heard of it (etcd#18089)',
    story: 'whole',
    chapters: ['services', 'history'],
    edits: [
      {
        file: 'control-plane/store/feed.ts',
        find: 'if (!listed.has(key)) yield {',
        replace: 'if (listed.size < 0) yield {',
      },
    ],
    seeds: 10,
  },
  {
    name: 'a node that is fenced is not asked again when its record is written, and never holds a lease again',
    story: 'singletons',
    edits: [
      {
        file: 'control-plane/dispatch/assign.ts',
        find: 'change.after && !change.after.fenced && sameRecord(change.before, change.after)',
        replace: 'change.after && sameRecord(change.before, change.after)',
      },
    ],
    from: 29,
    seeds: 2,
  },
  {
    name: 'a leader keeps the events of its own time alone',
    story: 'turnover',
    edits: [
      {
        file: 'control-plane/events/publish.ts',
        find: 'for (let place = ring.placeAfter(whole); !signal.aborted; ) {',
        replace: 'for (let place = ring.placeAfter(Number.MAX_SAFE_INTEGER); !signal.aborted; ) {',
      },
    ],
    seeds: 4,
  },
  {
    name: 'what happened before a replica began is not looked up when it leads',
    story: 'turnover',
    edits: [
      {
        file: 'control-plane/events/publish.ts',
        find: 'if (since < ring.wholeSince) {',
        replace: 'if (since < 0) {',
      },
    ],
    seeds: 4,
  },
  {
    name: 'a node that is just back, and says first what it held before, is waited for no longer',
    story: 'whole',
    chapters: ['services', 'documents', 'networks'],
    edits: [
      {
        file: 'control-plane/dispatch/withdrawal.ts',
        find: 'if (session && nowMs >= session.greetedAtMs + withdrawalLimitMs) this.#overdue.add(id);',
        replace: 'if (session) this.#overdue.add(id);',
      },
      {
        file: 'control-plane/dispatch/withdrawal.ts',
        find: 'Math.max(sinceMs, this.#backAtMs) + withdrawalLimitMs',
        replace: 'sinceMs + (this.#backAtMs === Number.POSITIVE_INFINITY ? awayLimitMs : withdrawalLimitMs)',
      },
    ],
    from: 79,
    seeds: 2,
  },
];
