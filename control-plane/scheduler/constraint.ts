/** Placement constraints and spread preferences, in Swarm's words: `node.labels.zone == a`, `node.platform.os != windows`. */
import { Fault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';

/** What of a node a constraint or a spread preference looks at. */
export interface Attribute {
  readonly of: 'id' | 'name' | 'role' | 'label' | 'os' | 'arch';
  /** The label's key; empty for the others. */
  readonly label: string;
}

export interface Constraint extends Attribute {
  readonly equal: boolean;
  /** In lower case: comparison ignores case, as Swarm's does. */
  readonly value: string;
  /** As the user wrote it, spaces made even. */
  readonly text: string;
}

const known: Readonly<Record<string, Attribute['of']>> = {
  'node.id': 'id',
  'node.hostname': 'name',
  'node.name': 'name',
  'node.role': 'role',
  'node.platform.os': 'os',
  'node.platform.arch': 'arch',
};
const labelPrefix = 'node.labels.';
const remedy = `use ${Object.keys(known).join(', ')} or ${labelPrefix}KEY, then == or !=, then a value`;

/** One constraint. Faults: `invalid`, naming what is wrong with it. */
export function parseConstraint(text: string): Constraint {
  const match = /^([^=!]*)(==|!=)(.*)$/.exec(text);
  if (!match) throw new Fault('invalid', `constraint "${text}" has neither == nor !=`, { remedy });
  const [key, operator, value] = [match[1]!.trim(), match[2]!, match[3]!.trim()];
  const attribute = parseAttribute(key, `constraint "${text}"`);
  if (value === '') throw new Fault('invalid', `constraint "${text}" compares with nothing`, { remedy });
  if (!/^[a-z0-9:\-_\s./]+$/i.test(value)) {
    throw new Fault('invalid', `constraint "${text}": the value "${value}" has characters that no node attribute has`, {
      remedy: 'values are made of letters, digits, and : - _ . /',
    });
  }
  const wanted = attribute.of === 'arch' ? architecture(value.toLowerCase()) : value.toLowerCase();
  return { ...attribute, equal: operator === '==', value: wanted, text: `${key} ${operator} ${value}` };
}

/** What a spread preference spreads over: `node.labels.zone`, or any other attribute. Faults: `invalid`. */
export function parseSpread(text: string): Attribute {
  return parseAttribute(text.trim(), `spread preference "${text}"`);
}

/** What an affinity is about: `node` alone, or what nodes share, as `parseSpread`. Faults: `invalid`. */
export function parseScope(text: string): Attribute {
  return text.trim() === 'node' ? { of: 'id', label: '' } : parseAttribute(text.trim(), `scope "${text}"`);
}

function parseAttribute(key: string, where: string): Attribute {
  const of = known[key];
  if (of) return { of, label: '' };
  if (key.startsWith(labelPrefix) && /^[a-z0-9._\-/]+$/i.test(key.slice(labelPrefix.length))) {
    return { of: 'label', label: key.slice(labelPrefix.length) };
  }
  if (key.startsWith('engine.labels.')) {
    throw new Fault('invalid', `${where}: engine labels are Docker's; nodes here have labels of the cluster`, {
      remedy: `gantry node label NODE ${key.slice('engine.labels.'.length)}=VALUE, then ${labelPrefix}${key.slice('engine.labels.'.length)}`,
    });
  }
  throw new Fault('invalid', `${where}: "${key}" is not an attribute of a node`, { remedy });
}

/** The node's value, in lower case; empty where it has none. Every node that runs tasks has the role `worker`. */
export function attributeOf(attribute: Attribute, node: Node): string {
  switch (attribute.of) {
    case 'id':
      return node.id;
    case 'name':
      return node.name.toLowerCase();
    case 'role':
      return 'worker';
    case 'label':
      return (node.labels[attribute.label] ?? '').toLowerCase();
    case 'os':
      return node.platform.os.toLowerCase();
    case 'arch':
      return architecture(node.platform.architecture.toLowerCase());
  }
}

export function satisfies(constraint: Constraint, node: Node): boolean {
  return (attributeOf(constraint, node) === constraint.value) === constraint.equal;
}

/** The OCI name of an architecture that the kernel calls otherwise. */
export function architecture(name: string): string {
  if (name === 'x86_64') return 'amd64';
  if (name === 'aarch64') return 'arm64';
  return name;
}
