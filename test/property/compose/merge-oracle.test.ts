/** Merging against the rules of the specification, written down a second time over plain values. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Findings } from '#control-plane/compose/diagnostic.ts';
import { merge } from '#control-plane/compose/merge.ts';
import { parseTrees, type Tree, withoutResets } from '#control-plane/compose/tree.ts';

type Plain = string | null | readonly Plain[] | { readonly [key: string]: Plain } | Tagged;
class Tagged {
  readonly tag: 'reset' | 'override';
  readonly value: Plain;

  constructor(tag: 'reset' | 'override', value: Plain) {
    this.tag = tag;
    this.value = value;
  }
}
type Rule = (earlier: Plain, later: Plain) => Plain;
type PlainMap = { readonly [key: string]: Plain };

const isMap = (value: Plain): value is PlainMap =>
  value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Tagged);
const isList = (value: Plain): value is readonly Plain[] => Array.isArray(value);

/** Keys of the later one added, those of both by the rule for them. */
function maps(rules: Readonly<Record<string, Rule>>, otherwise: Rule): Rule {
  return (earlier, later) => {
    if (!isMap(earlier) || !isMap(later)) return later;
    const result: Record<string, Plain> = { ...earlier };
    for (const [key, value] of Object.entries(later)) {
      const rule = rules[key] ?? otherwise;
      if (value instanceof Tagged && value.tag === 'reset') delete result[key];
      else if (value instanceof Tagged) result[key] = value.value;
      else result[key] = key in earlier ? rule(earlier[key]!, value) : value;
    }
    return result;
  };
}

const unlessNull =
  (rule: Rule): Rule =>
  (earlier, later) =>
    later === null ? earlier : earlier === null ? later : rule(earlier, later);
const replaced: Rule = (_, later) => later;
const generic: Rule = unlessNull((earlier, later) =>
  isMap(earlier) && isMap(later)
    ? maps({}, generic)(earlier, later)
    : isList(earlier) && isList(later)
      ? unique(JSON.stringify)(earlier, later)
      : later,
);

/** Appended; of two with one key the later, where the earlier was. */
function unique(keyOf: (item: Plain) => string): Rule {
  return (earlier, later) => {
    if (!isList(earlier) || !isList(later)) return later;
    const items: Plain[] = [];
    for (const item of [...earlier, ...later]) {
      const at = items.findIndex((one) => keyOf(one) === keyOf(item));
      if (at < 0) items.push(item);
      else items[at] = item;
    }
    return items;
  };
}

const asMap = (value: Plain, of: (item: string) => readonly [string, Plain]): Plain =>
  isList(value) ? Object.fromEntries(value.map((item) => of(String(item)))) : value;
const pairs: Rule = unlessNull((earlier, later) => {
  const pair = (item: string): readonly [string, Plain] => {
    const [name, ...rest] = item.split('=');
    return [name!, rest.length > 0 ? rest.join('=') : null];
  };
  return maps({}, replaced)(asMap(earlier, pair), asMap(later, pair));
});
const names = (value: Plain): Rule =>
  unlessNull((earlier, later) => {
    const name = (item: string): readonly [string, Plain] => [item, value];
    return maps({}, generic)(asMap(earlier, name), asMap(later, name));
  });
const asList = (value: Plain): Plain => (isList(value) ? value : [value]);
const target = (item: Plain) => (isMap(item) ? String(item.target) : (String(item).split(':')[1] ?? String(item)));
const port = (item: Plain) => {
  if (isMap(item)) return `${item.published ?? ''}:${item.target}/${item.protocol ?? 'tcp'}`;
  const [numbers, protocol = 'tcp'] = String(item).split('/');
  return `${numbers!.includes(':') ? numbers : `:${numbers}`}/${protocol}`;
};

const service = maps(
  {
    command: unlessNull(replaced),
    healthcheck: unlessNull(maps({ test: unlessNull(replaced) }, generic)),
    ulimits: unlessNull(maps({}, unlessNull(replaced))),
    environment: pairs,
    labels: pairs,
    depends_on: names({ condition: 'service_started' }),
    networks: names(null),
    dns: unlessNull((earlier, later) => unique(JSON.stringify)(asList(earlier), asList(later))),
    volumes: unlessNull(unique(target)),
    ports: unlessNull(unique(port)),
    build: unlessNull((earlier, later) => {
      const context = (value: Plain) => (typeof value === 'string' ? { context: value } : value);
      return maps({ args: pairs }, generic)(context(earlier), context(later));
    }),
    logging: unlessNull((earlier, later) =>
      isMap(earlier) && isMap(later) && earlier.driver && later.driver && earlier.driver !== later.driver
        ? later
        : maps({}, generic)(earlier, later),
    ),
  },
  generic,
);

