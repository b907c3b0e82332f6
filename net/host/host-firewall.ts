/**
 * The host's own firewall holds for published ports too: what it says of packets to the host (its input chains) is said of
 * those that we lead to tasks before they would come there. Its rules are copied, not touched, and followed as they change.
 */
import { tableName } from '#net/plan/rules.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Nftables } from './nftables.ts';

/** What the names of tables with copies begin with; the rest is the name of the table that is followed, of the same family. */
export const copyPrefix = 'gantry-of-';
/** The set of published ports in a copy. */
const portsSet = 'gantry_published';

/** A table with input chains of somebody else's. */
interface Followed {
  readonly family: string;
  readonly name: string;
  /** The copy's body, without the ports. */
  readonly body: string;
  /** Rules that are not in it. */
  readonly left: readonly string[];
}

export class HostFirewall {
  readonly #nftables: Nftables;
  /** Carries out a transaction of ours. */
  readonly #transact: (commands: string) => Promise<void>;
  /** Keys of published ports (`tcp . 8080`), by family of the table that has them. */
  readonly #ports = new Map<string, Set<string>>();
  /** Copies as they are in the kernel, by `family name` of what they follow. */
  #copies = new Map<string, Followed>();
  #adopted = false;

  constructor(nftables: Nftables, transact: (commands: string) => Promise<void>) {
    this.#nftables = nftables;
    this.#transact = transact;
  }

  /** The elements that our table of a family has: those of `published` are its ports. */
  knows(family: string, elements: Iterable<string>): void {
    this.#ports.set(family, new Set([...elements].flatMap(portOf)));
  }

  /** Takes a step that removes and adds those elements of our table: no port is published before the copies know it, and none is forgotten too soon. */
  async around(
    family: string,
    removed: Iterable<string>,
    added: Iterable<string>,
    step: () => Promise<void>,
  ): Promise<void> {
    const before = this.#all();
    const ports = new Set(this.#ports.get(family));
    for (const element of removed) for (const port of portOf(element)) ports.delete(port);
    for (const element of added) for (const port of portOf(element)) ports.add(port);
    this.#ports.set(family, ports);
    const now = this.#all();
    await this.#tell(
      'add',
      [...now].filter((port) => !before.has(port)),
    );
    await step();
    await this.#tell(
      'delete',
      [...before].filter((port) => !now.has(port)),
    );
  }

  async #tell(verb: 'add' | 'delete', ports: readonly string[]): Promise<void> {
    const commands = [...this.#copies.values()].map((copy) => elements(verb, copy, ports)).join('');
    if (commands === '') return;
    try {
      await this.#transact(commands);
    } catch (error) {
      // Somebody has taken a copy away: that is noticed, and it is made anew.
      if (!isFault(error, 'invalid')) throw error;
      this.#copies.clear();
    }
  }

  #all(): Set<string> {
    return new Set([...this.#ports.values()].flatMap((ports) => [...ports]));
  }

  /** Makes the copies what the host's firewall is now, but for the tables that are `off`; what of it cannot be followed, with the remedy. */
  async follow(off: ReadonlySet<string>): Promise<readonly Fault[]> {
    const faults: Fault[] = [];
    const { followed, copied } = await this.#look(off);
    const known = this.#adopted ? this.#copies : new Map<string, Followed>();
    const copies = new Map<string, Followed>();
    for (const [key, table] of followed) {
      const intact = copied.has(copyOf(table)) && known.get(key)?.body === table.body;
      try {
        if (!intact) await this.#transact(removal(copyOf(table)) + declaration(table, this.#all()));
        copies.set(key, table);
        if (table.left.length > 0) faults.push(notFollowed(table, `"${table.left.join('", "')}"`));
      } catch (error) {
        if (!isFault(error, 'invalid')) throw error;
        faults.push(notFollowed(table, error.message));
      }
    }
    const wanted = new Set([...copies.values()].map(copyOf));
    for (const copy of copied) if (!wanted.has(copy)) await this.#transact(removal(copy));
    this.#copies = copies;
    this.#adopted = true;
    return faults;
  }

  async #look(
    off: ReadonlySet<string>,
  ): Promise<{ readonly followed: Map<string, Followed>; readonly copied: Set<string> }> {
    const followed = new Map<string, Followed>();
    const copied = new Set<string>();
    for (const { table, chain } of await this.#nftables.list('list chains', { terse: true })) {
      const name = String(table?.name ?? chain?.table ?? '');
      const family = String(table?.family ?? chain?.family ?? '');
      if (name.startsWith(copyPrefix)) copied.add(`${family} ${name}`);
      else if (chain?.hook === 'input' && chain.type === 'filter' && ['ip', 'ip6', 'inet'].includes(family)) {
        const key = `${family} ${name}`;
        if (name === tableName || off.has(key) || followed.has(key)) continue;
        const copy = copyText(await this.#nftables.text(`list table ${key}`));
        if (copy.body !== '') followed.set(key, { family, name, ...copy });
      }
    }
    return { followed, copied };
  }
}

