/** `healthcheck:` of a service: a command in its container, or by `x-` a probe that the agent makes. */
import { isJob } from '#proto/model/job.ts';
import type { NetworkMode } from '#proto/model/network.ts';
import { type Isolation, unhealthyActions } from '#proto/model/probe.ts';
import { defaults, type HealthCheck, type ServiceSpec } from '#proto/model/service.ts';
import { limits } from '#proto/model/validate.ts';
import { type Place, refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { restartOf } from './jobs.ts';
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
    'x-on-unhealthy': (said, value) => readOnUnhealthy(draft, value, said),
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

/** An action, or a map with it and how much is isolated. */
function readOnUnhealthy(draft: Draft, tree: Tree, said: Said): void {
  const { findings } = draft;
  const isolation: { atMost?: Place; forMs?: Place } = {};
  const bounds: { -readonly [Key in keyof Isolation]: Isolation[Key] } = { ...defaults.isolation };
  const read = (value: Tree) => {
    said.onUnhealthy = readOneOf(findings, value, unhealthyActions);
  };
  if (tree.kind === 'scalar') read(tree);
  else
    readKeys(findings, tree, 'x-on-unhealthy', bounds, {
      action: (_, value) => read(value),
      'at-most': (bounds, value) => {
        isolation.atMost = value;
        bounds.atMost = readInteger(findings, value, 1, limits.isolated) ?? bounds.atMost;
      },
      for: (bounds, value) => {
        isolation.forMs = value;
        const ms = readDuration(findings, value);
        if (ms !== undefined && ms < leastIsolationMs)
          refuse(findings, value, 'nobody can look at it in that time', 'write at least 1s');
        bounds.forMs = ms ?? bounds.forMs;
      },
    });
  const place = isolation.atMost ?? isolation.forMs;
  if (said.onUnhealthy === 'isolate') draft.isolation = { value: bounds, place: tree };
  else if (place) refuse(findings, place, 'it says how much is isolated, and nothing is', 'write action: isolate');
}

/** Where another one cannot run beside it, or never comes. */
export function refuseIsolation(draft: Draft, mode: ServiceSpec['mode'], networkMode: NetworkMode): void {
  const { findings, isolation } = draft;
  if (!isolation) return;
  const { place } = isolation;
  if (isJob({ mode })) refuse(findings, place, 'tasks of a job are not isolated', 'remove it: they have no calls');
  else if (restartOf(draft).condition === 'none')
    refuse(
      findings,
      place,
      'isolated tasks are replaced, and its restart policy begins none again',
      'write on-failure',
    );
  if (draft.failover === 'singleton')
    refuse(findings, place, 'a singleton has one task, and an isolated one would be a second', 'write replace');
  if (networkMode.startsWith('service:'))
    refuse(
      findings,
      place,
      `with network_mode: ${networkMode} two of its tasks cannot run side by side`,
      'write replace',
    );
}

const leastIsolationMs = 1_000;

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
