/** `deploy.update_config` and `deploy.rollback_config`: at which pace versions take over, where they wait, and what failures do. */
import { defaults, type Gate, rollbackLike, type UpdatePolicy } from '#proto/model/service.ts';
import { limits } from '#proto/model/validate.ts';
import { refuse } from './diagnostic.ts';
import type { Draft, SaidPolicy } from './draft.ts';
import { type KeyReader, readDuration, readInteger, readKeys, readNumber, readOneOf, readScalars } from './read.ts';
import type { Tree } from './tree.ts';

/** What both ways have in common. */
function keysOf({ findings }: Draft): Record<string, KeyReader<SaidPolicy>> {
  return {
    parallelism: (policy, value) => {
      policy.parallelism = readInteger(findings, value, 0, limits.replicas);
    },
    delay: (policy, value) => {
      policy.delayMs = readDuration(findings, value);
    },
    order: (policy, value) => {
      policy.order = readOneOf(findings, value, ['stop-first', 'start-first']);
    },
    monitor: (policy, value) => {
      policy.monitorMs = readDuration(findings, value);
    },
    max_failure_ratio: (policy, value) => {
      policy.maxFailureRatio = readNumber(findings, value, 0, 1);
    },
  };
}

export function readUpdateConfig(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  draft.updateConfig = tree;
  readKeys(findings, tree, 'update_config', draft.update, {
    ...keysOf(draft),
    failure_action: (policy, value) => {
      policy.failureAction = readOneOf(findings, value, ['pause', 'continue', 'rollback']);
    },
    'x-canary': (policy, value) => {
      const gate = readCanary(draft, value);
      if (gate) policy.gates = [gate, ...(policy.gates ?? [])];
    },
    'x-pause-at': (policy, value) => {
      const gates = readScalars(findings, value, { alone: true }).flatMap((item) => {
        const size = readSize(draft, item);
        return size ? [{ kind: 'pause', ...size, holdMs: 0 } satisfies Gate] : [];
      });
      policy.gates = [...(policy.gates ?? []), ...gates];
    },
  });
}

export function readRollbackConfig(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  draft.updateConfig ??= tree;
  const keys: Record<string, KeyReader<SaidPolicy>> = {
    ...keysOf(draft),
    failure_action: (policy, value) => {
      if (value.kind === 'scalar' && value.source === 'rollback')
        refuse(findings, value, 'a rollback that fails has nothing to go back to', 'write pause or continue');
      else policy.failureAction = readOneOf(findings, value, ['pause', 'continue']);
    },
  };
  readKeys(findings, tree, 'rollback_config', draft.rollback, keys, {
    'x-canary': 'move it to update_config: a way back does not wait',
    'x-pause-at': 'move it to update_config: a way back does not wait',
  });
}

/** Both policies; a way back is, where the file is silent, as the way forward, but without delay and gates. */
export function policiesOf(draft: Draft): { readonly update: UpdatePolicy; readonly rollback: UpdatePolicy } {
  const update: UpdatePolicy = { ...defaults.update, ...withoutGaps(draft.update) };
  return { update, rollback: { ...rollbackLike(update), ...withoutGaps(draft.rollback) } };
}

/** `1`, `10%`, or `{ count: 10%, hold: 5m | manual }`. */
function readCanary(draft: Draft, tree: Tree): Gate | undefined {
  const { findings } = draft;
  if (tree.kind === 'scalar') {
    const size = readSize(draft, tree);
    return size && { kind: 'canary', ...size, holdMs: 0 };
  }
  const said: { size?: Size; holdMs: number } = { holdMs: 0 };
  readKeys(findings, tree, 'x-canary', said, {
    count: (said, value) => {
      const size = readSize(draft, value);
      if (size) said.size = size;
    },
    hold: (said, value) => {
      if (value.kind === 'scalar' && value.source === 'manual') return;
      const holdMs = readDuration(findings, value);
      if (holdMs === 0) refuse(findings, value, 'a canary that is not watched is none', 'write a duration, or manual');
      said.holdMs = holdMs ?? 0;
    },
  });
  return { kind: 'canary', ...(said.size ?? { count: 1, percent: 0 }), holdMs: said.holdMs };
}

type Size = Pick<Gate, 'count' | 'percent'>;

function readSize({ findings }: Draft, tree: Tree): Size | undefined {
  const text = tree.kind === 'scalar' ? tree.source : '';
  const [, amount, unit] = /^(\d{1,5})(%?)$/.exec(text) ?? [];
  const value = Number(amount ?? 0);
  if (value > 0 && value <= (unit ? 100 : limits.replicas))
    return unit ? { count: 0, percent: value } : { count: value, percent: 0 };
  return refuse(
    findings,
    tree,
    `${text ? `"${text}"` : 'this'} is no number of tasks`,
    'write 1 or more, or a share such as 10%',
  );
}

function withoutGaps(said: SaidPolicy): Partial<UpdatePolicy> {
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined));
}
