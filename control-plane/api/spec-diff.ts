/** What differs between two specs, in the words of a Compose file; values of variables stay out of it, they may be secret. */
import { type DocumentMount, documentKey } from '#proto/model/document.ts';
import type { AllowFrom, NetworkAttachment, NetworkSpec } from '#proto/model/network.ts';
import type { Gate, Mount, ServiceSpec } from '#proto/model/service.ts';
import { isNothing, isRecord, mountWords, settingWords, snake } from './setting-words.ts';

/** By the longest path that fits; what has none is called as in the model. */
const names: Readonly<Record<string, string>> = {
  'template.container.deviceRules': 'device_cgroup_rules',
  'template.container.shmBytes': 'shm_size',
  'template.container.pullMaxAgeMs': 'pull_policy: every',
  'template.container.seccompProfile': 'security_opt: seccomp',
  'template.container.apparmorProfile': 'security_opt: apparmor',
  'template.container.systemPathsUnconfined': 'security_opt: systempaths=unconfined',
  'template.container.logging.maxSizeBytes': 'logging.max-size',
  'template.controls.cpusetCpus': 'cpuset',
  'template.controls.memorySwapBytes': 'memswap_limit',
  'template.controls.memorySwappiness': 'mem_swappiness',
  'template.controls.blkioWeight': 'blkio_config.weight',
  'template.controls.blkioWeights': 'blkio_config.weight_device',
  'template.controls.blkioRates': 'blkio_config',
  'template.controls': '',
  'template.container': '',
  'template.limits': 'limits',
  'template.reservations': 'reservations',
  'template.runtime': 'runtime',
  'template.networkMode': 'networkMode',
  'template.bandwidth': 'bandwidth',
  schedule: 'x-schedule',
  maxConcurrent: 'x-max-concurrent',
};

type Pairs = readonly (readonly [name: string, value: string])[];

/** One line for each thing that differs; empty: nothing does. */
export function specDiff(before: ServiceSpec, after: ServiceSpec): string[] {
  const lines: string[] = [];
  walk(before, after, '', lines);
  return lines;
}

/** As `specDiff`, of networks. */
export function networkDiff(before: NetworkSpec, after: NetworkSpec): string[] {
  const lines: string[] = [];
  walk(before, after, '', lines);
  return lines;
}

function walk(before: unknown, after: unknown, path: string, lines: string[]): void {
  if (path === 'template.container.env') {
    const [was, is] = [before, after].map((list) => (list as readonly string[]).map(split));
    pairsDiff('environment', was!, is!, lines);
    return;
  }
  // What is in them may be secret, as in variables.
  if (path === 'template.container.annotations') {
    const [was, is] = [before, after].map((value) => Object.entries(value as Readonly<Record<string, string>>));
    pairsDiff('annotations', was!, is!, lines);
    return;
  }
  if (path === 'template.container.seccompProfile') {
    if (before !== after)
      lines.push(`${label(path)}: ${after === '' ? 'removed' : before === '' ? 'added' : 'changed'}`);
    return;
  }
  if (path === 'allowFrom') {
    const [was, is] = [before, after].map((value) => callersWords(value as AllowFrom | undefined));
    if (was !== is) lines.push(`x-allow-from: ${was} → ${is}`);
    return;
  }
  if (isRecord(before) || isRecord(after)) {
    const [was, is] = [before, after].map((value) => (isRecord(value) ? value : {}));
    for (const key of new Set([...Object.keys(was!), ...Object.keys(is!)])) {
      // Of what is all new or all gone, what says nothing is nothing to tell.
      if ((before === undefined && isNothing(is![key])) || (after === undefined && isNothing(was![key]))) continue;
      walk(was![key], is![key], path ? `${path}.${key}` : key, lines);
    }
    return;
  }
  if (path === 'template.networks') {
    const [was, is] = [before, after].map((list) => (list as readonly NetworkAttachment[]).map(attachmentWords));
    if (JSON.stringify(was) !== JSON.stringify(is))
      lines.push(`networks: ${settingWords('', was)} → ${settingWords('', is)}`);
    return;
  }
  if (path === 'update.gates') {
    const [was, is] = [before, after].map((gates) => (gates as readonly Gate[]).map(gateWords).join(', '));
    if (was !== is) lines.push(`gates: ${settingWords('', was)} → ${settingWords('', is)}`);
    return;
  }
  if (path === 'template.documents') {
    documentsDiff(before as readonly DocumentMount[], after as readonly DocumentMount[], lines);
    return;
  }
  if (path === 'template.container.mounts') {
    mountsDiff(before as readonly Mount[], after as readonly Mount[], lines);
    return;
  }
  if (JSON.stringify(before) === JSON.stringify(after)) return;
  const [was, is] = [before, after].map((value) => settingWords(path, value));
  if (was !== is) lines.push(`${label(path)}: ${was} → ${is}`);
}

