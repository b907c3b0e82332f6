/** The environment that Docker's links give a container, of a service that its own links to. Pure. */
import type { LinkedPort, LinkedService } from '#proto/model/assignment.ts';
import type { ImageConfig } from '../runtime/runtime.ts';

/**
 * Variables of one link of `service`: ALIAS_NAME, ALIAS_PORT (its lowest port), ALIAS_PORT_<number>_<protocol> with _ADDR,
 * _PORT and _PROTO for each port, ALIAS_ENV_<name>. Addresses are the service's virtual one, which outlives its tasks; without
 * one (dnsrr) the alias stands in its place, as a name that DNS knows. `image`: the linked service's, where it is known.
 */
export function linkEnv(
  service: string,
  link: LinkedService,
  image: Pick<ImageConfig, 'exposedPorts' | 'env'> | undefined,
): readonly string[] {
  const prefix = link.alias.toUpperCase().replaceAll('-', '_');
  const address = link.vip || link.alias;
  const ports = portsOf(link, image?.exposedPorts ?? []);
  const url = ({ number, protocol }: LinkedPort) => `${protocol}://${address}:${number}`;
  const [lowest] = ports;
  return [
    `${prefix}_NAME=/${service}/${link.alias}`,
    ...(lowest ? [`${prefix}_PORT=${url(lowest)}`] : []),
    ...ports.flatMap((port) => {
      const name = `${prefix}_PORT_${port.number}_${port.protocol.toUpperCase()}`;
      return [
        `${name}=${url(port)}`,
        `${name}_ADDR=${address}`,
        `${name}_PORT=${port.number}`,
        `${name}_PROTO=${port.protocol}`,
      ];
    }),
    ...environmentOf([...(image?.env ?? []), ...link.env]).map((entry) => `${prefix}_ENV_${entry}`),
  ];
}

/** By number, TCP first. */
function portsOf(link: LinkedService, exposed: readonly string[]): readonly LinkedPort[] {
  const ports = new Map<string, LinkedPort>();
  const add = (port: LinkedPort) => ports.set(`${port.number}/${port.protocol}`, port);
  for (const port of link.ports) add(port);
  for (const text of exposed) {
    const [, number, protocol = 'tcp'] = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
    if (number !== undefined) add({ number: Number(number), protocol: protocol as LinkedPort['protocol'] });
  }
  return [...ports.values()].sort((a, b) => a.number - b.number || order(a) - order(b));
}

function order({ protocol }: LinkedPort): number {
  return ['tcp', 'udp', 'sctp'].indexOf(protocol);
}

/** Later entries win; what every container has of itself (HOME, PATH) is left out, as Docker does. */
function environmentOf(entries: readonly string[]): readonly string[] {
  const values = new Map<string, string>();
  for (const entry of entries) {
    const [, name = '', value] = /^([^=]+)(?:=(.*))?$/s.exec(entry) ?? [];
    if (value === undefined) values.delete(name);
    else if (name !== 'HOME' && name !== 'PATH') values.set(name, value);
  }
  return [...values].map(([name, value]) => `${name}=${value}`);
}
