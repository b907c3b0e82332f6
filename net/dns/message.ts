/** DNS messages as bytes (RFC 1035, RFC 6891): what our server reads of queries, and writes. Pure. */
import { tryAddress6 } from '#net/plan/address6.ts';
import { parseAddress } from '#net/plan/cidr.ts';
import type { DnsRecord } from './answer.ts';

export const rcode = { noError: 0, formatError: 1, serverFailure: 2, unknownName: 3, notImplemented: 4, refused: 5 };

/** What fits an Ethernet frame, and so what we offer and give by UDP: larger answers are fetched by TCP. */
export const largestUdpBytes = 1232;
const plainUdpBytes = 512;
const headerBytes = 12;
const inClass = 1;
const optType = 41;
const typeCodes: Readonly<Record<string, number>> = { A: 1, PTR: 12, AAAA: 28, ANY: 255 };
const typeNames = new Map(Object.entries(typeCodes).map(([name, code]) => [code, name]));

export interface Query {
  readonly id: number;
  readonly name: string;
  /** A, AAAA, PTR, ANY, else TYPE and its number. */
  readonly type: string;
  /** The question as it was written: answers repeat it. */
  readonly question: Buffer;
  readonly recursionDesired: boolean;
  /** Absent: the asker knows no EDNS. */
  readonly edns: { readonly udpBytes: number; readonly version: number } | undefined;
}

/** A query, or the code of the error to answer with; undefined for what is no query, and is answered with nothing. */
export function readQuery(bytes: Buffer): Query | { readonly id: number; readonly error: number } | undefined {
  if (bytes.length < headerBytes || (bytes[2]! & 0x80) !== 0) return undefined;
  const id = bytes.readUInt16BE(0);
  if ((bytes[2]! & 0x78) !== 0) return { id, error: rcode.notImplemented };
  const end = endOfName(bytes, headerBytes);
  if (bytes.readUInt16BE(4) !== 1 || end === undefined || end.at + 4 > bytes.length) {
    return { id, error: rcode.formatError };
  }
  const code = bytes.readUInt16BE(end.at);
  if (bytes.readUInt16BE(end.at + 2) !== inClass) return { id, error: rcode.notImplemented };
  const edns = readEdns(bytes, end.at + 4);
  if (edns === 'broken') return { id, error: rcode.formatError };
  return {
    id,
    name: end.name,
    type: typeNames.get(code) ?? `TYPE${code}`,
    question: bytes.subarray(headerBytes, end.at + 4),
    recursionDesired: (bytes[2]! & 1) !== 0,
    edns,
  };
}

