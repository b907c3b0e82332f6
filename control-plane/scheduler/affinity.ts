/** Near other services, or away from them: where their tasks are, as seen from one node. */
import type { ServiceId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Affinity } from '#proto/model/service.ts';
import { type Attribute, attributeOf, parseScope } from './constraint.ts';
import type { Ledger } from './ledger.ts';

/** An affinity with its scope taken apart. A node without the attribute shares it with no other. */
export interface ParsedAffinity extends Affinity {
  readonly attribute: Attribute;
}

/** Faults: `invalid`, for a scope that is nothing nodes share. */
export function parseAffinity(affinity: Affinity): ParsedAffinity {
  return { ...affinity, attribute: parseScope(affinity.scope) };
}

/** What the affinity asks does not hold on the node for a task of `self`. */
export function isUnmet(affinity: ParsedAffinity, self: ServiceId, node: Node, ledger: Ledger): boolean {
  const other = ledger.serviceNamed(affinity.service);
  if (other === undefined) return !affinity.apart;
  const value = attributeOf(affinity.attribute, node);
  const there = value === '' ? undefined : ledger.domainsOf(other, affinity.attribute).get(value);
  if (affinity.apart) return there !== undefined && there.occupying > 0;
  if (there !== undefined && there.active > 0) return false;
  // The first one of a service that wants to be near itself may go anywhere.
  return other !== self || !isFirst(self, ledger);
}

/** A service whose tasks are to be apart from those of `name`, where one of them is too near to this node; undefined: none is. */
export function keptAwayBy(name: string, self: ServiceId, node: Node, ledger: Ledger): string | undefined {
  for (const { service, serviceName, attribute } of ledger.avoidersOf(name)) {
    if (service === self) continue;
    const value = attributeOf(attribute, node);
    if (value !== '' && (ledger.domainsOf(service, attribute).get(value)?.occupying ?? 0) > 0) return serviceName;
  }
  return undefined;
}

/** `with demo/db in one zone`, `apart from demo/db`: what an affinity asks, in words. */
export function affinityWords({ service, scope, apart }: Affinity): string {
  const where = scope === 'node' ? '' : ` in ${apart ? 'another' : 'one'} ${scope.replace('node.labels.', '')}`;
  return `${apart ? 'apart from' : 'with'} ${service}${where}`;
}

function isFirst(self: ServiceId, ledger: Ledger): boolean {
  for (const { active } of ledger.nodesOf(self).values()) if (active > 0) return false;
  return true;
}
