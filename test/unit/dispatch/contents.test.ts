/** Which contents of configs and secrets a node is sent, and when they are taken from it again. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partsOf, SentContents } from '#control-plane/dispatch/contents.ts';
import { assignmentKey } from '#proto/model/assignment.ts';
import { Concealed } from '#proto/model/concealed.ts';
import { contentKey } from '#proto/model/document.ts';
import { aSecret, aTask, aTemplate } from '#test/support/builders.ts';

const [db, tls] = [aSecret('db'), aSecret('tls')];
const taskWith = (name: string, ...secrets: (typeof db)[]) => ({
  task: aTask(name),
  template: aTemplate({ documents: secrets.map(({ mount }) => mount) }),
});

describe('what a node has been sent', () => {
  it('comes before the first task that needs it, once, and goes with the last', () => {
    const sent = new SentContents();
    const [one, two] = [taskWith('t1', db, tls, db), taskWith('t2', db)];
    expect(sent.needed(one).map(contentKey)).toEqual([db, tls].map(({ ref }) => contentKey(ref)));
    expect(sent.needed(one)).toEqual([]);
    expect(sent.needed(two)).toEqual([]);
    expect(sent.dropped(one.task.id)).toEqual([contentKey(tls.ref)]);
    expect(sent.dropped(one.task.id)).toEqual([]);
    expect(sent.dropped(two.task.id)).toEqual([contentKey(db.ref)]);
  });

  it('is at all times what the tasks on it need, in any order of coming and going', () => {
    const secrets = ['a', 'b', 'c'].map((name) => aSecret(name));
    const step = fc.record({ task: fc.nat(4), comes: fc.boolean(), needs: fc.subarray(secrets) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const sent = new SentContents();
        const held = new Set<string>();
        const tasks = new Map<string, readonly string[]>();
        for (const { task, comes, needs } of steps) {
          const item = taskWith(`t${task}`, ...needs);
          const { id } = item.task;
          if (comes && !tasks.has(id)) {
            const keys = sent.needed(item).map(contentKey);
            for (const key of keys) expect(held.has(key)).toBe(false);
            for (const key of keys) held.add(key);
            const wanted = needs.map(({ ref }) => contentKey(ref));
            tasks.set(id, wanted);
          } else if (!comes) {
            for (const key of sent.dropped(id)) expect(held.delete(key)).toBe(true);
            tasks.delete(id);
          }
          expect([...held].sort()).toEqual([...new Set([...tasks.values()].flat())].sort());
        }
      }),
    );
  });
});

it('one message holds 500 items, and 8 MiB of contents', () => {
  const megabyte = new Concealed(new Uint8Array(1024 * 1024));
  const contents = Array.from({ length: 20 }, (_, index) => ({
    kind: 'content' as const,
    ...aSecret(`s${index}`).ref,
    data: megabyte,
  }));
  const peers = Array.from({ length: 1_000 }, (_, index) => ({ kind: 'credential' as const, registry: `r${index}` }));
  const items = [...contents, ...peers.map((peer) => ({ ...peer, username: '', password: '' }))];
  const parts = [...partsOf(items)];
  expect(parts.map(({ length }) => length)).toEqual([8, 8, 500, 500, 4]);
  expect(parts.flat().map(assignmentKey)).toEqual(items.map(assignmentKey));
  expect([...partsOf([])]).toEqual([[]]);
});
