/** `deploy:` and `restart:`: how many, where, and what happens when one ends. */
import { defaults, type RestartPolicy } from '#proto/model/service.ts';
import { limits } from '#proto/model/validate.ts';
import { type Place, refuse } from './diagnostic.ts';
import type { Draft, Said } from './draft.ts';
import { readDevices, readGenericResources } from './generic-resources.ts';
import { readPlacement } from './placement.ts';
import {
  readBytes,
  readCpus,
  readDuration,
  readInteger,
  readKeys,
  readOneOf,
  readRecord,
  readText,
  readTexts,
} from './read.ts';
import type { Tree } from './tree.ts';
import { readRollbackConfig, readUpdateConfig } from './update-config.ts';

type Amounts = { cpuMillis?: Said<number>; memoryBytes?: Said<number>; pids?: Said<number> };

/** Notes an amount; saying it twice with different values is a contradiction. */
export function sayAmount(
  draft: Draft,
  amounts: Amounts,
  name: keyof Amounts,
  value: number | undefined,
  place: Place,
): void {
  if (value === undefined) return;
  const before = amounts[name];
  if (before && before.value !== value)
    refuse(draft.findings, place, `this contradicts ${before.place.path}`, 'keep one of the two');
  amounts[name] = { value, place };
}

export function sayReplicas(draft: Draft, tree: Tree): void {
  const value = readInteger(draft.findings, tree, 0, limits.replicas);
  if (value === undefined) return;
  if (draft.replicas && draft.replicas.value !== value)
    refuse(draft.findings, tree, `this contradicts ${draft.replicas.place.path}`, 'keep one of the two');
  draft.replicas = { value, place: tree };
}

export function readDeploy(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  readKeys(findings, tree, 'deploy', draft, {
    mode: (draft, value) => {
      const mode = readOneOf(findings, value, ['replicated', 'global', 'replicated-job', 'global-job']);
      if (mode) draft.mode = { value: mode, place: value };
    },
    replicas: sayReplicas,
    labels: (draft, value) => {
      draft.labels = readRecord(findings, value);
    },
    endpoint_mode: (draft, value) => {
      const mode = readOneOf(findings, value, ['vip', 'dnsrr']);
      if (mode) draft.endpointMode = mode;
    },
    resources: (draft, value) =>
      readKeys(findings, value, 'resources', draft, {
        limits: (draft, value) =>
          readKeys(findings, value, 'limits', draft.limits, {
            cpus: (amounts, value) => sayAmount(draft, amounts, 'cpuMillis', readCpus(findings, value), value),
            memory: (amounts, value) => sayAmount(draft, amounts, 'memoryBytes', readBytes(findings, value), value),
            pids: (amounts, value) => sayAmount(draft, amounts, 'pids', readInteger(findings, value, 1), value),
          }),
        reservations: (draft, value) =>
          readKeys(findings, value, 'reservations', draft.reservations, {
            cpus: (amounts, value) => sayAmount(draft, amounts, 'cpuMillis', readCpus(findings, value), value),
            memory: (amounts, value) => sayAmount(draft, amounts, 'memoryBytes', readBytes(findings, value), value),
            generic_resources: (_, value) => readGenericResources(draft, value),
            devices: (_, value) => readDevices(draft, value),
          }),
      }),
    restart_policy: readRestartPolicy,
    update_config: readUpdateConfig,
    rollback_config: readRollbackConfig,
    placement: readPlacement,
  });
}

function readRestartPolicy(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const policy: { -readonly [Key in keyof RestartPolicy]: RestartPolicy[Key] } = { ...defaults.restart };
  readKeys(findings, tree, 'restart_policy', policy, {
    condition: (policy, value) => {
      policy.condition = readOneOf(findings, value, ['any', 'on-failure', 'none']) ?? 'any';
      if (policy.condition === 'any') draft.restartsAlways = value;
    },
    delay: (policy, value) => {
      policy.delayMs = readDuration(findings, value) ?? 0;
    },
    max_attempts: (policy, value) => {
      policy.maxAttempts = readInteger(findings, value) ?? 0;
    },
    window: (policy, value) => {
      policy.windowMs = readDuration(findings, value) ?? 0;
    },
  });
  draft.restartPolicy = policy;
}

/** `restart:`, for where `deploy.restart_policy` is silent. */
export function readRestart(draft: Draft, tree: Tree): void {
  const text = readText(draft.findings, tree);
  const attempts = /^on-failure(?::(\d+))?$/.exec(text ?? '');
  if (text === 'no' || text === 'false') draft.restart = { ...defaults.restart, condition: 'none' };
  else if (text === 'always' || text === 'unless-stopped') {
    draft.restart = { ...defaults.restart, condition: 'any' };
    if (!draft.restartPolicy) draft.restartsAlways = tree;
  } else if (attempts)
    draft.restart = { ...defaults.restart, condition: 'on-failure', maxAttempts: Number(attempts[1] ?? 0) };
  else if (text !== undefined)
    refuse(
      draft.findings,
      tree,
      `"${text}" is not a restart policy`,
      'write no, always, on-failure[:N] or unless-stopped',
    );
}

/** `platform:` */
export function readPlatform(draft: Draft, tree: Tree): void {
  for (const text of readTexts(draft.findings, tree, { alone: true })) {
    if (text === '') continue;
    if (/^[a-z0-9]+\/[a-z0-9_]+(\/[a-z0-9]+)?$/.test(text))
      draft.placement.platforms = [...draft.placement.platforms, text];
    else refuse(draft.findings, tree, `"${text}" is not a platform`, 'write os/arch, such as linux/amd64');
  }
}
