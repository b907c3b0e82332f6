/** `gantry network`: what services share, and who is on it. */
import { ListRequest, type NetworkSummary } from '#proto/gen/gantry/v1/operator.ts';
import { NetworkSpec } from '#proto/gen/gantry/v1/types.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, pairs, table } from './words.ts';

interface CreateOptions extends CommonOptions {
  readonly driver?: string;
  readonly subnet?: readonly string[];
  readonly gateway?: string;
  readonly ipRange?: string;
  readonly internal?: true;
  readonly ipv6?: true;
  readonly encrypted?: true;
  readonly label?: readonly string[];
  readonly opt?: readonly string[];
}

export function list(options: CommonOptions & { readonly project?: string }): Promise<number> {
  return withSession(options, async (session) => {
    const request = ListRequest.create({ kind: 'network', project: options.project ?? '' });
    const { networks } = await session.call(methods.list, request);
    if (session.json) session.printJson(networks.map(json));
    else if (networks.length === 0) session.print('There are no networks: a project gets one with its first service.');
    else {
      const now = systemClock.now();
      const rows = networks.map(({ network, services, members }) => [
        network?.spec?.name ?? '',
        network?.spec?.driver ?? '',
        (network?.spec?.subnets ?? []).map(({ subnet }) => subnet).join(', '),
        String(services.length),
        String(members.length),
        traits(network?.spec).join(', '),
        ago(network?.createdAtMs ?? 0, now),
      ]);
      session.print(
        table(['NETWORK', 'DRIVER', 'SUBNET', 'SERVICES', 'TASKS', 'TRAITS', 'CREATED'], rows, session.colours.bold),
      );
    }
    return exitCodes.ok;
  });
}

export function inspect(options: CommonOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { object } = await session.call(methods.inspect, { name, kind: 'network' });
    if (object?.$case !== 'network') throw new Fault('internal', 'the control plane answered with something else');
    const { value } = object;
    if (session.json) {
      session.printJson(json(value));
      return exitCodes.ok;
    }
    const spec = value.network?.spec;
    const rows = [
      ['Network', spec?.name ?? ''],
      ['Number', String(value.network?.number ?? '')],
      ['Project', spec?.project || 'none: made by hand'],
      ['Driver', spec?.driver ?? ''],
      ...(spec?.parent ? [['Parent', spec.parent]] : []),
      ...(spec?.subnets ?? []).map(({ subnet, gateway, ipRange, reserved }) => [
        'Subnet',
        [
          subnet,
          gateway && `gateway ${gateway}`,
          ipRange && `gives out ${ipRange}`,
          reserved.length > 0 && `not ${reserved.join(', ')}`,
        ]
          .filter(Boolean)
          .join(', '),
      ]),
      ['Traits', traits(spec).join(', ') || 'none'],
      ...Object.entries(spec?.labels ?? {}).map(([key, text]) => ['Label', `${key}=${text}`]),
      ['Services', value.services.join(', ') || 'none'],
    ];
    session.print(table(rows[0]!, rows.slice(1)));
    if (value.members.length > 0) {
      const members = value.members.map(({ task, node, address, networkAddress }) => [
        task,
        node,
        address,
        networkAddress,
      ]);
      session.print('');
      session.print(table(['TASK', 'NODE', 'ADDRESS', 'ON THIS NETWORK'], members, session.colours.bold));
    }
    return exitCodes.ok;
  });
}

export function create(options: CreateOptions, name: string): Promise<number> {
  const spec = specOf(options, name);
  return withSession(options, async (session) => {
    const network = await session.call(methods.createNetwork, { spec });
    if (session.json) session.printJson(network);
    else session.print(name);
    return exitCodes.ok;
  });
}

export function remove(options: CommonOptions, names: readonly string[]): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.removeNetwork, { names: [...names] });
    if (session.json) session.printJson({ removed: response.names });
    else for (const name of response.names) session.print(name);
    return exitCodes.ok;
  });
}

/** As `docker network create` reads it. Faults: `invalid`. */
function specOf(options: CreateOptions, name: string): NetworkSpec {
  const { driver = 'cluster', subnet = [], gateway = '', ipRange = '' } = options;
  const isCluster = ['cluster', 'bridge', 'overlay'].includes(driver);
  if (!isCluster && driver !== 'macvlan')
    throw new Fault('invalid', `"${driver}" is not a driver of networks`, { remedy: 'use cluster or macvlan' });
  if ((gateway || ipRange) && subnet.length !== 1)
    throw new Fault('invalid', '--gateway and --ip-range are parts of one --subnet', { remedy: 'add --subnet' });
  const drivers = pairs(options.opt ?? [], 'driver option');
  const { parent = '', encrypted, ...others } = drivers;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw new Fault('invalid', `networks have no option "${unknown}"`, { remedy: 'parent and encrypted exist' });
  return NetworkSpec.create({
    name,
    driver: isCluster ? 'cluster' : 'macvlan',
    internal: options.internal === true,
    ipv6: options.ipv6 === true,
    encrypted: options.encrypted === true || (encrypted !== undefined && encrypted !== 'false'),
    subnets: subnet.map((text) => ({ subnet: text, gateway, ipRange, reserved: [] })),
    parent,
    labels: pairs(options.label ?? [], 'label'),
  });
}

function traits(spec: NetworkSpec | undefined): string[] {
  return [spec?.internal && 'internal', spec?.ipv6 && 'IPv6', spec?.encrypted && 'encrypted'].filter(
    (trait): trait is string => typeof trait === 'string',
  );
}

function json({ network, services, members }: NetworkSummary): object {
  return { ...network?.spec, number: network?.number, createdAtMs: network?.createdAtMs, services, members };
}
