/** When two wall clocks differ so much that somebody has to be told, and how that is said. Pure. */

/** Less is what messages take on a busy machine, and misleads nobody. */
const toldFromMs = 10_000;

export function isOff(differenceMs: number): boolean {
  return Math.abs(differenceMs) >= toldFromMs;
}

/** `1 h ahead of`, `90 s behind`: coarse, so that it stays the same while the difference does. */
export function offWords(differenceMs: number): string {
  const seconds = Math.round(Math.abs(differenceMs) / 1_000);
  const minutes = Math.round(seconds / 60);
  const hours = Math.round(minutes / 60);
  const [size, unit] =
    seconds < 120
      ? [seconds, 's']
      : minutes < 120 && minutes !== 60
        ? [minutes, 'min']
        : hours < 72
          ? [hours, 'h']
          : [Math.round(hours / 24), 'days'];
  return `${size} ${unit} ${differenceMs > 0 ? 'ahead of' : 'behind'}`;
}

export interface ClockSeen {
  readonly name: string;
  /** What its clock is ahead of ours, ms. */
  readonly aheadMs: number;
}

/** What a host says that has asked others for the time; undefined: nothing is wrong, or nobody has answered. */
export function clockComplaint(others: readonly ClockSeen[]): string | undefined {
  const off = others.filter(({ aheadMs }) => isOff(aheadMs));
  const [first] = off;
  if (!first) return undefined;
  const names = (some: readonly ClockSeen[]) => some.map(({ name }) => name).join(', ');
  const isOurs = off.length === others.length && off.every(({ aheadMs }) => !isOff(aheadMs - first.aheadMs));
  if (!isOurs)
    return off.map((one) => `the clock of ${one.name} is ${offWords(one.aheadMs)} that of this host`).join('; ');
  const one = `the clock of this host is ${offWords(-first.aheadMs)} ${off.length > 1 ? 'those' : 'that'} of ${names(off)}`;
  return off.length > 1 ? one : `${one}: one of them is wrong`;
}
