/** Netlink messages and a synchronous request socket: the kernel answers within the call, so nothing here waits. */
import { formatAddress6, tryAddress6 } from '#net/plan/address6.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { closeFd, errnoFault, openNetlink, receive, receiveOnThread, send, sendOnThread, setOption } from './libc.ts';

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_DUMP_INTR = 0x10;
const NLA_F_NESTED = 0x8000;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_GET_STRICT_CHK = 12;
const headerBytes = 16;

/** A request: what to call it in errors, its message type, flags (REQUEST is implied) and body. */
export interface Request {
  readonly what: string;
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly portId: number;
  readonly body: Buffer;
}

const align = (length: number) => (length + 3) & ~3;

/** An attribute: a number becomes 32 bits in host order, a text ends in NUL. */
export function attribute(type: number, value: number | string | Buffer): Buffer {
  let payload: Buffer;
  if (typeof value === 'number') {
    payload = Buffer.alloc(4);
    payload.writeUInt32LE(value);
  } else payload = typeof value === 'string' ? Buffer.from(`${value}\0`) : value;
  const buffer = Buffer.alloc(align(4 + payload.length));
  buffer.writeUInt16LE(4 + payload.length, 0);
  buffer.writeUInt16LE(type, 2);
  payload.copy(buffer, 4);
  return buffer;
}

/** Attributes within an attribute. */
export function nested(type: number, ...attributes: readonly Buffer[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(attributes));
}

/** The attributes of a body from `offset`, by type. */
export function attributesOf(body: Buffer, offset = 0): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  while (offset + 4 <= body.length) {
    const length = body.readUInt16LE(offset);
    if (length < 4) break;
    attributes.set(body.readUInt16LE(offset + 2) & 0x3fff, body.subarray(offset + 4, offset + length));
    offset += align(length);
  }
  return attributes;
}

/** The text of an attribute, without its NUL. */
export function textOf(attribute: Buffer | undefined): string {
  if (!attribute) return '';
  const end = attribute.indexOf(0);
  return attribute.toString('latin1', 0, end < 0 ? attribute.length : end);
}

/** Of an IPv4 or IPv6 address. */
export function addressBytes(address: string): Buffer {
  const six = address.includes(':') ? tryAddress6(address) : undefined;
  return Buffer.from(six ?? address.split('.').map(Number));
}

export function addressText(bytes: Buffer | undefined): string {
  if (bytes?.length === 16) return formatAddress6(bytes);
  return bytes ? [...bytes].join('.') : '';
}

/** The messages of one datagram. */
export function* messagesOf(data: Buffer): Generator<Message & { readonly sequence: number }> {
  for (let offset = 0; offset + headerBytes <= data.length; ) {
    const length = data.readUInt32LE(offset);
    if (length < headerBytes) return;
    yield {
      type: data.readUInt16LE(offset + 4),
      flags: data.readUInt16LE(offset + 6),
      sequence: data.readUInt32LE(offset + 8),
      portId: data.readUInt32LE(offset + 12),
      body: data.subarray(offset + headerBytes, offset + length),
    };
    offset += align(length);
  }
}

/** A socket for requests, in the namespace it was opened in. */
export class Netlink {
  readonly #fd: number;
  /** What the kernel calls this socket; notifications of our own doing carry it. */
  readonly portId: number;
  #sequence = 1;
  // A dump's datagrams are as large as the buffer offered, up to 32 KiB; an acknowledgement quotes its request.
  readonly #buffer = Buffer.alloc(1 << 16);

