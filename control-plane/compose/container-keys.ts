/** Keys of a service that say what its container is to its host: names, namespaces, devices, groups, logging. */
import type { DeviceRule } from '#proto/model/service.ts';
import { isHostName } from '#proto/model/validate.ts';
import { type Findings, refuse, suggestion, warn } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import {
  type KeyReader,
  readBoolean,
  readBytes,
  readInteger,
  readKeys,
  readOneOf,
  readRecord,
  readScalars,
  readText,
} from './read.ts';
import type { ScalarTree, Tree } from './tree.ts';
import { parseBytes, parseDuration } from './units.ts';

export function containerKeys(findings: Findings): Readonly<Record<string, KeyReader<Draft>>> {
  return {
    annotations: (draft, value) => {
      draft.container.annotations = readRecord(findings, value);
    },
    attach: (_, value) => {
      if (readBoolean(findings, value) !== undefined)
        warn(findings, value, 'attach: means nothing here: gantry apply shows no output', 'see gantry logs -f');
    },
    cgroup: (draft, value) => {
      draft.container.cgroup = readOneOf(findings, value, ['private', 'host']) === 'host' ? 'host' : '';
    },
    container_name: (draft, value) => {
      const name = readText(findings, value) ?? '';
      if (isHostName(name)) draft.container.containerName = name;
      else refuse(findings, value, `"${name}" cannot be a name in DNS`, 'use letters, digits, - and _');
    },
    device_cgroup_rules: (draft, value) => {
      draft.container.deviceRules = readScalars(findings, value).flatMap((item) => deviceRule(findings, item));
    },
    devices: readDevices,
    domainname: (draft, value) => {
      const name = readText(findings, value) ?? '';
      if (isHostName(name)) draft.container.domainname = name;
      else refuse(findings, value, `"${name}" is not a domain name`, 'write example.com');
    },
    group_add: (draft, value) => {
      draft.container.groupAdd = readScalars(findings, value).flatMap((item) => {
        if (/^[^\s:]+$/.test(item.source)) return [item.source];
        refuse(findings, item, `"${item.source}" is not a group`, 'write the name or number of a group');
        return [];
      });
    },
    ipc: (draft, value) => {
      const mode = readNamespace(findings, value, 'ipc', ['private', 'shareable', 'host']);
      draft.container.ipc = mode === 'host' ? 'host' : '';
    },
    isolation: (_, value) => {
      if (readText(findings, value) !== 'default')
        refuse(findings, value, 'isolation technologies are those of Windows', 'remove it, or write default');
    },
    logging: readLogging,
    oom_score_adj: (draft, value) => {
      draft.container.oomScoreAdj = readInteger(findings, value, -1_000, 1_000) ?? 0;
    },
    pid: (draft, value) => {
      const [, name] = /^service:(.+)$/.exec(value.kind === 'scalar' ? value.source : '') ?? [];
      if (name !== undefined) draft.container.pid = `service:${name}`;
      else if (readNamespace(findings, value, 'pid', ['host']) === 'host') draft.container.pid = 'host';
    },
    pull_policy: readPullPolicy,
    pull_refresh_after: (draft, value) => {
      const age = readAge(findings, value);
      if (age !== undefined) draft.pullRefreshAfter = { value: age, place: value };
    },
    shm_size: (draft, value) => {
      const bytes = readBytes(findings, value);
      if (bytes === 0) refuse(findings, value, 'shared memory of no size is none', 'write a size such as 64m');
      else if (bytes !== undefined) draft.container.shmBytes = bytes;
    },
    userns_mode: (_, value) => {
      if (readText(findings, value) !== 'host')
        refuse(findings, value, 'user namespaces are not made here: root is root', 'remove it, and set user:');
    },
    uts: (draft, value) => {
      if (readNamespace(findings, value, 'uts', ['host']) === 'host') draft.container.uts = 'host';
    },
  };
}

/** `pull_policy: refresh` and `pull_refresh_after` have a sense only together. */
export function settlePull(draft: Draft): void {
  const { pullRefreshAfter: age, findings } = draft;
  if (draft.pullRefresh && age) draft.container.pullMaxAgeMs = age.value;
  else if (age)
    refuse(findings, age.place, 'pull_refresh_after goes with pull_policy: refresh', 'add that, or remove this');
  else if (draft.pullRefresh)
    refuse(
      findings,
      draft.pullRefresh,
      'refresh does not say how often',
      'add pull_refresh_after: 24h, or write daily',
    );
}

function readNamespace<T extends string>(
  findings: Findings,
  value: Tree,
  key: string,
  allowed: readonly T[],
): T | undefined {
  const text = value.kind === 'scalar' ? value.source : '';
  if (text.startsWith('service:') || text.startsWith('container:'))
    return refuse(
      findings,
      value,
      `${key}: "${text}" is not supported by Gantry: tasks may be on different nodes`,
      key === 'pid' ? 'write service:NAME, with network_mode: service:NAME' : 'remove it',
    );
  return readOneOf(findings, value, allowed);
}

function deviceRule(findings: Findings, item: ScalarTree): DeviceRule[] {
  const [, type, major, minor, permissions] = /^([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})$/.exec(item.source.trim()) ?? [];
  if (type === undefined) {
    refuse(findings, item, `"${item.source}" is not a rule for devices`, 'write "c 189:* rmw"');
    return [];
  }
  const number = (text = '') => (text === '*' ? -1 : Number(text));
  return [
    { type: type as DeviceRule['type'], major: number(major), minor: number(minor), permissions: permissions ?? '' },
  ];
}

