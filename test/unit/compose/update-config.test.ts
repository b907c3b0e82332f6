/** What `update_config` and `rollback_config` come to. */
import { describe, expect, it } from 'vitest';
import { bad, web } from '#test/support/compose.ts';

const deploy = (text: string) => web(`deploy:\n  ${text}`);

describe('update_config', () => {
  it('has a canary, watched for a time or until somebody says so', () => {
    const gates = (canary: string) => deploy(`update_config: { x-canary: ${canary} }`).update.gates;
    expect(gates('1')).toEqual([{ kind: 'canary', count: 1, percent: 0, holdMs: 0 }]);
    expect(gates('{ count: 10%, hold: 5m }')).toEqual([{ kind: 'canary', count: 0, percent: 10, holdMs: 300_000 }]);
    expect(gates('{ hold: manual }')).toEqual([{ kind: 'canary', count: 1, percent: 0, holdMs: 0 }]);
  });

  it('has places to pause at, beside a canary too', () => {
    const { gates } = deploy('update_config: { x-pause-at: [3, 50%], x-canary: { hold: 10s } }').update;
    expect(gates.map(({ kind, count, percent, holdMs }) => `${kind} ${count} ${percent}% ${holdMs}`)).toEqual([
      'canary 1 0% 10000',
      'pause 3 0% 0',
      'pause 0 50% 0',
    ]);
  });

  it('refuses what is no number of tasks, and a canary that nobody watches', () => {
    const refused = (text: string) => bad(`deploy:\n  update_config: { ${text} }`)[0]!.replace(/^.*?:5:/, '');
    expect(refused('x-pause-at: [0]')).toBe(
      '37 services.web.deploy.update_config.x-pause-at[0]: "0" is no number of tasks → write 1 or more, or a share such as 10%',
    );
    expect(refused('x-canary: 110%')).toContain('"110%" is no number of tasks');
    expect(refused('x-canary: { hold: 0s }')).toContain('a canary that is not watched is none');
    expect(refused('x-canary: { cuont: 2 }')).toContain('unknown key "cuont" → did you mean "count"?');
  });
});

describe('rollback_config', () => {
  it('is as update_config where it is silent, but without delay and gates, and pauses', () => {
    const update = 'parallelism: 3, delay: 10s, order: start-first, monitor: 7s, failure_action: rollback, x-canary: 1';
    expect(deploy(`update_config: { ${update} }`).rollback).toEqual({
      parallelism: 3,
      delayMs: 0,
      order: 'start-first',
      monitorMs: 7_000,
      failureAction: 'pause',
      maxFailureRatio: 0,
      gates: [],
    });
  });

  it('says what it says', () => {
    const own =
      'parallelism: 0, delay: 1s, order: stop-first, monitor: 2s, failure_action: continue, max_failure_ratio: 0.5';
    expect(deploy(`update_config: { parallelism: 2 }\n  rollback_config: { ${own} }`).rollback).toEqual({
      parallelism: 0,
      delayMs: 1_000,
      order: 'stop-first',
      monitorMs: 2_000,
      failureAction: 'continue',
      maxFailureRatio: 0.5,
      gates: [],
    });
  });

  it('does not go back from a rollback, and does not wait', () => {
    expect(bad('deploy: { rollback_config: { failure_action: rollback } }')[0]).toContain(
      'services.web.deploy.rollback_config.failure_action: a rollback that fails has nothing to go back to → write pause or continue',
    );
    expect(bad('deploy: { rollback_config: { x-canary: 1 } }')[0]).toContain('a way back does not wait');
  });
});
