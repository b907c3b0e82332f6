/** Failures as the user meets them: the message, the remedy, an exit code that scripts can rely on. */
import { Fault, type FaultCode } from '#proto/kernel/errors.ts';

/** What exit codes mean; 130 is an interrupted wait. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

const byCode: Partial<Record<FaultCode, number>> = {
  invalid: exitCodes.usage,
  'not-found': exitCodes.usage,
  unsupported: exitCodes.usage,
  unavailable: exitCodes.unreachable,
  timeout: exitCodes.unreachable,
  unauthenticated: exitCodes.unreachable,
};

export function faultLines(error: unknown): { readonly lines: readonly string[]; readonly exitCode: number } {
  const lines = [`gantry: ${error instanceof Error ? error.message : String(error)}`];
  if (!(error instanceof Fault)) return { lines, exitCode: exitCodes.failed };
  if (error.remedy) lines.push(`  → ${error.remedy}`);
  return { lines, exitCode: byCode[error.code] ?? exitCodes.failed };
}
