/** `gantry net`: has the nodes look, streams what they find, and says which hop is broken. */
import type { NetProbeRequest, NetProbeUpdate } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { OperatorParts } from './parts.ts';

/** Findings as nodes make them, then a diagnosis for each path. Faults: `invalid`, `not-found` (of the names). */
export async function* netProbe(
  _parts: OperatorParts,
  request: NetProbeRequest,
  _signal: AbortSignal,
): AsyncGenerator<NetProbeUpdate> {
  throw new Fault('unsupported', `gantry net ${request.kind} is being built`);
}
