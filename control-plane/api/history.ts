/** What a service was asked to be, version after version, and what each changed. */
import type { HistoryEntry, HistoryRequest, HistoryResponse } from '#proto/gen/gantry/v1/operator.ts';
import type { Service, Version } from '#proto/model/service.ts';
import { findService, nameOfService } from './names.ts';
import type { OperatorParts } from './parts.ts';
import { specDiffWithValues } from './variable-diff.ts';

/** Faults: `not-found`, `invalid` (ambiguous). */
export function history({ store }: OperatorParts, request: HistoryRequest): HistoryResponse {
  const { snapshot } = store;
  const service = findService(snapshot, request.service);
  const versions = [...snapshot.versionsOfService(service.id)].sort((a, b) => a.number - b.number);
  const entries = versions.map((version, index) => entryOf(service, version, versions[index - 1]));
  return { service: nameOfService(service), entries: entries.reverse() };
}

function entryOf(service: Service, version: Version, before: Version | undefined): HistoryEntry {
  const { number, revision, createdAtMs, kind, why, by, spec, outcome, message } = version;
  const current = number === service.version;
  return {
    version: number,
    revision,
    atMs: createdAtMs,
    kind,
    why,
    by,
    changes: before ? specDiffWithValues(before.spec, spec) : [],
    outcome: outcome || (current ? 'updating' : 'replaced'),
    message,
    current,
    previous: service.previous !== undefined && number === service.previousVersion,
  };
}
