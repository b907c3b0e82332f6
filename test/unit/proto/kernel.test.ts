/** The small tools that everything stands on. */
import { describe, expect, it } from 'vitest';
import { Fault, faultCodeOf, grpcCodeOf } from '#proto/kernel/errors.ts';
import { Queue } from '#proto/kernel/queue.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { isId } from '#proto/model/ids.ts';
import { faultOf, statusOf } from '#proto/rpc.ts';

describe('a scope', () => {
  it('closes what was opened in it in reverse order, once', async () => {
    const scope = new Scope();
    const order: number[] = [];
    scope.defer(() => void order.push(1));
    scope.defer(() => void order.push(2));
    await Promise.all([scope.close(), scope.close()]);
    expect(order).toEqual([2, 1]);
    expect(scope.signal.aborted).toBe(true);
  });

  it('runs every cleanup, then throws the first failure', async () => {
    const scope = new Scope();
    let ran = false;
    scope.defer(() => {
      ran = true;
    });
    scope.defer(() => {
      throw new Error('stuck');
    });
    await expect(scope.close()).rejects.toThrow('stuck');
    expect(ran).toBe(true);
  });

  it('closes its children with it', async () => {
    const parent = new Scope();
    const child = parent.child();
    await parent.close();
    expect(child.signal.aborted).toBe(true);
  });
});

describe('a queue', () => {
  it('gives what was pushed before the end, then ends', async () => {
    const queue = new Queue<number>();
    queue.push(1);
    queue.push(2);
    queue.end();
    const seen: number[] = [];
    for await (const item of queue) seen.push(item);
    expect(seen).toEqual([1, 2]);
    expect(queue.push(3)).toBe(false);
  });

  it('refuses more than its limit', () => {
    const queue = new Queue<number>(1);
    expect([queue.push(1), queue.push(2)]).toEqual([true, false]);
  });

  it('hands the reader the failure it was ended with', async () => {
    const queue = new Queue<number>();
    queue.end(new Error('broken'));
    await expect(queue[Symbol.asyncIterator]().next()).rejects.toThrow('broken');
  });
});

describe('random', () => {
  it('replays from its seed, and makes valid ids', () => {
    const [a, b] = [newId(seededRandom(7)), newId(seededRandom(7))];
    expect(a).toBe(b);
    expect(isId(a)).toBe(true);
  });
});

describe('backoff', () => {
  it('doubles up to its maximum, with jitter in the upper half', () => {
    const random = seededRandom(1);
    for (let attempt = 1; attempt < 40; attempt++) {
      const ceiling = Math.min(1000, 10 * 2 ** (attempt - 1));
      const wait = backoffMs({ initialMs: 10, maxMs: 1000 }, attempt, random);
      expect(wait).toBeGreaterThanOrEqual(ceiling / 2);
      expect(wait).toBeLessThanOrEqual(ceiling);
    }
  });
});

describe('faults', () => {
  it('keep their code, text and remedy over gRPC', () => {
    const fault = faultOf(
      statusOf(new Fault('conflict', 'port 80 is taken', { remedy: 'choose another – or stop it' })),
    );
    expect([fault.code, fault.message, fault.remedy]).toEqual([
      'conflict',
      'port 80 is taken',
      'choose another – or stop it',
    ]);
  });

  it('map to statuses and back', () => {
    for (const code of ['invalid', 'not-found', 'conflict', 'unavailable', 'timeout'] as const)
      expect(faultCodeOf(grpcCodeOf(code))).toBe(code);
  });
});
