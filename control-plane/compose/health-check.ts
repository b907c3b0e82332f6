/** `healthcheck:` of a service. */
import { defaults, type HealthCheck } from '#proto/model/service.ts';
import { refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { isNull, readBoolean, readDuration, readInteger, readKeys, readText, readTexts } from './read.ts';
import type { Tree } from './tree.ts';

export function readHealthCheck(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const check: { -readonly [Key in keyof HealthCheck]: HealthCheck[Key] } & { disable?: boolean } = {
    ...defaults.healthCheck,
    test: [],
  };
  const before = findings.errors.length;
  readKeys(findings, tree, 'healthcheck', check, {
    test: (check, value) => {
      check.test = readTest(draft, value) ?? [];
    },
    interval: (check, value) => {
      check.intervalMs = readDuration(findings, value) ?? check.intervalMs;
    },
    timeout: (check, value) => {
      check.timeoutMs = readDuration(findings, value) ?? check.timeoutMs;
    },
    start_period: (check, value) => {
      check.startPeriodMs = readDuration(findings, value) ?? 0;
    },
    start_interval: (check, value) => {
      check.startIntervalMs = readDuration(findings, value) ?? check.startIntervalMs;
    },
    retries: (check, value) => {
      check.retries = readInteger(findings, value, 1, 1_000) ?? check.retries;
    },
    disable: (check, value) => {
      check.disable = readBoolean(findings, value) ?? false;
    },
  });
  if (isNull(tree) || findings.errors.length > before) return;
  const { disable, ...fields } = check;
  if (disable || fields.test[0] === 'NONE') draft.container.healthCheck = { ...fields, test: ['NONE'] };
  else if (fields.test.length === 0)
    refuse(findings, tree, 'a healthcheck without a test is not supported yet', 'add test:, as CMD or CMD-SHELL');
  else if (fields.intervalMs <= 0 || fields.timeoutMs <= 0)
    refuse(findings, tree, 'interval and timeout must be longer than 0', 'write 10s');
  else draft.container.healthCheck = fields;
}

function readTest(draft: Draft, tree: Tree): readonly string[] | undefined {
  const { findings } = draft;
  if (tree.kind === 'scalar') {
    const text = readText(findings, tree);
    return text === undefined ? undefined : text === 'NONE' ? ['NONE'] : ['CMD-SHELL', text];
  }
  const test = readTexts(findings, tree);
  const [kind, ...rest] = test;
  if (kind === 'NONE' || (kind === 'CMD' && rest.length > 0) || (kind === 'CMD-SHELL' && rest.length === 1))
    return test;
  return refuse(
    findings,
    tree,
    'this is not a test',
    'write ["CMD", program, arguments…], ["CMD-SHELL", line] or ["NONE"]',
  );
}