/** A name without compression, which questions have no use for, and where it ends. */
function endOfName(bytes: Buffer, start: number): { readonly name: string; readonly at: number } | undefined {
  const labels: string[] = [];
  for (let at = start; at < bytes.length && at - start < 255; ) {
    const length = bytes[at]!;
    if (length === 0) return { name: labels.join('.'), at: at + 1 };
    if (length > 63 || at + 1 + length > bytes.length) return undefined;
    labels.push(bytes.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return undefined;
}

/** The OPT record after the question, which may have others before it. */
function readEdns(bytes: Buffer, start: number): Query['edns'] | 'broken' {
  const records = bytes.readUInt16BE(6) + bytes.readUInt16BE(8) + bytes.readUInt16BE(10);
  let at = start;
  for (let index = 0; index < records; index++) {
    // The owner: a name, or one that ends in a pointer (which is two bytes).
    while (at < bytes.length && bytes[at]! > 0 && bytes[at]! < 64) at += 1 + bytes[at]!;
    at += (bytes[at] ?? 0) >= 0xc0 ? 2 : 1;
    if (at + 10 > bytes.length) return 'broken';
    const type = bytes.readUInt16BE(at);
    if (type === optType) return { udpBytes: bytes.readUInt16BE(at + 2), version: bytes[at + 5]! };
    at += 10 + bytes.readUInt16BE(at + 8);
  }
  return undefined;
}

/** How large a reply by UDP the asker takes from us. */
export function udpLimit(query: Query): number {
  return Math.min(largestUdpBytes, Math.max(plainUdpBytes, query.edns?.udpBytes ?? plainUdpBytes));
}

export interface Reply {
  readonly code: number;
  readonly records: readonly DnsRecord[];
  readonly ttlSeconds: number;
  readonly limitBytes: number;
}

/** A reply with authority. As many records as fit `limitBytes`, said to be cut where that is not all: who reads no more has some at least. */
export function writeReply(query: Query, reply: Reply): Buffer {
  const opt = query.edns ? [writeOpt(query.edns.version > 0)] : [];
  const parts: Buffer[] = [];
  let size = headerBytes + query.question.length + (opt[0]?.length ?? 0);
  const records = query.edns && query.edns.version > 0 ? [] : reply.records;
  for (const record of records) {
    const part = writeRecord(record, reply.ttlSeconds);
    if (size + part.length > reply.limitBytes) break;
    parts.push(part);
    size += part.length;
  }
  const authority = reply.code === rcode.noError || reply.code === rcode.unknownName ? 0x04 : 0;
  const truncated = parts.length < records.length ? 0x02 : 0;
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(query.id, 0);
  header[2] = 0x80 | authority | truncated | (query.recursionDesired ? 1 : 0);
  header[3] = 0x80 | reply.code;
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(parts.length, 6);
  header.writeUInt16BE(opt.length, 10);
  return Buffer.concat([header, query.question, ...parts, ...opt]);
}

/** The reply to a query that cannot be read: its header alone. */
export function writeError(id: number, code: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(id, 0);
  header[2] = 0x80;
  header[3] = code;
  return header;
}

/** `badVersion`: BADVERS, 16, whose upper bits are the first byte of what is a TTL elsewhere. */
function writeOpt(badVersion: boolean): Buffer {
  const opt = Buffer.alloc(11);
  opt.writeUInt16BE(optType, 1);
  opt.writeUInt16BE(largestUdpBytes, 3);
  opt[5] = badVersion ? 1 : 0;
  return opt;
}

/** Named by a pointer to the question's name. */
function writeRecord(record: DnsRecord, ttlSeconds: number): Buffer {
  const data = record.type === 'PTR' ? writeName(record.target) : writeAddress(record);
  const fixed = Buffer.alloc(12);
  fixed.writeUInt16BE(0xc000 | headerBytes, 0);
  fixed.writeUInt16BE(typeCodes[record.type]!, 2);
  fixed.writeUInt16BE(inClass, 4);
  fixed.writeUInt32BE(ttlSeconds, 6);
  fixed.writeUInt16BE(data.length, 10);
  return Buffer.concat([fixed, data]);
}

function writeAddress({ type, address }: Extract<DnsRecord, { address: string }>): Buffer {
  if (type === 'AAAA') return Buffer.from(tryAddress6(address) ?? []);
  const data = Buffer.alloc(4);
  data.writeUInt32BE(parseAddress(address));
  return data;
}

function writeName(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from(label, 'latin1').subarray(0, 63));
  return Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.alloc(1)]);
}

/** The reply cut to its question, for an asker whose packets are smaller. */
export function truncated(reply: Buffer, query: Query): Buffer {
  const opt = query.edns ? writeOpt(false) : Buffer.alloc(0);
  const cut = Buffer.concat([reply.subarray(0, headerBytes), query.question, opt]);
  cut[2]! |= 0x02;
  cut.writeUInt16BE(1, 4);
  cut.writeUInt16BE(0, 6);
  cut.writeUInt16BE(0, 8);
  cut.writeUInt16BE(opt.length > 0 ? 1 : 0, 10);
  return cut;
}

/** True where `bytes` is the reply to the query: its id, a reply, and the same question (whose case some resolvers change). */
export function isReplyTo(query: Buffer, bytes: Buffer): boolean {
  if (bytes.length < headerBytes || (bytes[2]! & 0x80) === 0) return false;
  if (bytes.readUInt16BE(0) !== query.readUInt16BE(0)) return false;
  // Some refuse without repeating the question.
  if (bytes.readUInt16BE(4) === 0) return (bytes[3]! & 0x0f) !== rcode.noError;
  const asked = endOfName(query, headerBytes);
  const told = endOfName(bytes, headerBytes);
  if (!asked || !told || told.at + 4 > bytes.length) return false;
  if (asked.name.toLowerCase() !== told.name.toLowerCase()) return false;
  return query.subarray(asked.at, asked.at + 4).equals(bytes.subarray(told.at, told.at + 4));
}
