/** Expected failures, told apart by code and never by their text. Anything that is not a Fault is a bug. */

/** The closed list; each maps to one gRPC status and one HTTP status. */
export type FaultCode =
  | 'invalid' // the request can never succeed as it stands
  | 'not-found'
  | 'exists'
  | 'conflict' // somebody changed it first, or it is in use: look again
  | 'forbidden'
  | 'unauthenticated'
  | 'precondition' // right request, wrong state of the world
  | 'exhausted' // a limit, a quota, a full disk
  | 'unavailable' // try again later, elsewhere
  | 'timeout'
  | 'cancelled'
  | 'unsupported'
  | 'corrupt' // data that does not match its digest or schema
  | 'internal';

const grpcStatus: Record<FaultCode, number> = {
  invalid: 3,
  'not-found': 5,
  exists: 6,
  conflict: 10,
  forbidden: 7,
  unauthenticated: 16,
  precondition: 9,
  exhausted: 8,
  unavailable: 14,
  timeout: 4,
  cancelled: 1,
  unsupported: 12,
  corrupt: 15,
  internal: 13,
};

export class Fault extends Error {
  readonly code: FaultCode;
  /** What the user can do about it, in words. */
  readonly remedy: string | undefined;

  constructor(code: FaultCode, message: string, options: { cause?: unknown; remedy?: string } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'Fault';
    this.code = code;
    this.remedy = options.remedy;
  }
}

/** True for a Fault, of the given codes where any are given. */
export function isFault(error: unknown, ...codes: FaultCode[]): error is Fault {
  return error instanceof Fault && (codes.length === 0 || codes.includes(error.code));
}

/** The gRPC status code (google.rpc.Code) of a fault's code. */
export function grpcCodeOf(code: FaultCode): number {
  return grpcStatus[code];
}

/** The fault code of a gRPC status code; `internal` for those we do not use. */
export function faultCodeOf(status: number): FaultCode {
  for (const [code, value] of Object.entries(grpcStatus)) if (value === status) return code as FaultCode;
  return 'internal';
}

/** A readable line for any thrown value, with its remedy. */
export function describe(error: unknown): string {
  if (error instanceof Fault) return error.remedy ? `${error.message} (${error.remedy})` : error.message;
  return error instanceof Error ? error.message : String(error);
}

/** For conditions that only a bug can break. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}

/** Marks a switch as complete: a compile error where a case is missing. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}
