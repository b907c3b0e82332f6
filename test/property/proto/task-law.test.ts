/** The state law of tasks holds for every order in which an agent's words can arrive. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nodeId } from '#proto/model/ids.ts';
import { compareStates, isTerminal, mayAdvance, type TaskStatus, taskStates, withStatus } from '#proto/model/task.ts';
import { aTask } from '#test/support/builders.ts';

const start = aTask('law', {
  nodeId: nodeId('n'.repeat(25)),
  nodeName: 'h1',
  state: 'assigned',
  address: '10.192.0.2',
});

const state = fc.constantFrom(...taskStates);
const status = fc.record({
  state,
  message: fc.constantFrom('', 'pulling', 'waiting'),
  error: fc.constantFrom('', 'exit 1'),
  atMs: fc.nat(1000),
  startedAtMs: fc.nat(1000),
  finishedAtMs: fc.nat(1000),
  exitCode: fc.constantFrom(0, 1, 137),
  oomKilled: fc.boolean(),
  health: fc.constantFrom('' as const, 'starting' as const, 'healthy' as const, 'unhealthy' as const),
  pid: fc.nat(100),
  imageDigest: fc.constantFrom('', 'sha256:1'),
});
const word = status.map((fields): TaskStatus => ({ taskId: start.id, ...fields }));

describe('the task state law', () => {
  it('never lets a state go backwards, whatever order statuses arrive in', () => {
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        let task = start;
        for (const said of words) {
          const next = withStatus(task, said, 7);
          expect(compareStates(next.state, task.state)).toBeGreaterThanOrEqual(0);
          task = next;
        }
      }),
    );
  });

  it('takes no further word about a task that has ended', () => {
    fc.assert(
      fc.property(state.filter(isTerminal), word, (ended, said) => {
        const task = { ...start, state: ended };
        expect(withStatus(task, said, 7)).toBe(task);
      }),
    );
  });

  it('gives back the same object for a word that says nothing new', () => {
    fc.assert(
      fc.property(word, (said) => {
        const once = withStatus(start, said, 7);
        expect(withStatus(once, said, 8)).toBe(once);
      }),
    );
  });

  it('is a strict order: no two states may each advance to the other', () => {
    fc.assert(
      fc.property(state, state, (a, b) => {
        expect(mayAdvance(a, b) && mayAdvance(b, a)).toBe(false);
      }),
    );
  });
});
