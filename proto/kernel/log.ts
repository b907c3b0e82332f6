/** Logs: a constant message plus fields from one closed list, a JSON line each. */
import { describe, Fault } from './errors.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Every field a line may carry; add here rather than inventing names at call sites. */
export interface LogFields {
  readonly error?: unknown;
  readonly node?: string;
  readonly task?: string;
  readonly service?: string;
  readonly image?: string;
  readonly address?: string;
  readonly path?: string;
  readonly step?: string;
  readonly state?: string;
  readonly why?: string;
  readonly epoch?: number;
  readonly revision?: number;
  readonly count?: number;
  readonly bytes?: number;
  readonly durationMs?: number;
  readonly attempt?: number;
  readonly pid?: number;
  readonly stream?: string;
}

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log whose lines name this part and carry these fields. */
  with(part: string, fields?: LogFields): Log;
}

const ranks: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Lines of `level` and above go to `write` as JSON, stamped by `now` (ms since the epoch). */
export function jsonLog(write: (line: string) => void, now: () => number, level: LogLevel = 'info', part = ''): Log {
  const build = (part: string, base: LogFields): Log => {
    const emit = (at: LogLevel, message: string, fields: LogFields = {}) => {
      if (ranks[at] < ranks[level]) return;
      const { error, ...rest } = { ...base, ...fields };
      const line = { time: new Date(now()).toISOString(), level: at, part, message, ...rest };
      write(`${JSON.stringify(error === undefined ? line : { ...line, ...errorFields(error) })}\n`);
    };
    return {
      debug: (message, fields) => emit('debug', message, fields),
      info: (message, fields) => emit('info', message, fields),
      warn: (message, fields) => emit('warn', message, fields),
      error: (message, fields) => emit('error', message, fields),
      with: (name, fields = {}) => build(part ? `${part}/${name}` : name, { ...base, ...fields }),
    };
  };
  return build(part, {});
}

/** For tests and places where nobody listens. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  with: () => silentLog,
};

function errorFields(error: unknown): Record<string, unknown> {
  if (error instanceof Fault) return { error: describe(error), code: error.code };
  return { error: describe(error), stack: error instanceof Error ? error.stack : undefined };
}
