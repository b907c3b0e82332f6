/** How wide packets to each peer may be, measured: echo requests that nobody may fragment, a few at a time, again and again. */

import { afterRound, nothingKnown, type PathKnown, sizesToAsk } from '#net/plan/path-search.ts';
import type { Measured } from '#net/plan/ways.ts';
import { closeFd, errnoOf, MSG_DONTWAIT, openIcmp, receive, sendTo } from './libc.ts';
import { Netlink } from './netlink.ts';
import { cachedMtu } from './routing.ts';

/** Between looks; sooner they cost nothing and do nothing. */
const lookEveryMs = 100;
/** A round ends when all is answered; or this long after the first answer; or without any after so long. */
const afterAnswerMs = 300;
const silenceMs = 1_000;
/** Each size is asked with so often before it counts as too wide. */
const mostAsks = 2;
const measureEveryMs = 60_000;
/** Measurements begun, and peers whose way the kernel is asked for, in one look. */
const mostBegun = 20;
const mostChecked = 4;
const echoRequest = 8;
const echoReply = 0;
const unreachable = 3;
const fragmentationNeeded = 4;
const ipHeaderBytes = 20;
const icmpHeaderBytes = 8;

interface Search {
  known: PathKnown;
  expected: number;
  /** The width of the narrowest link that a router has told of in this round; 0: none has. */
  told: number;
  asked: readonly number[];
  readonly answered: Set<number>;
  asks: number;
  beganMs: number;
  firstAnswerMs: number | undefined;
}

interface Path {
  link: number;
  dueMs: number;
  search: Search | undefined;
  /** Nobody answers, and that has been said. */
  silent: boolean;
}

export class PathMtu {
  readonly #fd = openIcmp();
  readonly #netlink = new Netlink(0);
  readonly #buffer = Buffer.alloc(1 << 16);
  /** Tells our requests from others'. */
  readonly #id = process.pid & 0xffff;
  #sequence = 0;
  readonly #pending = new Map<number, { readonly address: string; readonly size: number }>();
  readonly #paths = new Map<string, Path>();
  #widths: ReadonlyMap<string, number> = new Map();
  #measured: readonly Measured[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;
  #turn = 0;
  readonly #said: (address: string, link: number) => void;

  /** `said`: an address answers no echo request, so that its path is taken to be as wide as its link. */
  constructor(said: (address: string, link: number) => void) {
    this.#said = said;
  }

  /**
   * The widest packets that are known to reach these addresses, bytes; the same object as long as it is the same news. What
   * was known of an address that is silent for a while stays. To be called often: it does the measuring. `nowMs`: monotonic.
   */
  widths(measured: readonly Measured[], nowMs: number): ReadonlyMap<string, number> {
    if (nowMs - this.#lookedMs < lookEveryMs) return this.#widths;
    this.#lookedMs = nowMs;
    this.#follow(measured, nowMs);
    this.#receive(nowMs);
    for (const [address, path] of this.#paths) if (path.search) this.#goOn(address, path, path.search, nowMs);
    this.#begin(nowMs);
    this.#check(measured, nowMs);
    return this.#widths;
  }

  #follow(measured: readonly Measured[], nowMs: number): void {
    if (measured === this.#measured) return;
    this.#measured = measured;
    const wanted = new Set(measured.map(({ address }) => address));
    for (const { address, link, afterMs } of measured) {
      const path = this.#paths.get(address);
      if (path?.link === link) continue;
      this.#paths.set(address, { link, dueMs: nowMs + afterMs, search: undefined, silent: false });
    }
    for (const address of this.#paths.keys()) {
      if (wanted.has(address)) continue;
      this.#paths.delete(address);
      this.#note(address, undefined);
    }
  }

  #begin(nowMs: number): void {
    let begun = 0;
    for (const [address, path] of this.#paths) {
      if (path.search || path.dueMs > nowMs) continue;
      path.search = {
        known: nothingKnown(path.link),
        expected: this.#widths.get(address) ?? 0,
        told: 0,
        asked: [],
        answered: new Set(),
        asks: 0,
        beganMs: nowMs,
        firstAnswerMs: undefined,
      };
      this.#askNext(address, path, path.search, nowMs);
      if (++begun === mostBegun) return;
    }
  }

  #askNext(address: string, path: Path, search: Search, nowMs: number): void {
    search.asked = sizesToAsk(search.known, search.told === 0 ? search.expected : search.told);
    search.expected = 0;
    search.told = 0;
    search.answered.clear();
    search.asks = 0;
    if (search.asked.length > 0) this.#ask(address, search, nowMs);
    else this.#done(address, path, search.known.passed, nowMs);
  }

