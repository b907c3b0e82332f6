/** Signals by their names, as people and image configs write them. */
import { constants } from 'node:os';
import { Fault } from '#proto/kernel/errors.ts';

const signals: Readonly<Record<string, number>> = constants.signals;

/** The number of a signal given as `SIGTERM`, `TERM` or `15`. Fault `invalid` for what is none. */
export function signalNumber(signal: string): number {
  const name = signal.toUpperCase();
  const number = /^\d+$/.test(name) ? Number(name) : signals[name.startsWith('SIG') ? name : `SIG${name}`];
  if (number !== undefined && number >= 1 && number <= 64) return number;
  const realtime = /^(?:SIG)?RTMIN(?:\+(\d+))?$/.exec(name);
  if (realtime && Number(realtime[1] ?? 0) <= 30) return 34 + Number(realtime[1] ?? 0);
  throw new Fault('invalid', `"${signal}" is not a signal`, {
    remedy: 'use a name such as SIGTERM, or a number from 1 to 64',
  });
}
