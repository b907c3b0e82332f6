/** What services of one file say of each other, and want of what only one can have. */
import { isPerNode } from '#proto/model/job.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import { sharedNetworkProblem } from '#proto/model/validate.ts';
import { type Findings, refuse, suggestion, warn } from './diagnostic.ts';
import type { Draft, Said } from './draft.ts';
import type { DeclaredNetwork, DeclaredNetworks } from './networks.ts';
import type { Inactive } from './profiles.ts';
import type { ResolvedService } from './resolved-service.ts';

/** Those that a service is on, in the order of the file. */
export function usedNetworks(services: readonly ResolvedService[], declared: DeclaredNetworks): DeclaredNetwork[] {
  const used = new Set(services.flatMap(({ spec }) => spec.template.networks.map(({ network }) => network)));
  const networks: DeclaredNetwork[] = [];
  for (const network of declared.values()) if (used.delete(network.spec.name)) networks.push(network);
  return networks;
}

/** Services of the file that others of it name. */
export function refuseUnknownServices(drafts: readonly Draft[], inactive: Inactive): void {
  const names = new Set(drafts.map(({ name }) => name));
  const check = ({ findings, name: self }: Draft, { value: name, place }: Said<string>) => {
    if (names.has(name) && name !== self) return;
    const guess = suggestion(
      name,
      [...names].filter((one) => one !== self),
    );
    const profiles = inactive.get(name);
    if (name === self) refuse(findings, place, `service ${self} names itself`, 'name another service');
    else if (profiles)
      refuse(
        findings,
        place,
        `service ${name} takes no part: its profiles are not enabled`,
        `add --profile ${profiles[0]}, or give ${self} that profile too`,
      );
    else refuse(findings, place, `there is no service "${name}" in the file`, guess ? `did you mean "${guess}"?` : '');
  };
  for (const draft of drafts) {
    for (const link of draft.links) check(draft, link);
    for (const { value, place } of draft.affinities)
      if (!value.service.includes('/') && value.service !== draft.name) check(draft, { value: value.service, place });
    for (const { value, place } of draft.dependsOn)
      if (value.required || names.has(value.service)) check(draft, { value: value.service, place });
      else warn(draft.findings, place, `service ${value.service} takes no part: it is not waited for`);
    const shared = draft.networkMode && sharedNetworkOf(draft.networkMode.value);
    if (shared !== undefined) check(draft, { value: shared, place: draft.networkMode!.place });
  }
}

/** `network_mode: service:NAME`, slot by slot: both have as many tasks, and the other has a network of its own. */
export function refuseSharedNetworks(services: readonly (ResolvedService | undefined)[], findings: Findings): void {
  const named = new Map(services.flatMap((service) => (service ? [[service.spec.name, service]] : [])));
  for (const { spec, networkMode } of named.values()) {
    const shared = sharedNetworkOf(networkMode.value);
    const owner = shared === undefined ? undefined : named.get(shared);
    if (!owner || owner.spec === spec) continue;
    const problem = sharedNetworkProblem(spec, owner.spec);
    if (problem) refuse(findings, networkMode.place, problem.message, problem.remedy);
  }
}

/** Two publications of one port in the same file; two services' host ports may share it on different nodes, where neither is on all. */
export function refuseSharedPorts(services: readonly (ResolvedService | undefined)[], findings: Findings): void {
  const owners = new Map<string, { path: string; everywhere: boolean }>();
  for (const service of services)
    for (const { value, place } of service?.ports ?? []) {
      if (value.published === 0) continue;
      const key = `${value.published}/${value.protocol}`;
      const owner = owners.get(key);
      const { path } = service!.place;
      const everywhere = value.mode === 'ingress' || isPerNode(service!.spec);
      if (!owner) owners.set(key, { path, everywhere });
      else if (owner.path === path || owner.everywhere || everywhere)
        refuse(findings, place, `port ${key} is already published by ${owner.path}`, 'publish another port');
    }
}

/** One address of a network for two services of the file. */
export function refuseSharedAddresses(services: readonly (ResolvedService | undefined)[], findings: Findings): void {
  const owners = new Map<string, string>();
  for (const service of services)
    for (const { value, place } of service?.attachments ?? []) {
      if (value.ipv4Address === '') continue;
      const key = `${value.network} ${value.ipv4Address}`;
      const owner = owners.get(key);
      if (owner !== undefined)
        refuse(findings, place, `${value.ipv4Address} is the fixed address of ${owner} already`, 'choose another one');
      else owners.set(key, service!.place.path);
    }
}
