/** IPv6 addresses as sixteen bytes, read from and written as text (RFC 5952). */

/** The bytes of an IPv6 address without a zone; undefined for anything else. */
export function tryAddress6(text: string): readonly number[] | undefined {
  const halves = text.split('::');
  if (halves.length > 2 || text.length > 45) return undefined;
  const [left, right] = halves.map((half, index) => groupsOf(half, index === halves.length - 1));
  if (!left || (halves.length === 2 && !right)) return undefined;
  if (!right) return left.length === 16 ? left : undefined;
  const missing = 16 - left.length - right.length;
  return missing < 2 ? undefined : [...left, ...Array<number>(missing).fill(0), ...right];
}

/** The shortest text of sixteen bytes: lower case, the longest run of two or more zero groups as `::`. */
export function formatAddress6(bytes: ArrayLike<number>): string {
  const groups = Array.from({ length: 8 }, (_, index) => (bytes[2 * index] ?? 0) * 256 + (bytes[2 * index + 1] ?? 0));
  let [start, length] = [0, 1];
  for (let from = 0; from < 8; from++) {
    let to = from;
    while (to < 8 && groups[to] === 0) to++;
    if (to - from > length) [start, length] = [from, to - from];
  }
  const text = (part: readonly number[]) => part.map((group) => group.toString(16)).join(':');
  if (length < 2) return text(groups);
  return `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`;
}

/** Bytes of groups between colons; the last of the whole text may be an IPv4 address. */
function groupsOf(text: string, atEnd: boolean): number[] | undefined {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [index, group] of groups.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 255);
      continue;
    }
    // As Node has it, 010 is no part of an address: to some it is 8.
    const quad = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/
      .exec(group)
      ?.slice(1)
      .map(Number);
    if (!quad || !atEnd || index < groups.length - 1 || quad.some((byte) => byte > 255)) return undefined;
    bytes.push(...quad);
  }
  return bytes;
}
