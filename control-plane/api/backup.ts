/** The lines of a backup: the cluster's identity and every record at one revision, a page at a time. */
import { type BackupInfo, lineOf, recordLine } from '#proto/backup-file.ts';
import type { BackupPart } from '#proto/gen/gantry/v1/operator.ts';
import type { OperatorParts } from './parts.ts';

/** Faults: those of a dump, and `corrupt` or `internal` where the identity cannot be read. */
export async function* backup(parts: OperatorParts): AsyncGenerator<BackupPart> {
  const { store, clock, version, identity } = parts;
  const part = (lines: string[]): BackupPart => ({ lines: Buffer.from(lines.join('')) });
  let records = 0;
  let info: BackupInfo | undefined;
  for await (const page of store.dump()) {
    if (!info) {
      info = {
        clusterId: store.snapshot.cluster?.id ?? '',
        version,
        createdAtMs: clock.now(),
        revision: page.revision,
        epoch: store.leadership?.epoch ?? 0,
      };
      const files = Object.entries(await identity());
      yield part([lineOf(['backup', info]), ...files.map(([name, text]) => lineOf(['identity', name, text]))]);
    }
    records += page.records.length;
    yield part(page.records.map(({ path, text }) => recordLine(path, text)));
  }
  yield part([lineOf(['end', { records }])]);
}