  constructor(protocol: number) {
    const { fd, portId } = openNetlink(protocol);
    this.#fd = fd;
    this.portId = portId;
    if (protocol === 0) setOption(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  }

  /** Sends all, and gives each one's Fault, or undefined. A request is tried whether or not those before it failed. */
  try(requests: readonly Request[]): (Fault | undefined)[] {
    const results: (Fault | undefined)[] = [];
    for (let start = 0; start < requests.length; start += 64) {
      results.push(...this.#tryBatch(requests.slice(start, start + 64)));
    }
    return results;
  }

  #tryBatch(requests: readonly Request[]): (Fault | undefined)[] {
    const first = this.#sequence;
    send(this.#fd, Buffer.concat(requests.map((request) => this.#encode(request, NLM_F_ACK))));
    const results: (Fault | undefined)[] = requests.map(() => undefined);
    for (let left = requests.length; left > 0; ) {
      for (const message of this.#receive()) {
        const request = requests[message.sequence - first];
        if (message.type !== NLMSG_ERROR || !request) continue;
        const errno = -message.body.readInt32LE(0);
        if (errno !== 0) results[message.sequence - first] = errnoFault(request.what, errno);
        left--;
      }
    }
    return results;
  }

  /** Sends all, and throws the first Fault; those after it were tried too. */
  do(...requests: readonly Request[]): void {
    for (const fault of this.try(requests)) if (fault) throw fault;
  }

  /** The one answer to a request that asks for something. */
  ask(request: Request): Message {
    const sequence = this.#sequence;
    send(this.#fd, this.#encode(request, 0));
    for (;;) {
      for (const message of this.#receive()) {
        if (message.sequence !== sequence) continue;
        if (message.type === NLMSG_ERROR) throw errnoFault(request.what, -message.body.readInt32LE(0));
        return { ...message, body: Buffer.from(message.body) };
      }
    }
  }

  /** All answers to a dump; asked again when the kernel says that they changed meanwhile. */
  dump(request: Request): Message[] {
    for (let attempt = 1; ; attempt++) {
      const answers = this.#dumpOnce(request);
      if (answers) return answers;
      if (attempt === 10) throw new Fault('unavailable', `${request.what}: it changes faster than it can be read`);
    }
  }

  #dumpOnce(request: Request): Message[] | undefined {
    const sequence = this.#sequence;
    send(this.#fd, this.#encode(request, NLM_F_DUMP));
    const answers: Message[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive()) {
        if (message.sequence !== sequence) continue;
        if (message.flags & NLM_F_DUMP_INTR) interrupted = true;
        if (message.type === NLMSG_DONE) return interrupted ? undefined : answers;
        if (message.type === NLMSG_ERROR) throw errnoFault(request.what, -message.body.readInt32LE(0));
        answers.push({ ...message, body: Buffer.from(message.body) });
      }
    }
  }

  /** As dump, on a thread of the pool; nothing else may use the socket meanwhile. What changes meanwhile may be missed. */
  async dumpOnThread(request: Request): Promise<Message[]> {
    const sequence = this.#sequence;
    await sendOnThread(this.#fd, this.#encode(request, NLM_F_DUMP));
    const answers: Message[] = [];
    for (;;) {
      const length = await receiveOnThread(this.#fd, this.#buffer);
      for (const message of messagesOf(this.#buffer.subarray(0, length))) {
        if (message.sequence !== sequence) continue;
        if (message.type === NLMSG_DONE) return answers;
        if (message.type === NLMSG_ERROR) throw errnoFault(request.what, -message.body.readInt32LE(0));
        answers.push({ ...message, body: Buffer.from(message.body) });
      }
    }
  }

  /** As do for one request, on a thread of the pool; nothing else may use the socket meanwhile. */
  async doOnThread(request: Request): Promise<void> {
    await sendOnThread(this.#fd, this.#encode(request, NLM_F_ACK));
    for (const message of this.#receive()) {
      const errno = message.type === NLMSG_ERROR ? -message.body.readInt32LE(0) : 0;
      if (errno !== 0) throw errnoFault(request.what, errno);
    }
  }

  /**
   * Sends all at once, on a thread of the pool; nothing else may use the socket meanwhile. What each was answered (the body),
   * or its Fault. For few and small: the answers wait in the socket's buffer.
   */
  async exchangeOnThread(
    requests: readonly Request[],
  ): Promise<readonly { readonly answer?: Buffer; readonly fault?: Fault }[]> {
    if (requests.length === 0) return [];
    const first = this.#sequence;
    await sendOnThread(this.#fd, Buffer.concat(requests.map((request) => this.#encode(request, NLM_F_ACK))));
    const results: { answer?: Buffer; fault?: Fault }[] = requests.map(() => ({}));
    for (let left = requests.length; left > 0; ) {
      for (const message of this.#receive()) {
        const index = message.sequence - first;
        const [request, result] = [requests[index], results[index]];
        if (!request || !result) continue;
        if (message.type !== NLMSG_ERROR) {
          result.answer = Buffer.from(message.body);
          continue;
        }
        const errno = -message.body.readInt32LE(0);
        if (errno !== 0) result.fault = errnoFault(request.what, errno);
        left--;
      }
    }
    return results;
  }

  #receive() {
    return messagesOf(this.#buffer.subarray(0, receive(this.#fd, this.#buffer)));
  }

  #encode(request: Request, flags: number): Buffer {
    const buffer = Buffer.alloc(align(headerBytes + request.body.length));
    buffer.writeUInt32LE(headerBytes + request.body.length, 0);
    buffer.writeUInt16LE(request.type, 4);
    buffer.writeUInt16LE(request.flags | flags | NLM_F_REQUEST, 6);
    buffer.writeUInt32LE(this.#sequence++, 8);
    request.body.copy(buffer, headerBytes);
    return buffer;
  }

  close(): void {
    closeFd(this.#fd);
  }
}

/** Joins a multicast group. */
export function joinGroup(fd: number, group: number): void {
  setOption(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
}
