/** `volumes_from:`: a service mounts what another one of the file does, at the same places. */
import type { Mount } from '#proto/model/service.ts';
import { refuse, suggestion } from './diagnostic.ts';
import type { Draft, Said } from './draft.ts';
import { readScalars } from './read.ts';
import type { Tree } from './tree.ts';

export function readVolumesFrom(draft: Draft, tree: Tree): void {
  for (const item of readScalars(draft.findings, tree)) {
    const [, service, access = 'rw'] = /^([^:]+)(?::(ro|rw))?$/.exec(item.source) ?? [];
    if (service !== undefined) draft.volumesFrom.push({ value: { service, readOnly: access === 'ro' }, place: item });
    else
      refuse(
        draft.findings,
        item,
        `"${item.source}" is not a service of the file`,
        item.source.startsWith('container:')
          ? 'name a service, or the volumes themselves'
          : 'write SERVICE or SERVICE:ro',
      );
  }
}

/** Gives each draft the mounts of those it names; its own go before, at the same place. */
export function shareVolumes(drafts: readonly Draft[]): void {
  const named = new Map(drafts.map((draft) => [draft.name, draft]));
  const done = new Set<Draft>();
  const underWay = new Set<Draft>();
  const visit = (draft: Draft) => {
    if (done.has(draft)) return;
    underWay.add(draft);
    for (const { value, place } of draft.volumesFrom) {
      const other = named.get(value.service);
      if (!other) {
        const guess = suggestion(value.service, named.keys());
        refuse(
          draft.findings,
          place,
          `there is no service "${value.service}" in the file`,
          guess ? `did you mean "${guess}"?` : '',
        );
      } else if (underWay.has(other))
        refuse(
          draft.findings,
          place,
          `service ${value.service} has its volumes from this one`,
          'remove one of the two',
        );
      else {
        visit(other);
        take(draft, other, value.readOnly, { value: value.service, place });
      }
    }
    underWay.delete(draft);
    done.add(draft);
  };
  for (const draft of drafts) visit(draft);
}

function take(draft: Draft, other: Draft, readOnly: boolean, { value: name, place }: Said<string>): void {
  const taken = new Set(draft.mounts.map(({ value }) => value.target));
  for (const { value } of other.mounts) {
    if (taken.has(value.target) || value.type === 'tmpfs') continue;
    if (value.type === 'volume' && value.source === '')
      refuse(
        draft.findings,
        place,
        `service ${name} has a volume without a name at ${value.target}: each of its tasks has one of its own`,
        'give it a name',
      );
    else {
      const mount: Mount = { ...value, readOnly: value.readOnly || readOnly };
      draft.mounts.push({ value: mount, place });
    }
  }
}
