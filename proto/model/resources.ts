/** Amounts of what a machine has. */
export interface Resources {
  /** Thousandths of a core. */
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  /** Processes and threads. */
  readonly pids: number;
  /** One for each kind. */
  readonly generic: readonly GenericResource[];
}

/** Things that are counted, of one kind: what a node offers, a task asks, or a task was given. */
export interface GenericResource {
  readonly kind: string;
  /** Of an ask: 0 is all that the node offers. Of what is offered or given by name: how many names. */
  readonly count: number;
  /** Offered: of each one, where they have names. Asked: these and no others. Given: which. */
  readonly names: readonly string[];
}

export const noResources: Resources = { cpuMillis: 0, memoryBytes: 0, pids: 0, generic: [] };

export function add(a: Resources, b: Resources): Resources {
  return {
    cpuMillis: a.cpuMillis + b.cpuMillis,
    memoryBytes: a.memoryBytes + b.memoryBytes,
    pids: a.pids + b.pids,
    generic: a.generic.length === 0 ? b.generic : b.generic.reduce(addGeneric, a.generic),
  };
}

function addGeneric(all: readonly GenericResource[], more: GenericResource): readonly GenericResource[] {
  const before = all.find(({ kind }) => kind === more.kind);
  if (!before) return [...all, more];
  const sum = { kind: more.kind, count: before.count + more.count, names: [...before.names, ...more.names] };
  return all.map((one) => (one === before ? sum : one));
}

/** True for what may name a kind of resources. */
export function isResourceKind(text: string): boolean {
  return /^[a-zA-Z][a-zA-Z0-9_.-]{0,62}$/.test(text);
}

/** True for what may name one thing of a kind: a word, or a device of the host. */
export function isResourceName(text: string): boolean {
  return /^[a-zA-Z0-9/][a-zA-Z0-9_.:/-]{0,126}$/.test(text) && !text.includes('..');
}
