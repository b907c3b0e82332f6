/** `deploy.placement`: where tasks may run, and where they go first. */
import type { Affinity } from '#proto/model/service.ts';
import { isName } from '#proto/model/validate.ts';
import { refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readInteger, readKeys, readOneOf, readText } from './read.ts';
import type { Tree } from './tree.ts';

const sharedByNodes = /^node\.(labels\.[\w./-]+|id|hostname|platform\.(os|arch))$/;

export function readPlacement(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  readKeys(findings, tree, 'placement', draft.placement, {
    constraints: (_, value) => {
      if (value.kind !== 'list')
        return refuse(findings, value, 'constraints must be a list', 'write - node.labels.zone == a');
      for (const item of value.items) {
        const text = readText(findings, item);
        if (text !== undefined) draft.constraints.push({ value: text, place: item });
      }
    },
    preferences: (placement, value) => {
      if (value.kind !== 'list')
        return refuse(findings, value, 'preferences must be a list', 'write - spread: node.labels.zone');
      const spread = [...placement.spread];
      for (const item of value.items)
        readKeys(findings, item, 'a preference', spread, {
          spread: (spread, value) => {
            const text = readText(findings, value);
            if (text === undefined) return;
            if (sharedByNodes.test(text)) spread.push(text);
            else refuse(findings, value, `"${text}" is nothing to spread over`, 'write node.labels.NAME');
          },
        });
      placement.spread = spread;
    },
    max_replicas_per_node: (placement, value) => {
      placement.maxReplicasPerNode = readInteger(findings, value) ?? 0;
    },
    'x-strategy': (placement, value) => {
      placement.strategy = readOneOf(findings, value, ['spread', 'binpack']) ?? '';
    },
    'x-affinity': (_, value) => readAffinities(draft, value, false),
    'x-anti-affinity': (_, value) => readAffinities(draft, value, true),
  });
}

function readAffinities(draft: Draft, tree: Tree, apart: boolean): undefined {
  const { findings } = draft;
  const key = apart ? 'x-anti-affinity' : 'x-affinity';
  if (tree.kind !== 'list')
    return refuse(findings, tree, `${key} must be a list`, 'write - { service: db, scope: node, mode: required }');
  for (const item of tree.items) {
    const affinity: { -readonly [Key in keyof Affinity]: Affinity[Key] } = {
      service: '',
      scope: 'node',
      apart,
      preferred: false,
    };
    const before = findings.errors.length;
    readKeys(findings, item, `an item of ${key}`, affinity, {
      service: (affinity, value) => {
        const text = readText(findings, value, 'a service') ?? '';
        const parts = text.split('/');
        if (parts.length > 2 || !parts.every(isName))
          return refuse(findings, value, `"${text}" cannot name a service`, 'write NAME, or PROJECT/NAME');
        affinity.service = text;
      },
      scope: (affinity, value) => {
        const text = readText(findings, value) ?? '';
        if (text === 'node' || sharedByNodes.test(text)) affinity.scope = text;
        else refuse(findings, value, `"${text}" is nothing that nodes share`, 'write node, or node.labels.NAME');
      },
      mode: (affinity, value) => {
        affinity.preferred = readOneOf(findings, value, ['required', 'preferred']) === 'preferred';
      },
    });
    if (affinity.service !== '') draft.affinities.push({ value: affinity, place: item });
    else if (findings.errors.length === before)
      refuse(findings, item, 'it names no service', 'add service: NAME, or PROJECT/NAME');
  }
}
