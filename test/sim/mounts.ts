/** What a simulated machine has of mounts: the named volumes on its disk, and which task has which contents. */
import type { Mounts } from '#node-agent/task/steps.ts';
import { assert, Fault } from '#proto/kernel/errors.ts';
import { contentKey, contentsOf } from '#proto/model/document.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { namedVolumes, type Volume } from '#proto/model/volume.ts';
import { expectedText } from './documents.ts';

type Prepare = Parameters<Mounts['prepare']>[0];

export interface VolumeOnDisk {
  readonly name: string;
  /** As the store had it when this was made; undefined: it had no record, as of one for each node. */
  readonly record: Volume | undefined;
}

export interface MachineMountsParts {
  readonly recordOf: (name: string) => Volume | undefined;
  /** A task has the volume from now on; what it found: its data, or nothing. */
  readonly mounted: (task: TaskId, volume: VolumeOnDisk, found: boolean) => void;
}

/** On disk: it outlives agents and boots. */
export class MachineMounts implements Mounts {
  readonly volumes = new Map<string, VolumeOnDisk>();
  readonly #uses = new Map<TaskId, readonly string[]>();
  /** Keys of the contents that each task was given. */
  readonly #given = new Map<TaskId, readonly string[]>();
  readonly #parts: MachineMountsParts;

  constructor(parts: MachineMountsParts) {
    this.#parts = parts;
  }

  async prepare({ wanted, contents }: Prepare): Promise<[]> {
    const { task, template } = wanted;
    const given = new Map(contents.map((content) => [contentKey(content), content.data]));
    for (const [key, ref] of contentsOf(template)) {
      const text = Buffer.from(given.get(key)?.reveal() ?? '').toString();
      const expected = expectedText(ref);
      assert(text === expected, `task ${task.id} has "${text}" as ${key}, not "${expected}"`);
    }
    this.#given.set(task.id, [...contentsOf(template).keys()]);
    const names = namedVolumes(template);
    this.#uses.set(task.id, names);
    for (const name of names) {
      const there = this.volumes.get(name);
      const volume = there ?? { name, record: this.#parts.recordOf(name) };
      this.volumes.set(name, volume);
      this.#parts.mounted(task.id, volume, there !== undefined);
    }
    return [];
  }

  async release(task: TaskId): Promise<void> {
    this.#uses.delete(task);
    this.#given.delete(task);
  }

  async held(): Promise<readonly TaskId[]> {
    return [...this.#uses.keys()];
  }

  /** As `Volumes.remove`. */
  async remove(name: string): Promise<void> {
    for (const [task, names] of this.#uses)
      if (names.includes(name)) throw new Fault('conflict', `volume "${name}" is in use by task ${task}`);
    this.volumes.delete(name);
  }

  contentsOf(task: TaskId): readonly string[] {
    return this.#given.get(task) ?? [];
  }
}