  #ask(address: string, search: Search, nowMs: number): void {
    search.asks++;
    search.beganMs = nowMs;
    search.firstAnswerMs = undefined;
    for (const size of search.asked) if (!search.answered.has(size)) this.#send(address, size);
  }

  /** A size that is wider than the link, or has nowhere to go, is not answered, which says enough. */
  #send(address: string, size: number): void {
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const packet = Buffer.alloc(size - ipHeaderBytes);
    packet[0] = echoRequest;
    packet.writeUInt16BE(this.#id, 4);
    packet.writeUInt16BE(this.#sequence, 6);
    packet.writeUInt16BE(checksumOf(packet), 2);
    this.#pending.set(this.#sequence, { address, size });
    sendTo(this.#fd, packet, address);
  }

  #goOn(address: string, path: Path, search: Search, nowMs: number): void {
    const all = search.asked.every((size) => search.answered.has(size) || (search.told > 0 && size > search.told));
    const since = search.firstAnswerMs;
    const over = since === undefined ? nowMs - search.beganMs >= silenceMs : nowMs - since >= afterAnswerMs;
    if (!all && !over) return;
    if (!all && search.asks < mostAsks) {
      this.#ask(address, search, nowMs);
      return;
    }
    search.known = afterRound(search.known, search.asked, search.answered);
    if (search.known.passed > 0) this.#askNext(address, path, search, nowMs);
    else this.#silence(address, path, nowMs);
  }

  #silence(address: string, path: Path, nowMs: number): void {
    if (!path.silent && !this.#widths.has(address)) this.#said(address, path.link);
    path.silent = true;
    this.#end(path, nowMs);
  }

  #done(address: string, path: Path, width: number, nowMs: number): void {
    path.silent = false;
    this.#end(path, nowMs);
    this.#note(address, width);
  }

  #end(path: Path, nowMs: number): void {
    path.search = undefined;
    path.dueMs = nowMs + measureEveryMs;
  }

  #note(address: string, width: number | undefined): void {
    if (this.#widths.get(address) === width) return;
    const widths = new Map(this.#widths);
    if (width === undefined) widths.delete(address);
    else widths.set(address, width);
    this.#widths = widths;
  }

  #receive(nowMs: number): void {
    for (;;) {
      let length: number;
      try {
        length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      } catch (error) {
        if (errnoOf(error) === 'EAGAIN') break;
        // What a router said of a request of ours is told by one receive, and is over then.
        continue;
      }
      this.#heard(this.#buffer.subarray(0, length), nowMs);
    }
    // What was asked long ago is nobody's any more.
    while (this.#pending.size > 4_096) this.#pending.delete(this.#pending.keys().next().value as number);
  }

  #heard(packet: Buffer, nowMs: number): void {
    const icmp = packet.subarray(((packet[0] ?? 0) & 15) * 4);
    if (icmp.length < icmpHeaderBytes) return;
    if (icmp[0] === echoReply) this.#answered(icmp, [...packet.subarray(12, 16)].join('.'), nowMs);
    else if (icmp[0] === unreachable && icmp[1] === fragmentationNeeded) this.#tooWide(icmp);
  }

  /** A router's word: which of our requests it is about, and how wide its next link is. */
  #tooWide(icmp: Buffer): void {
    const inner = icmp.subarray(icmpHeaderBytes);
    const request = inner.subarray(((inner[0] ?? 0) & 15) * 4);
    if (request.length < icmpHeaderBytes || request.readUInt16BE(4) !== this.#id) return;
    const asked = this.#pending.get(request.readUInt16BE(6));
    const search = asked && this.#paths.get(asked.address)?.search;
    const width = icmp.readUInt16BE(6);
    if (!search || width >= asked.size) return;
    search.told = search.told === 0 ? width : Math.min(search.told, width);
  }

  #answered(icmp: Buffer, from: string, nowMs: number): void {
    if (icmp.readUInt16BE(4) !== this.#id) return;
    const sequence = icmp.readUInt16BE(6);
    const asked = this.#pending.get(sequence);
    if (asked?.address !== from) return;
    this.#pending.delete(sequence);
    const search = this.#paths.get(from)?.search;
    if (!search?.asked.includes(asked.size)) return;
    search.answered.add(asked.size);
    search.firstAnswerMs ??= nowMs;
  }

  /** By turns, whether a router has told the kernel of a narrower path: then that is measured now. */
  #check(measured: readonly Measured[], nowMs: number): void {
    for (let count = Math.min(mostChecked, measured.length); count > 0; count--) {
      const address = measured[this.#turn++ % measured.length]?.address ?? '';
      const path = this.#paths.get(address);
      const width = this.#widths.get(address);
      if (!path || path.search || width === undefined || path.dueMs <= nowMs) continue;
      const cached = cachedMtu(this.#netlink, address);
      if (cached !== undefined && cached < width) path.dueMs = nowMs;
    }
  }

  close(): void {
    closeFd(this.#fd);
    this.#netlink.close();
  }
}

/** The Internet's checksum. */
function checksumOf(data: Buffer): number {
  let sum = 0;
  for (let index = 0; index + 1 < data.length; index += 2) sum += data.readUInt16BE(index);
  if (data.length % 2 === 1) sum += (data[data.length - 1] ?? 0) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
