/** Which services name which others, so that those are looked at again when the tasks of these change. */
import type { ServiceId } from '#proto/model/ids.ts';

export class Namers {
  readonly #byName = new Map<string, Set<ServiceId>>();

  /** The `project/name`s that a service names, before and after. */
  set(id: ServiceId, before: readonly string[], after: readonly string[]): void {
    for (const name of before) {
      if (after.includes(name)) continue;
      this.#byName.get(name)?.delete(id);
      if (this.#byName.get(name)?.size === 0) this.#byName.delete(name);
    }
    for (const name of after) {
      if (!before.includes(name)) this.#byName.set(name, (this.#byName.get(name) ?? new Set()).add(id));
    }
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  of(name: string): Iterable<ServiceId> {
    return this.#byName.get(name) ?? [];
  }
}
