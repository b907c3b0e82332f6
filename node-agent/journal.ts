/** What the agent must know after its own restart: what it was given, and what it last said. One line on disk for each change. */
import { Assignment } from '#proto/gen/gantry/v1/agent.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import { assignmentKey } from '#proto/model/assignment.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { noResources } from '#proto/model/resources.ts';
import { containerSpec, emptyMount, taskTemplate } from '#proto/model/service.ts';
import type { TaskStatus } from '#proto/model/task.ts';
import { assignmentFromWire, assignmentToWire } from '#proto/model/wire.ts';

/** Where the lines are kept. Written without fsync: a crash of the agent loses nothing, and after one of the machine every task has ended. */
export interface JournalFile {
  /** All of it; empty where there is none yet. */
  read(): string;
  /** Fault `exhausted`: it may have been written in part. */
  append(text: string): void;
  /** Atomically. Fault `exhausted`. */
  replace(text: string): void;
}

/** Whether what the journal holds is on disk: told at each turn from the one to the other. */
export type JournalHealth = { readonly onDisk: true } | { readonly onDisk: false; readonly error: unknown };

/** Where the node stands in its cluster, as the control plane last said. */
export interface Membership {
  readonly node: Node;
  readonly cluster: ClusterConfig;
}

interface Records {
  boot: string;
  epoch: number;
  membership: Membership;
  [status: `status/${string}`]: TaskStatus;
  [item: `item/${string}`]: AssignmentItem;
}
type Key = keyof Records & string;

/**
 * With every field of today, and none else: an agent of another version may have written it. Undefined: in words that this one
 * cannot read.
 */
function completed(item: AssignmentItem): AssignmentItem | undefined {
  if (item.kind !== 'task') return asFromWire(item);
  const { image, mounts } = item.template.container;
  const container = containerSpec(image, {
    ...item.template.container,
    mounts: mounts.map((mount) => ({ ...emptyMount(mount.type, mount.source, mount.target), ...mount })),
  });
  const limits = { ...noResources, ...item.template.limits };
  return { ...item, template: taskTemplate(container, { ...item.template, container, limits }) };
}

/** Kinds of items, and whether they are ever in the journal. */
const kinds: Readonly<Record<AssignmentItem['kind'], boolean>> = {
  task: true,
  endpoint: true,
  peer: true,
  network: true,
  credential: false,
  content: false,
};

function isKnownItem(key: string): boolean {
  const [item, kind = ''] = key.split('/', 2);
  return item === 'item' && kind in kinds;
}

function asFromWire(item: AssignmentItem): AssignmentItem | undefined {
  try {
    return assignmentFromWire(Assignment.fromPartial(assignmentToWire(item)));
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return undefined;
  }
}

/** Below this nothing is compacted. */
const compactAboveBytes = 1 << 20;

export class Journal {
  readonly #file: JournalFile;
  readonly #healthChanged: (health: JournalHealth) => void;
  #onDisk = true;
  readonly #records = new Map<string, unknown>();
  readonly #statuses = new Map<TaskId, TaskStatus>();
  #fileBytes = 0;
  #liveBytes = 0;
  readonly #sizes = new Map<string, number>();

  constructor(file: JournalFile, healthChanged: (health: JournalHealth) => void = () => {}) {
    this.#file = file;
    this.#healthChanged = healthChanged;
    const text = file.read();
    this.#fileBytes = text.length;
    for (const line of text.split('\n')) this.#load(line);
  }

  get bootId(): string | undefined {
    return this.#records.get('boot') as string | undefined;
  }
  /** The newest epoch of leadership the agent has obeyed. */
  get epoch(): number {
    return (this.#records.get('epoch') as number | undefined) ?? 0;
  }
  get membership(): Membership | undefined {
    return this.#records.get('membership') as Membership | undefined;
  }
  /** The set as last known, tasks included. What a newer agent has noted beside it is left alone, and stays for that. */
  items(): AssignmentItem[] {
    const items: AssignmentItem[] = [];
    for (const [key, value] of this.#records) {
      const item = isKnownItem(key) ? completed(value as AssignmentItem) : undefined;
      if (item) items.push(item);
    }
    return items;
  }
  statuses(): TaskStatus[] {
    return [...this.#statuses.values()];
  }
  status(task: TaskId): TaskStatus | undefined {
    return this.#statuses.get(task);
  }

  setBoot(bootId: string): void {
    this.#write([['boot', bootId]]);
  }
  setEpoch(epoch: number): void {
    if (epoch !== this.epoch) this.#write([['epoch', epoch]]);
  }
  setMembership(membership: Membership): void {
    if (JSON.stringify(membership) !== JSON.stringify(this.membership)) this.#write([['membership', membership]]);
  }
  setStatus(status: TaskStatus): void {
    this.#write([[`status/${status.taskId}`, status]]);
  }
  /** Items that came and keys that went. */
  setItems(put: readonly AssignmentItem[], removed: readonly string[]): void {
    this.#write([
      ...put.map((item): [Key, unknown] => [`item/${assignmentKey(item)}`, item]),
      ...removed.map((key): [Key, undefined] => [`item/${key}`, undefined]),
    ]);
  }
  /** The task is gone from this node: nothing is known of it any more. */
  forget(task: TaskId): void {
    this.#write([
      [`status/${task}`, undefined],
      [`item/task/${task}`, undefined],
    ]);
  }

  #load(line: string): void {
    if (line === '') return;
    try {
      const [key, value] = JSON.parse(line) as [string, unknown];
      this.#set(key, value ?? undefined, line.length + 1);
    } catch {
      // The torn last line of a machine that lost power: what it said is told again by the control plane.
    }
  }

  #set(key: string, value: unknown, bytes: number): void {
    this.#liveBytes += (value === undefined ? 0 : bytes) - (this.#sizes.get(key) ?? 0);
    if (value === undefined) {
      this.#records.delete(key);
      this.#sizes.delete(key);
    } else {
      this.#records.set(key, value);
      this.#sizes.set(key, bytes);
    }
    if (!key.startsWith('status/')) return;
    const task = key.slice('status/'.length) as TaskId;
    if (value === undefined) this.#statuses.delete(task);
    else this.#statuses.set(task, value as TaskStatus);
  }

  #write(entries: readonly [Key, unknown][]): void {
    let text = '';
    for (const [key, value] of entries) {
      if (value === undefined && !this.#records.has(key)) continue;
      const line = `${JSON.stringify([key, value ?? null])}\n`;
      this.#set(key, value, line.length);
      text += line;
    }
    if (text === '') return;
    this.#fileBytes += text.length;
    const long = this.#fileBytes > compactAboveBytes && this.#fileBytes > 4 * this.#liveBytes;
    this.#save(long || !this.#onDisk ? () => this.#compact() : () => this.#file.append(text));
  }

  /**
   * A full disk must not end the tasks of a node, nor its word about them: the journal goes on in memory, and all of it is
   * written with the next change. Until then the agent must not restart, or it relies on the control plane and the runtime.
   */
  #save(write: () => void): void {
    try {
      write();
      if (!this.#onDisk) this.#healthChanged({ onDisk: true });
      this.#onDisk = true;
    } catch (error) {
      if (!isFault(error, 'exhausted')) throw error;
      if (this.#onDisk) this.#healthChanged({ onDisk: false, error });
      this.#onDisk = false;
    }
  }

  #compact(): void {
    let text = '';
    for (const entry of this.#records) text += `${JSON.stringify(entry)}\n`;
    this.#file.replace(text);
    this.#fileBytes = text.length;
  }
}
