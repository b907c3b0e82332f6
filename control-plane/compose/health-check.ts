/** `healthcheck:` of a service: a command in its container, or by `x-` a probe that the agent makes. */
import { unhealthyActions } from '#proto/model/probe.ts';
import { defaults, type HealthCheck } from '#proto/model/service.ts';
import { refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readGrpcProbe, readHttpProbe, readTcpProbe } from './probes.ts';
import { isNull, readBoolean, readDuration, readInteger, readKeys, readOneOf, readText, readTexts } from './read.ts';
import type { Tree } from './tree.ts';

type Said = { -readonly [Key in keyof HealthCheck]?: HealthCheck[Key] } & { disable?: boolean };

export function readHealthCheck(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const said: Said = {};
  const before = findings.errors.length;
  const probe = (kind: 'http' | 'tcp' | 'grpc', value: Tree, read: () => void) => {
    const other = (['http', 'tcp', 'grpc'] as const).find((one) => said[one] !== undefined);
    if (other) refuse(findings, value, `x-${kind} and x-${other} are two probes`, 'keep one of them');
    read();
  };
  readKeys(findings, tree, 'healthcheck', said, {
    test: (said, value) => {
      said.test = readTest(draft, value) ?? [];
    },
    interval: (said, value) => {
      said.intervalMs = readPositive(draft, value);
    },
    timeout: (said, value) => {
      said.timeoutMs = readPositive(draft, value);
    },
    start_period: (said, value) => {
      said.startPeriodMs = readDuration(findings, value) ?? 0;
    },
    start_interval: (said, value) => {
      said.startIntervalMs = readPositive(draft, value);
    },
    retries: (said, value) => {
      said.retries = readInteger(findings, value, 1, 1_000) ?? 0;
    },
    disable: (said, value) => {
      said.disable = readBoolean(findings, value) ?? false;
    },
    'x-http': (said, value) =>
      probe('http', value, () => {
        said.http = readHttpProbe(findings, value);
      }),
    'x-tcp': (said, value) =>
      probe('tcp', value, () => {
        said.tcp = readTcpProbe(findings, value);
      }),
    'x-grpc': (said, value) =>
      probe('grpc', value, () => {
        said.grpc = readGrpcProbe(findings, value);
      }),
    'x-on-unhealthy': (said, value) => {
      said.onUnhealthy = readOneOf(findings, value, unhealthyActions);
    },
  });
  if (isNull(tree) || findings.errors.length > before) return;
  const { disable, test = [], ...fields } = said;
  const isProbe = fields.http ?? fields.tcp ?? fields.grpc;
  if (isProbe && test.length > 0)
    refuse(findings, tree, 'a test and a probe are two checks', 'keep one of them: what the test does, or the probe');
  else if (disable || test[0] === 'NONE')
    draft.container.healthCheck = { ...defaults.healthCheck, ...fields, test: ['NONE'] };
  // A check that has no test of its own keeps the image's, and of its times those that are not said.
  else if (isProbe || test.length > 0) draft.container.healthCheck = { ...defaults.healthCheck, ...fields, test };
  else draft.container.healthCheck = { ...unsaid, ...fields, test };
}

const unsaid = {
  ...defaults.healthCheck,
  intervalMs: 0,
  timeoutMs: 0,
  startPeriodMs: 0,
  startIntervalMs: 0,
  retries: 0,
};

function readPositive({ findings }: Draft, tree: Tree): number {
  const ms = readDuration(findings, tree);
  if (ms === 0) refuse(findings, tree, 'interval and timeout must be longer than 0', 'write 10s');
  return ms ?? 0;
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
