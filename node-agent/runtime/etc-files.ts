/** The files in /etc that are made for each container: hosts, hostname and resolv.conf. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import type { PreparedMount } from './runtime.ts';

export interface EtcSettings {
  readonly hostname: string;
  /** The task's own. */
  readonly address: string;
  /** What `host-gateway` in extra_hosts stands for: the node, as its tasks reach it. */
  readonly gateway: string;
  /** Used where the container names no servers of its own. */
  readonly dns: string;
  /** Used where the container names no search domains of its own. */
  readonly search: readonly string[];
  readonly container: Pick<ContainerSpec, 'extraHosts' | 'dns' | 'dnsSearch' | 'dnsOptions'>;
}

/** The text of each, by its name in /etc. Fault `invalid` for a value that would break out of its line. Pure. */
export function etcFiles(settings: EtcSettings): Readonly<Record<'hosts' | 'hostname' | 'resolv.conf', string>> {
  const { container, hostname } = settings;
  const hosts = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    ...Object.entries(container.extraHosts).map(
      ([name, address]) => `${word(address === 'host-gateway' ? settings.gateway : address)}\t${word(name)}`,
    ),
    ...(settings.address ? [`${word(settings.address)}\t${word(hostname)}`] : []),
  ];
  const servers = container.dns.length > 0 ? container.dns : settings.dns ? [settings.dns] : [];
  const search = container.dnsSearch.length > 0 ? container.dnsSearch : settings.search;
  const domains = search.filter((domain) => domain !== '.');
  const resolver = [
    ...servers.map((server) => `nameserver ${word(server)}`),
    ...(domains.length > 0 ? [`search ${domains.map(word).join(' ')}`] : []),
    ...(container.dnsOptions.length > 0 ? [`options ${container.dnsOptions.map(word).join(' ')}`] : []),
  ];
  return { hosts: lines(hosts), hostname: lines([word(hostname)]), 'resolv.conf': lines(resolver) };
}

/** Writes them below `directory`, in place, so that a container in which they are mounted sees the change. */
export function writeEtcFiles(directory: string, settings: EtcSettings): readonly PreparedMount[] {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return Object.entries(etcFiles(settings)).map(([name, text]) => {
    const source = join(directory, name);
    writeFileSync(source, text, { mode: 0o644 });
    return {
      source,
      target: posix.join('/etc', name),
      readOnly: true,
      propagation: '',
      type: 'bind',
      options: ['nosuid', 'nodev', 'noexec'],
    };
  });
}

function lines(all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join('');
}

function word(text: string): string {
  if (text !== '' && !/[\s#]/.test(text)) return text;
  throw new Fault('invalid', `"${text}" cannot stand in /etc/hosts or /etc/resolv.conf`, {
    remedy: 'remove the white space from hostname, extra_hosts or dns',
  });
}
