/** Generic resources: whether a node has what is asked of a kind, and which ones a task gets. */
import type { GenericResource } from '#proto/model/resources.ts';
import type { Usage } from './ledger.ts';

/** Why the node cannot give what is asked; empty where it can. */
export function shortOfGeneric(asks: readonly GenericResource[], usage: Usage): string {
  for (const ask of asks) {
    const short = shortOf(ask, usage);
    if (short !== '') return short;
  }
  return '';
}

/** What a task of these asks gets of a node that has it: of what has names, the first that are free. */
export function given(asks: readonly GenericResource[], usage: Usage): readonly GenericResource[] {
  return asks.map(({ kind, count, names }) => {
    const offer = offerOf(kind, usage)!;
    const wanted = count === 0 ? offer.count : count;
    if (names.length > 0) return { kind, count: names.length, names };
    return { kind, count: wanted, names: freeNames(offer, usage).slice(0, wanted) };
  });
}

/** `2 gpu`, `all gpu`, `gpu a`: what is asked, in words. */
export function askWords({ kind, count, names }: GenericResource): string {
  if (names.length > 0) return `${kind} ${names.join(', ')}`;
  return count === 0 ? `all ${kind}` : `${count} ${kind}`;
}

function shortOf(ask: GenericResource, usage: Usage): string {
  const { kind, count, names } = ask;
  const offer = offerOf(kind, usage);
  if (!offer || offer.count === 0) return `offers no ${kind}`;
  const taken = usage.generic.get(kind);
  if (names.length > 0) {
    const missing = names.filter((name) => !offer.names.includes(name));
    if (missing.length > 0) return `offers no ${kind} ${missing.join(', ')}`;
    const held = names.filter((name) => taken?.names.has(name));
    return held.length > 0 ? `${kind} ${held.join(', ')} is taken` : '';
  }
  const left = offer.count - (taken?.count ?? 0);
  const free = Math.max(0, offer.names.length > 0 ? Math.min(left, freeNames(offer, usage).length) : left);
  const wanted = count === 0 ? offer.count : count;
  return wanted <= free ? '' : `needs ${askWords(ask)}, ${free} of ${offer.count} free`;
}

function offerOf(kind: string, usage: Usage): GenericResource | undefined {
  return usage.node.capacity.generic.find((offer) => offer.kind === kind);
}

function freeNames({ kind, names }: GenericResource, usage: Usage): readonly string[] {
  const taken = usage.generic.get(kind)?.names;
  return taken ? names.filter((name) => !taken.has(name)) : names;
}
