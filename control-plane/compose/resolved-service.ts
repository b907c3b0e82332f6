/** A service as its file says it, with the places of what only the cluster can judge. */
import type { DocumentMount } from '#proto/model/document.ts';
import type { NetworkAttachment, NetworkMode } from '#proto/model/network.ts';
import type { Port, ServiceSpec } from '#proto/model/service.ts';
import type { Place } from './diagnostic.ts';
import type { Said } from './draft.ts';

export interface ResolvedService {
  readonly spec: ServiceSpec;
  /** The service's key. */
  readonly place: Place;
  readonly ports: readonly Said<Port>[];
  readonly constraints: readonly Said<string>[];
  readonly image: Place;
  readonly attachments: readonly Said<NetworkAttachment>[];
  readonly networkMode: Said<NetworkMode>;
  readonly allowFrom: readonly Said<string>[];
  /** As in the spec, without versions. */
  readonly documents: readonly Said<DocumentMount>[];
}
