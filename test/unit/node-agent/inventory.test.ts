/** Holds the assignment set to its generations. */
import { describe, expect, it } from 'vitest';
import { Inventory } from '#node-agent/inventory.ts';
import type { AssignmentSet } from '#proto/gen/gantry/v1/agent.ts';
import { assignmentToWire } from '#proto/model/wire.ts';
import { aTask, aTemplate, idOf } from '#test/support/builders.ts';

const task = (name: string) =>
  assignmentToWire({
    kind: 'task',
    task: aTask(name),
    template: aTemplate({ runtime: 'runc' }),
    imageDigest: '',
    links: [],
  });
const set = (fields: Partial<AssignmentSet>): AssignmentSet => ({
  epoch: 1,
  revision: 1,
  full: false,
  more: false,
  put: [],
  remove: [],
  sentAtMs: 0,
  kept: [],
  ...fields,
});
const names = (inventory: Inventory) => inventory.tasks().map((one) => one.task.id);

describe('the inventory', () => {
  it('takes a full set when its last part is there, and tells what went with it', () => {
    const inventory = new Inventory();
    inventory.take(set({ full: true, put: [task('gone'), task('stays')] }));
    expect(inventory.take(set({ full: true, more: true, revision: 2, put: [task('stays')] }))).toBeUndefined();
    expect(names(inventory)).toEqual([idOf('gone'), idOf('stays')]);
    const change = inventory.take(set({ full: true, revision: 2, put: [task('new')] }))!;
    expect(change.removed).toEqual([`task/${idOf('gone')}`]);
    expect(change.put).toHaveLength(1);
    expect(names(inventory)).toEqual([idOf('stays'), idOf('new')]);
  });

  it('F36: passes over what a newer control plane words in a way it cannot read, and keeps what it had of it', () => {
    const inventory = new Inventory();
    inventory.take(set({ full: true, put: [task('known')] }));
    const foreign = (name: string) => {
      const item = task(name);
      if (item.item?.$case === 'task') item.item.value.task!.wanted = 'hibernating';
      return item;
    };
    const change = inventory.take(
      set({ full: true, revision: 2, put: [foreign('known'), foreign('new'), task('t1')] }),
    )!;
    expect(names(inventory).sort()).toEqual([idOf('known'), idOf('t1')].sort());
    expect(change.removed).toEqual([]);
    expect(change.unreadable).toEqual([`task/${idOf('known')}`, `task/${idOf('new')}`]);
    expect(inventory.take(set({ revision: 3, put: [foreign('known')] }))!.put).toEqual([]);
    expect(names(inventory)).toContain(idOf('known'));
  });

  it('does not mix parts of two sessions', () => {
    const inventory = new Inventory();
    inventory.take(set({ full: true, more: true, put: [task('old')] }));
    inventory.restart();
    inventory.take(set({ full: true, put: [task('new')] }));
    expect(names(inventory)).toEqual([idOf('new')]);
  });

  it('is not loaded by an increment, nor by what an earlier run left', () => {
    const inventory = new Inventory();
    expect(inventory.loaded).toBe(false);
    inventory.take(set({ full: true }));
    expect(inventory.loaded).toBe(true);
  });

  it('refuses older epochs, older revisions, and increments to a set it does not have', () => {
    const inventory = new Inventory();
    inventory.take(set({ epoch: 2, revision: 9, full: true, put: [task('held')] }));
    expect(inventory.take(set({ epoch: 1, revision: 10, full: true }))).toBeUndefined();
    expect(inventory.take(set({ epoch: 2, revision: 8, remove: [`task/${idOf('held')}`] }))).toBeUndefined();
    expect(inventory.take(set({ epoch: 3, revision: 10, remove: [`task/${idOf('held')}`] }))).toBeUndefined();
    expect(names(inventory)).toEqual([idOf('held')]);
    inventory.take(set({ epoch: 2, revision: 9, remove: [`task/${idOf('held')}`] }));
    expect(names(inventory)).toEqual([]);
  });
});
