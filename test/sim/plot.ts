/** What a story is made of: chapters, each with what operators ask for, what goes wrong, and what must hold of one kind of thing. */
import type { SimFault } from './faults.ts';
import type { Invariant } from './invariants.ts';
import type { Wish } from './workload.ts';
import type { World } from './world.ts';

export interface Chapter {
  readonly name: string;
  readonly wishes?: readonly Wish[];
  readonly faults?: readonly SimFault[];
  /** What is there from the begin. */
  begin?(world: World): void;
  /** After the last round: so that everything wanted has a place. */
  tidyUp?(world: World): void;
  /** Fresh ones for one world, beside those that always hold. */
  invariants?(): readonly Invariant[];
  /** Why it has not come to rest; empty when it has. */
  unsettled?(world: World): string;
}

export interface Plot {
  readonly name: string;
  /** As in `WorldSize`. */
  readonly watched: boolean;
  /** Of so many disturbances, `wishes` are wishes, the others faults. */
  readonly odds: { readonly wishes: number; readonly of: number };
  readonly chapters: readonly Chapter[];
}

export function wishesOf({ chapters }: Plot): readonly Wish[] {
  return chapters.flatMap(({ wishes = [] }) => wishes);
}

export function faultsOf({ chapters }: Plot): readonly SimFault[] {
  return chapters.flatMap(({ faults = [] }) => faults);
}