const word = fc.constantFrom('a', 'b', 'c');
const some = (...items: string[]) => fc.uniqueArray(fc.constantFrom(...items), { maxLength: 3 });
const mapOf = (value: fc.Arbitrary<Plain>) => fc.dictionary(word, value, { maxKeys: 3 });
const pairsOf = fc.oneof(
  mapOf(fc.oneof(word, fc.constant(null))),
  fc
    .uniqueArray(fc.tuple(word, fc.option(word)), { selector: ([name]) => name, maxLength: 3 })
    .map((all) => all.map(([name, value]) => (value === null ? name : `${name}=${value}`))),
);
const values: Readonly<Record<string, fc.Arbitrary<Plain>>> = {
  image: word,
  user: word,
  command: fc.oneof(word, some('x', 'y')),
  environment: pairsOf,
  labels: pairsOf,
  cap_add: some('CHOWN', 'KILL', 'SYS_TIME'),
  dns: fc.oneof(fc.constant('10.0.0.1'), some('10.0.0.1', '10.0.0.2')),
  depends_on: fc.oneof(some('a', 'b', 'c'), mapOf(fc.constant({ condition: 'service_healthy' }))),
  networks: fc.oneof(some('a', 'b', 'c'), mapOf(fc.oneof(fc.constant(null), fc.constant({ aliases: ['x'] })))),
  volumes: fc.array(fc.oneof(fc.constantFrom('a:/x', 'b:/x:ro', 'a:/y'), fc.constant({ source: 'a', target: '/x' })), {
    maxLength: 3,
  }),
  ports: fc.array(
    fc.oneof(fc.constantFrom('80:80', '81:80', '80:80/udp', '80'), fc.constant({ target: '80', published: '80' })),
    { maxLength: 3 },
  ),
  healthcheck: fc.record({ test: some('CMD', 'x'), interval: word }, { requiredKeys: [] }),
  ulimits: fc.record({ nofile: fc.oneof(word, fc.constant({ soft: '1', hard: '2' })) }, { requiredKeys: [] }),
  logging: fc.record({ driver: word, options: mapOf(word) }, { requiredKeys: [] }),
  build: fc.oneof(word, fc.record({ context: word, args: pairsOf }, { requiredKeys: [] })),
  'x-own': mapOf(fc.oneof(word, some('a', 'b'))),
};
/** A service with some of the keys. */
const serviceOf = (asked: (value: fc.Arbitrary<Plain>) => fc.Arbitrary<Plain>): fc.Arbitrary<PlainMap> =>
  fc
    .subarray(Object.keys(values))
    .chain((keys) => fc.record(Object.fromEntries(keys.map((key) => [key, asked(values[key]!)]))));
const plain = serviceOf((value) =>
  fc.oneof({ weight: 9, arbitrary: value }, { weight: 1, arbitrary: fc.constant(null) }),
);
const tagged = serviceOf((value) =>
  fc.oneof(
    { weight: 6, arbitrary: value },
    { weight: 1, arbitrary: fc.constant(new Tagged('reset', null)) },
    { weight: 1, arbitrary: value.map((one) => new Tagged('override', one)) },
  ),
);

function yaml(value: Plain): string {
  if (value instanceof Tagged) return `!${value.tag} ${yaml(value.value)}`;
  if (isList(value)) return `[${value.map(yaml).join(', ')}]`;
  if (isMap(value))
    return `{${Object.entries(value)
      .map(([key, one]) => `${JSON.stringify(key)}: ${yaml(one)}`)
      .join(', ')}}`;
  return JSON.stringify(value);
}

function parsed(value: Plain): Tree {
  const findings: Findings = { errors: [], warnings: [] };
  const [tree] = parseTrees('compose.yaml', `services: { web: ${yaml(value)} }`, findings);
  expect(findings.errors).toEqual([]);
  return tree!;
}

function plainOf(tree: Tree): Plain {
  if (tree.kind === 'scalar') return tree.value === null ? null : tree.source;
  if (tree.kind === 'list') return tree.items.map(plainOf);
  return Object.fromEntries([...tree.entries].map(([key, { value }]) => [key, plainOf(value)]));
}

it('is what the rules say, of every service', () => {
  fc.assert(
    fc.property(plain, tagged, (earlier, later) => {
      const merged = plainOf(withoutResets(merge(parsed(earlier), parsed(later))));
      expect(merged).toEqual({ services: { web: service(earlier, later) } });
    }),
    { numRuns: 1_000 },
  );
});

it('of three files is what the third makes of the first two', () => {
  fc.assert(
    fc.property(plain, plain, tagged, (a, b, c) => {
      const merged = plainOf(withoutResets([a, b, c].map(parsed).reduce(merge)));
      expect(merged).toEqual({ services: { web: service(service(a, b), c) } });
    }),
  );
});