function portOf(element: string): string[] {
  return element.startsWith('published ') ? [element.slice('published '.length)] : [];
}

const copyOf = ({ family, name }: Followed) => `${family} ${copyPrefix}${name}`;
const removal = (copy: string) => `table ${copy} { }\ndelete table ${copy}\n`;

function elements(verb: 'add' | 'delete', copy: Followed, ports: readonly string[]): string {
  return ports.length === 0 ? '' : `${verb} element ${copyOf(copy)} ${portsSet} { ${ports.join(', ')} }\n`;
}

function declaration(table: Followed, ports: ReadonlySet<string>): string {
  const set = `set ${portsSet} { type inet_proto . inet_service; }`;
  return `table ${copyOf(table)} {\n${set}\n${table.body}\n}\n${elements('add', table, [...ports])}`;
}

function notFollowed({ family, name }: Followed, why: string): Fault {
  const what = `not all that table ${family} ${name} says of packets to this host holds for published ports: it cannot be copied (${why.slice(0, 300)})`;
  return new Fault('precondition', what, {
    remedy: 'let a chain of "type filter hook prerouting priority -110" say it of them',
  });
}

/** A port that is published here, asked for at an address of the host, and not an answer: all else is none of ours. */
const guard = [
  `meta l4proto . th dport != @${portsSet} accept`,
  'fib daddr type != local accept',
  'ct direction reply accept',
];
const hook = /^\s*type filter hook input priority [^;]+;(?: policy (\w+);)?\s*$/m;

/** What iptables has put in that nft has no words for. */
const wordless = /# xt_|\bxt (match|target) /;

/**
 * The input chains of a table as nft lists it, for the time before destinations are translated, with what they refer to; ''
 * without any. `left`: rules that nft itself could not repeat.
 */
export function copyText(listing: string): { readonly body: string; readonly left: readonly string[] } {
  const left: string[] = [];
  const blocks = blocksOf(
    listing.replaceAll(/ # handle \d+$/gm, '').replaceAll(/counter packets \d+ bytes \d+/g, 'counter'),
  );
  const chains = new Map(blocks.filter(({ kind }) => kind === 'chain').map((block) => [block.name, block.body]));
  const others = blocks.filter(({ kind }) => kind !== 'chain' && kind !== 'flowtable');
  const base = [...chains].filter(([, body]) => hook.test(body));
  if (base.length === 0) return { body: '', left };
  const needed = new Set<string>();
  const visit = (text: string) => {
    for (const [, name] of text.matchAll(/\b(?:jump|goto) ([^\s,;}]+)/g)) {
      const body = chains.get(name as string);
      if (body === undefined || needed.has(name as string)) continue;
      needed.add(name as string);
      visit(body);
    }
  };
  for (const [, body] of base) visit(body);
  for (const { body } of others) visit(body);
  const text = (name: string, body: string) => {
    const rules = body.split('\n');
    left.push(...rules.filter((rule) => wordless.test(rule)).map((rule) => rule.trim()));
    return `chain ${name} {\n${rules.filter((rule) => !wordless.test(rule)).join('\n')}\n}`;
  };
  const parts = [
    ...others.map(({ kind, name, body }) => `${kind} ${name} {\n${body}\n}`),
    // Chains that others lead to come first.
    ...[...needed].reverse().map((name) => text(name, chains.get(name) as string)),
    ...base.map(([name, body]) => {
      const policy = hook.exec(body)?.[1];
      const rules = body.replace(hook, '');
      const head = 'type filter hook prerouting priority -101; policy accept;';
      return text(name, [head, ...guard, rules, ...(policy === 'drop' ? ['drop'] : [])].join('\n'));
    }),
  ];
  return { body: parts.join('\n'), left };
}

interface Block {
  readonly kind: string;
  readonly name: string;
  readonly body: string;
}

/** What is declared in a table, as `nft list table` indents it: one tab before each, one before its end. */
function blocksOf(listing: string): readonly Block[] {
  const blocks: Block[] = [];
  for (const [, head, body] of listing.matchAll(/^\t([^\t\n][^\n]*) \{\n([\s\S]*?)^\t\}$/gm)) {
    const words = (head as string).split(' ');
    const name = words.pop() as string;
    blocks.push({ kind: words.join(' '), name, body: (body as string).trimEnd() });
  }
  return blocks;
}
