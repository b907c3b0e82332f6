/** What was removed and can be brought back, until its time is up. */
import type { Document } from './document.ts';
import { qualifiedName } from './ids.ts';
import type { NetworkSpec } from './network.ts';
import type { Service, ServiceSpec } from './service.ts';
import type { Volume } from './volume.ts';

/** Where in its history a service was. */
export type Remembered = Pick<
  Service,
  'id' | 'version' | 'revision' | 'previousVersion' | 'previousRevision' | 'rolledBackFrom' | 'createdAtMs'
>;

export type TrashedItem =
  | {
      readonly kind: 'service';
      readonly spec: ServiceSpec;
      readonly previous: ServiceSpec | undefined;
      /** What it comes back as; its versions and their revisions are kept as long as this is. Absent in older records, which come back as new services. */
      readonly was?: Remembered;
      /** Of its project: they go with the last service that is on them. */
      readonly networks: readonly NetworkSpec[];
      /** Named ones that were there; absent in older records. */
      readonly volumes?: readonly string[];
    }
  | { readonly kind: 'document'; readonly document: Document }
  /** Its data is on its node still, and nobody may mount it. */
  | { readonly kind: 'volume'; readonly volume: Volume };

export interface Trashed {
  /** Those that were removed together share it. */
  readonly removal: string;
  readonly removedAtMs: number;
  readonly dueAtMs: number;
  /** Its node may have begun to delete its data: it does not come back. */
  readonly going?: true;
  readonly item: TrashedItem;
}

/** `service`, `config`, `secret` or `volume`: what people call it. */
export function trashedKind(item: TrashedItem): string {
  return item.kind === 'document' ? item.document.type : item.kind;
}

export function trashedName(item: TrashedItem): string {
  switch (item.kind) {
    case 'service':
      return qualifiedName(item.spec.project, item.spec.name);
    case 'document':
      return item.document.name;
    case 'volume':
      return item.volume.name;
  }
}

/** `REMOVAL/KIND/NAME` */
export function trashKey({ removal, item }: Pick<Trashed, 'removal' | 'item'>): string {
  return `${removal}/${trashedKind(item)}/${trashedName(item)}`;
}
