/** What users notice of a planned change, and in what two plans differ. */
import { describe, expect, it } from 'vitest';
import { disruptionOf } from '#control-plane/api/disruption.ts';
import { planDifference } from '#control-plane/api/plan-difference.ts';
import { Plan } from '#proto/gen/gantry/v1/operator.ts';
import { defaults, type UpdatePolicy } from '#proto/model/service.ts';
import { aSpec } from '#test/support/builders.ts';

const task = (action: string, slot: number, node: string) => ({ action, slot, node, reason: '' });
const replaced = (count: number) =>
  Array.from({ length: count }, (_, index) => [task('stop', index + 1, 'h1'), task('start', index + 1, 'h1')]).flat();
const spec = (replicas: number, update: Partial<UpdatePolicy> = {}) =>
  aSpec('web', { replicas, update: { ...defaults.update, ...update } });

describe('a disruption', () => {
  it('is none where tasks only start, or each begins before its forerunner stops', () => {
    expect(disruptionOf(spec(3), [task('start', 3, 'h1')])).toBe('');
    expect(disruptionOf(spec(3, { order: 'start-first' }), replaced(3))).toBe('');
    expect(disruptionOf(spec(2), [task('stop', 3, 'h1')])).toBe('');
  });

  it('is what is away at a time', () => {
    expect(disruptionOf(spec(3), replaced(3))).toBe('1 of 3 tasks at a time is away (stop-first)');
    expect(disruptionOf(spec(5, { parallelism: 2 }), replaced(5))).toBe('2 of 5 tasks at a time are away (stop-first)');
    expect(disruptionOf(spec(1), replaced(1))).toBe('it is away while its one task is replaced (stop-first)');
    expect(disruptionOf(spec(3, { parallelism: 0 }), replaced(3))).toBe(
      'it is away while its 3 tasks are replaced (stop-first)',
    );
  });

  it('of a service that goes is all of it', () => {
    expect(disruptionOf(undefined, [task('stop', 1, 'h1'), task('stop', 2, 'h1')])).toBe(
      'it is gone: its 2 tasks stop',
    );
  });
});

describe('the difference of two plans', () => {
  const change = (node: string, serviceId = '') => ({
    action: 'create',
    serviceId,
    name: 'shop/web',
    details: [],
    tasks: [task('start', 1, node)],
    disruption: '',
  });

  it('is nothing where only ids that are made anew differ', () => {
    const [then, now] = ['a', 'b'].map((id) => Plan.fromPartial({ digest: 'd', changes: [change('h1', id)] }));
    expect(planDifference(then!, now!)).toEqual([]);
  });

  it('names what was planned then and what is now', () => {
    const then = Plan.fromPartial({ digest: 'd', changes: [change('h1')] });
    const now = Plan.fromPartial({ digest: 'd', changes: [change('h2')] });
    expect(planDifference(then, now)).toEqual(['- start shop/web.1 on h1', '+ start shop/web.1 on h2']);
  });

  it('is told where the files say something that no line shows', () => {
    const [then, now] = ['d', 'e'].map((digest) => Plan.fromPartial({ digest }));
    expect(planDifference(then!, now!)).toEqual(['the files say something else than the plan']);
  });
});