function readDevices(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  if (tree.kind !== 'list') {
    refuse(findings, tree, 'devices must be a list', 'write - /dev/fuse');
    return;
  }
  draft.container.devices = tree.items.flatMap((item) => {
    const device = item.kind === 'map' ? longDevice(findings, item) : shortDevice(findings, item);
    if (device.source.includes('='))
      refuse(
        findings,
        item,
        `"${device.source}" is a device of CDI, which nodes do not offer`,
        'name the files in /dev that it stands for',
      );
    else if (!device.source.startsWith('/') || !device.target.startsWith('/'))
      refuse(findings, item, 'a device needs absolute paths', 'write /dev/ttyUSB0:/dev/ttyUSB0:rwm');
    else if (!/^[rwm]{1,3}$/.test(device.permissions))
      refuse(findings, item, `"${device.permissions}" are not permissions of a device`, 'use r, w and m');
    else return [device];
    return [];
  });
}

function shortDevice(findings: Findings, item: Tree) {
  const [source = '', second = source, third] = (readText(findings, item, 'a device') ?? '').split(':');
  if (third === undefined && /^[rwm]{1,3}$/.test(second)) return { source, target: source, permissions: second };
  return { source, target: second, permissions: third ?? 'rwm' };
}

function longDevice(findings: Findings, item: Tree) {
  const device = { source: '', target: '', permissions: 'rwm' };
  const text = (field: keyof typeof device) => (said: typeof device, value: Tree) => {
    said[field] = readText(findings, value) ?? '';
  };
  readKeys(findings, item, 'a device', device, {
    source: text('source'),
    target: text('target'),
    permissions: text('permissions'),
  });
  return { ...device, target: device.target || device.source };
}

const laterLogOptions: Readonly<Record<string, string>> = {
  compress: 'remove it: a node keeps two files of a task',
  env: 'remove it: gantry logs names service, task and node',
  'env-regex': 'remove it: gantry logs names service, task and node',
  labels: 'remove it: gantry logs names service, task and node',
  'labels-regex': 'remove it: gantry logs names service, task and node',
  'max-buffer-size': 'remove it: nothing is dropped',
  tag: 'remove it: gantry logs names service, task and node',
};

function readLogging(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const logging = { driver: '' as '' | 'none', maxSizeBytes: 0 };
  readKeys(findings, tree, 'logging', logging, {
    driver: (logging, value) => {
      const driver = readText(findings, value) ?? '';
      if (driver === 'none') logging.driver = 'none';
      else if (driver !== 'json-file' && driver !== 'local') {
        const guess = suggestion(driver, ['json-file', 'local', 'none']);
        refuse(
          findings,
          value,
          `the log driver "${driver}" is not supported by Gantry: all output goes to the cluster's log`,
          guess ? `did you mean "${guess}"?` : 'remove it, and read by gantry logs; or write none',
        );
      }
    },
    options: (logging, value) =>
      readKeys(
        findings,
        value,
        'logging.options',
        logging,
        {
          'max-size': (logging, value) => {
            const bytes = value.kind === 'scalar' ? parseBytes(value.source) : undefined;
            if (bytes !== undefined && bytes >= 4_096) logging.maxSizeBytes = bytes;
            else if (!(value.kind === 'scalar' && value.source === '-1'))
              refuse(findings, value, 'this is not a size of a log file', 'write 10m; at least 4k');
          },
          'max-file': (_, value) => {
            const files = readInteger(findings, value, 1);
            if (files !== undefined && files !== 2)
              warn(findings, value, 'a node keeps two files of a log: what is older is in the cluster’s', '');
          },
          mode: (_, value) => {
            if (readOneOf(findings, value, ['blocking', 'non-blocking']) === 'non-blocking')
              refuse(findings, value, 'output is never dropped for being slow to log', 'remove it');
          },
        },
        laterLogOptions,
      ),
  });
  if (logging.driver === 'none' && logging.maxSizeBytes > 0)
    refuse(findings, tree, 'what is not logged has no size', 'remove max-size, or driver: none');
  draft.container.logging = logging;
}

const dayMs = 86_400_000;

function readPullPolicy(draft: Draft, value: Tree): void {
  const { findings, container } = draft;
  const text = readText(findings, value) ?? '';
  container.pullPolicy = 'missing';
  if (text.startsWith('every_')) {
    const age = ageOf(text.slice('every_'.length));
    if (age !== undefined) container.pullMaxAgeMs = age;
    else refuse(findings, value, `"${text}" does not say how often`, 'write every_12h, every_3d or every_1w');
  } else if (text === 'daily' || text === 'weekly') container.pullMaxAgeMs = text === 'daily' ? dayMs : 7 * dayMs;
  else if (text === 'refresh') draft.pullRefresh = value;
  else if (text === 'build')
    refuse(findings, value, 'images are not built at apply', 'build and push it, and remove pull_policy');
  else {
    const policy = readOneOf(findings, value, ['always', 'never', 'missing', 'if_not_present', 'daily', 'weekly']);
    if (policy === 'always' || policy === 'never') container.pullPolicy = policy;
  }
}

function readAge(findings: Findings, value: Tree): number | undefined {
  const age = value.kind === 'scalar' ? ageOf(value.source) : undefined;
  return age ?? refuse(findings, value, 'this does not say how often', 'write a duration such as 12h, 3d or 1w');
}

/** As durations, with weeks; undefined for anything else, and for none at all. */
function ageOf(text: string): number | undefined {
  const [, weeks, rest = ''] = /^(?:(\d+)w)?(.*)$/.exec(text) ?? [];
  const more = rest === '' ? 0 : parseDuration(rest);
  const age = more === undefined ? 0 : Number(weeks ?? 0) * 7 * dayMs + more;
  return age > 0 ? age : undefined;
}
