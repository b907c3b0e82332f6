/** `ports:` in both syntaxes. */
import type { Port } from '#proto/model/service.ts';
import { type Findings, refuse, warn } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readInteger, readKeys, readOneOf, readText } from './read.ts';
import type { ScalarTree, Tree } from './tree.ts';

const hostAddressRemedy =
  'remove the address: a port is published on every node; mode: host limits it to the nodes of the tasks';

const protocols = ['tcp', 'udp', 'sctp'] as const;

function isProtocol(text: string): text is Port['protocol'] {
  return (protocols as readonly string[]).includes(text);
}

export function readPorts(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  if (tree.kind !== 'list') {
    refuse(findings, tree, 'ports must be a list', 'write - "8080:80"');
    return;
  }
  for (const item of tree.items) {
    const ports =
      item.kind === 'map' ? longPort(findings, item) : item.kind === 'scalar' ? shortPort(findings, item) : undefined;
    if (item.kind === 'list') refuse(findings, item, 'a list is not a port', 'write "8080:80"');
    for (const value of ports ?? []) draft.ports.push({ value, place: item });
  }
}

function shortPort(findings: Findings, item: ScalarTree): Port[] | undefined {
  const text = item.source;
  const bad = (message: string, remedy = 'write "PUBLISHED:TARGET", such as "8080:80" or "53:53/udp"') =>
    refuse(findings, item, message, remedy);
  const [whole, protocol = 'tcp', ...rest] = text.split('/');
  if (rest.length > 0 || !whole) return bad(`"${text}" is not a port`);
  if (!isProtocol(protocol)) return bad(`"${protocol}" is not a protocol`, 'write tcp, udp or sctp');
  const cut = whole.lastIndexOf(':');
  const head = cut < 0 ? '' : whole.slice(0, cut);
  if (/[.:[\]]/.test(head)) return bad(`"${head}": publishing on one host address is not supported`, hostAddressRemedy);
  const targets = range(whole.slice(cut + 1));
  if (!targets) return bad(`"${text}" is not a port`);
  if (cut < 0) {
    warn(
      findings,
      item,
      `port ${whole} is not published: it is reachable inside the cluster only`,
      `write "${whole}:${whole}" to publish it, or use expose:`,
    );
    return targets.map((target) => ({ target, published: 0, protocol, mode: 'ingress' }));
  }
  const published = range(head);
  if (!published) return bad(`"${text}" is not a port`);
  return (
    paired(published, targets, protocol, 'ingress') ??
    bad(`"${text}": the two ranges differ in length`, 'give both sides as many ports')
  );
}

function paired(
  published: readonly number[],
  targets: readonly number[],
  protocol: Port['protocol'],
  mode: Port['mode'],
): Port[] | undefined {
  if (published.length !== targets.length) return undefined;
  return targets.map((target, index) => ({ target, published: published[index]!, protocol, mode }));
}

function longPort(findings: Findings, item: Tree): Port[] | undefined {
  const port: { target?: number; published?: number[]; protocol: Port['protocol']; mode: Port['mode'] } = {
    protocol: 'tcp',
    mode: 'ingress',
  };
  const before = findings.errors.length;
  readKeys(
    findings,
    item,
    'a port',
    port,
    {
      target: (port, value) => {
        const target = readInteger(findings, value, 1, 65_535);
        if (target !== undefined) port.target = target;
      },
      published: (port, value) => {
        const published = range(readText(findings, value) ?? '');
        if (published) port.published = published;
        else
          refuse(
            findings,
            value,
            `${value.kind === 'scalar' ? `"${value.source}"` : 'this'} is not a port`,
            'write a number from 1 to 65535',
          );
      },
      protocol: (port, value) => {
        port.protocol = readOneOf(findings, value, protocols) ?? 'tcp';
      },
      app_protocol: (_, value) =>
        warn(findings, value, 'connections are balanced, not what is said over them', 'remove it'),
      name: (_, value) => warn(findings, value, 'ports have no names here', 'remove it'),
      mode: (port, value) => {
        port.mode = readOneOf(findings, value, ['ingress', 'host']) ?? 'ingress';
      },
    },
    { host_ip: hostAddressRemedy },
  );
  if (port.target === undefined)
    return findings.errors.length > before
      ? undefined
      : refuse(findings, item, 'this port has no target', 'add target: the port in the container');
  const { target, published, protocol, mode } = port;
  if (!published) return [{ target, published: 0, protocol, mode }];
  return (
    paired(published, [target], protocol, mode) ??
    refuse(
      findings,
      item,
      'a range of published ports for one target is not supported',
      'publish one port, or use the short syntax with two ranges',
    )
  );
}

/** `80` or `8000-8010`, inclusive; undefined for anything else. */
function range(text: string): number[] | undefined {
  const [, from, to = from] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const first = Number(from);
  const last = Number(to);
  if (!(first >= 1 && last <= 65_535 && first <= last)) return undefined;
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
