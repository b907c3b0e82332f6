/** Constraints mean what Swarm's mean, and what means nothing is refused in words. */
import { describe, expect, it } from 'vitest';
import { parseConstraint, parseSpread, satisfies } from '#control-plane/scheduler/constraint.ts';
import { aNode } from '#test/support/builders.ts';

const node = aNode('H1', { labels: { zone: 'A' }, platform: { os: 'linux', architecture: 'aarch64', variant: '' } });

describe('a constraint', () => {
  it.each([
    ['node.labels.zone == a', true],
    ['node.labels.zone==A', true],
    ['node.labels.zone != a', false],
    ['node.labels.rack != 1', true],
    ['node.labels.rack == 1', false],
    ['node.hostname == h1', true],
    ['node.name != h1', false],
    [`node.id == ${node.id}`, true],
    ['node.role == worker', true],
    ['node.role == manager', false],
    ['node.platform.os == Linux', true],
    ['node.platform.arch == arm64', true],
  ])('%s is %s of a node h1 in zone A', (text, holds) => {
    expect(satisfies(parseConstraint(text), node)).toBe(holds);
  });

  it.each([
    ['node.labels.zone', 'neither == nor !='],
    ['node.labels.zone = a', 'neither == nor !='],
    ['node.colour == red', '"node.colour" is not an attribute of a node'],
    ['node.labels.zone ==', 'compares with nothing'],
    ['node.labels. == a', '"node.labels." is not an attribute'],
    ['engine.labels.zone == a', "engine labels are Docker's"],
    ['node.labels.zone == a;b', 'has characters'],
  ])('%s is refused: %s', (text, words) => {
    expect(() => parseConstraint(text)).toThrow(words);
  });

  it('may be spread over like any attribute, and nothing else', () => {
    expect(parseSpread('node.labels.zone')).toEqual({ of: 'label', label: 'zone' });
    expect(() => parseSpread('zone')).toThrow('"zone" is not an attribute of a node');
  });
});