function callersWords(allowFrom: AllowFrom | undefined): string {
  return allowFrom === undefined ? 'all' : settingWords('', allowFrom.services);
}

/** By target, as each is another one. */
function mountsDiff(before: readonly Mount[], after: readonly Mount[], lines: string[]): void {
  const [was, is] = [before, after].map((mounts) => new Map(mounts.map((mount) => [mount.target, mountWords(mount)])));
  for (const [target, words] of is!) {
    const old = was!.get(target);
    if (old === undefined) lines.push(`volumes: ${target} added (${words})`);
    else if (old !== words) lines.push(`volumes: ${target}: (${old}) → (${words})`);
  }
  for (const [target, words] of was!) if (!is!.has(target)) lines.push(`volumes: ${target} removed (${words})`);
}

function gateWords({ kind, count, percent, holdMs }: Gate): string {
  return `${kind} at ${percent > 0 ? `${percent}%` : count}${holdMs > 0 ? ` for ${holdMs / 1_000} s` : ''}`;
}

function attachmentWords({ network, aliases, ipv4Address }: NetworkAttachment): string {
  const words = [...aliases.map((alias) => `as ${alias}`), ...(ipv4Address ? [`at ${ipv4Address}`] : [])];
  return words.length > 0 ? `${network} (${words.join(', ')})` : network;
}

/** By target: what a file says is not shown, only that it says something else. */
function documentsDiff(before: readonly DocumentMount[], after: readonly DocumentMount[], lines: string[]): void {
  const was = new Map(before.map((mount) => [mount.target, mount]));
  const is = new Map(after.map((mount) => [mount.target, mount]));
  for (const [target, mount] of is) {
    const old = was.get(target);
    const name = `${mount.type} ${mount.name} at ${target}`;
    if (!old) lines.push(`${name} added`);
    else if (documentKey(old) !== documentKey(mount)) lines.push(`${name} instead of ${old.type} ${old.name}`);
    else if (old.version !== mount.version) lines.push(`${name}: another content`);
    else if (JSON.stringify(old) !== JSON.stringify(mount)) lines.push(`${name}: another owner or mode`);
  }
  for (const [target, { type, name }] of was) if (!is.has(target)) lines.push(`${type} ${name} at ${target} removed`);
}

function pairsDiff(what: string, before: Pairs, after: Pairs, lines: string[]): void {
  const [was, is] = [new Map(before), new Map(after)];
  for (const [name, value] of is) {
    if (!was.has(name)) lines.push(`${what}: ${name} added`);
    else if (was.get(name) !== value) lines.push(`${what}: ${name} changed`);
  }
  for (const name of was.keys()) if (!is.has(name)) lines.push(`${what}: ${name} removed`);
}

function split(entry: string): readonly [string, string] {
  const cut = entry.indexOf('=');
  return [entry.slice(0, cut), entry.slice(cut + 1)];
}

function label(path: string): string {
  for (const [prefix, name] of Object.entries(names))
    if (path === prefix || path.startsWith(`${prefix}.`))
      return snake(`${name}${path.slice(prefix.length)}`.replace(/^\./, ''));
  return snake(path);
}
