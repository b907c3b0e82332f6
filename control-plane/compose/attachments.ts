/** What a service says of its networks: `networks`, `network_mode`, `links`, and the `x-` keys of its traffic. */
import type { Link, NetworkAttachment } from '#proto/model/network.ts';
import { isHostName, isName } from '#proto/model/validate.ts';
import { type Findings, refuse, suggestion } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import type { DeclaredNetworks } from './networks.ts';
import { isNull, readDuration, readInteger, readKeys, readOneOf, readScalars, readText } from './read.ts';
import type { Tree } from './tree.ts';
import { parseBitRate } from './units.ts';

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** Both syntaxes; none at all is the project's default network. */
export function readServiceNetworks(draft: Draft, tree: Tree, declared: DeclaredNetworks): void {
  const { findings } = draft;
  const keys: { readonly key: string; readonly place: Tree; readonly options?: Tree }[] = [];
  if (tree.kind === 'list')
    for (const item of readScalars(findings, tree)) keys.push({ key: item.source, place: item });
  else if (tree.kind === 'map')
    for (const [key, { keyAt, value }] of tree.entries)
      keys.push({ key, place: { ...value, at: keyAt, path: `${tree.path}.${key}` }, options: value });
  else refuse(findings, tree, 'networks must be a list or a map', 'write networks: [front]');
  const priorities = new Map<NetworkAttachment, number>();
  for (const { key, place, options } of keys) {
    const network = declared.get(key);
    if (!network) {
      const guess = suggestion(key, declared.keys());
      refuse(
        findings,
        place,
        `network "${key}" is not declared`,
        guess ? `did you mean "${guess}"?` : 'add it under the top-level networks:',
      );
      continue;
    }
    const attachment: Mutable<NetworkAttachment> = { network: network.spec.name, aliases: [], ipv4Address: '' };
    if (draft.attachments.some(({ value }) => value.network === attachment.network)) {
      refuse(findings, place, `network "${attachment.network}" is named twice`, 'keep one of them');
      continue;
    }
    if (options && !isNull(options)) priorities.set(attachment, readAttachment(findings, options, attachment));
    draft.attachments.push({ value: attachment, place });
  }
  draft.networks = { value: true, place: tree };
  // Docker connects the one of the highest priority first: here it decides the order of the interfaces.
  draft.attachments.sort((a, b) => (priorities.get(b.value) ?? 0) - (priorities.get(a.value) ?? 0));
}

/** Its priority. */
function readAttachment(findings: Findings, tree: Tree, attachment: Mutable<NetworkAttachment>): number {
  const found = { priority: 0 };
  readKeys(
    findings,
    tree,
    'a network of a service',
    found,
    {
      aliases: (_, value) => {
        attachment.aliases = readScalars(findings, value).flatMap((item) => {
          if (isHostName(item.source)) return [item.source];
          refuse(
            findings,
            item,
            `"${item.source}" is not a host name`,
            'use letters, digits, . and -, at most 63 each',
          );
          return [];
        });
      },
      ipv4_address: (_, value) => {
        attachment.ipv4Address = readText(findings, value) ?? '';
      },
      priority: (found, value) => {
        found.priority = readInteger(findings, value, 0) ?? 0;
      },
    },
    {
      driver_opts: 'remove it',
      gw_priority: 'remove it: tasks leave the cluster by their host',
      interface_name: 'remove it: interfaces are called eth0, eth1 …',
      ipv6_address: 'remove it: the IPv6 address follows from the IPv4 one, which ipv4_address sets',
      link_local_ips: 'remove it',
      mac_address: 'remove it',
    },
  );
  return found.priority;
}

export function readNetworkMode(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const mode = readText(findings, tree) ?? '';
  if (mode === 'bridge' || mode === 'default') return;
  if (mode === 'host' || mode === 'none') draft.networkMode = { value: mode, place: tree };
  else if (mode.startsWith('service:')) {
    const name = mode.slice('service:'.length);
    draft.networkMode = { value: `service:${name}`, place: tree };
  } else if (mode.startsWith('container:'))
    refuse(findings, tree, 'a container is not known beforehand', 'write network_mode: service:NAME');
  else
    refuse(
      findings,
      tree,
      `"${mode}" is not a network mode`,
      'write host, none or service:NAME, or name a network under networks:',
    );
}

/** `SERVICE` or `SERVICE:ALIAS`; whether there is such a service is asked when all are known. */
export function readLinks(draft: Draft, tree: Tree): void {
  const links: Link[] = [];
  for (const item of readScalars(draft.findings, tree)) {
    const [service = '', alias = service, ...rest] = item.source.split(':');
    if (!isName(service) || !isHostName(alias) || rest.length > 0)
      refuse(draft.findings, item, `"${item.source}" is not a link`, 'write SERVICE or SERVICE:ALIAS');
    else {
      links.push({ service, alias });
      draft.links.push({ value: service, place: item });
    }
  }
  draft.container.links = links;
}

/** Services that alone may call this one; an empty list: nobody. */
export function readAllowFrom(draft: Draft, tree: Tree): void {
  const callers = readScalars(draft.findings, tree, { alone: true }).filter((item) => {
    const parts = item.source.split('/');
    if (item.source === '*' || (parts.length <= 2 && parts.every(isName))) return true;
    refuse(draft.findings, item, `"${item.source}" is not a service`, 'write NAME, PROJECT/NAME or "*"');
    return false;
  });
  draft.allowFrom = callers.map((item) => ({ value: item.source, place: item }));
}

export function readSticky(draft: Draft, tree: Tree): void {
  const sticky = readOneOf(draft.findings, tree, ['client', 'none']);
  if (sticky) draft.sticky = sticky === 'client' ? 'client' : '';
}

export function readBandwidth(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const bandwidth = { egressBitsPerSecond: 0, ingressBitsPerSecond: 0 };
  const rate = (value: Tree): number => {
    const bits = value.kind === 'scalar' ? parseBitRate(value.source) : undefined;
    if (bits !== undefined) return bits;
    refuse(
      findings,
      value,
      `"${value.kind === 'scalar' ? value.source : value.kind}" is not a rate from 8kbit to 32gbit`,
      'write bits per second, such as 500kbit, 10mbit or 1gbit',
    );
    return 0;
  };
  readKeys(findings, tree, 'x-bandwidth', bandwidth, {
    egress: (bandwidth, value) => {
      bandwidth.egressBitsPerSecond = rate(value);
    },
    ingress: (bandwidth, value) => {
      bandwidth.ingressBitsPerSecond = rate(value);
    },
  });
  draft.bandwidth = { value: bandwidth, place: tree };
}

/** How long connections of others may go on before the stop signal. */
export function readDrain(draft: Draft, tree: Tree): void {
  const ms = readDuration(draft.findings, tree);
  if (ms === undefined) return;
  draft.container.drainMs = ms;
  draft.drain = tree;
}
