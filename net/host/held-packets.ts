/**
 * The packets that our tables hold for services without a task: the kernel hands over a copy and drops its own (`k0` in
 * net/plan/rules), and what is sent again goes as the host's own would, by a raw socket, with the address of its sender.
 */
import { type Packet, parsePacket, withChecksum } from '#net/plan/held-packet.ts';
import { heldGroup, heldMark } from '#net/plan/rules.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { closeFd, MSG_DONTWAIT, openNetlink, openRaw, receive, send, sendRaw, setOption } from './libc.ts';
import { attribute, attributesOf, messagesOf } from './netlink.ts';

const NETLINK_NETFILTER = 12;
const ULOG = 4 << 8;
const MSG_PACKET = ULOG;
const MSG_CONFIG = ULOG | 1;
const CFG = { command: 1, mode: 2, threshold: 5 } as const;
const BIND = 1;
const COPY_PACKET = 2;
const PAYLOAD = 9;
const NLM_F_REQUEST_ACK = 0x5;
const NLMSG_ERROR = 2;
const longestPacket = 0xffff;
/** What waits in the kernel until it is fetched. */
const waitingBytes = 4 << 20;
const SOL_SOCKET = 1;
const SO_MARK = 36;

export class HeldPackets {
  readonly #log: number;
  readonly #raw: { readonly ip: number; readonly ip6: number | undefined };
  readonly #buffer = Buffer.alloc(1 << 17);

  /** Fault('conflict') where somebody else has the group of the log. */
  constructor() {
    this.#log = openNetlink(NETLINK_NETFILTER, waitingBytes).fd;
    this.#configure(attribute(CFG.command, Buffer.from([BIND])));
    const mode = Buffer.alloc(6);
    mode.writeUInt32BE(longestPacket, 0);
    mode[4] = COPY_PACKET;
    const threshold = Buffer.alloc(4);
    threshold.writeUInt32BE(1);
    this.#configure(Buffer.concat([attribute(CFG.mode, mode), attribute(CFG.threshold, threshold)]));
    this.#raw = { ip: openMarked('ip'), ip6: openIfThere() };
  }

  #configure(attributes: Buffer): void {
    // A netlink message: header, nfgenmsg (whose resource is the group), attributes.
    const message = Buffer.alloc(20 + attributes.length);
    message.writeUInt32LE(message.length, 0);
    message.writeUInt16LE(MSG_CONFIG, 4);
    message.writeUInt16LE(NLM_F_REQUEST_ACK, 6);
    message.writeUInt16BE(heldGroup, 18);
    attributes.copy(message, 20);
    send(this.#log, message);
    for (const answer of messagesOf(this.#buffer.subarray(0, receive(this.#log, this.#buffer)))) {
      const errno = answer.type === NLMSG_ERROR ? -answer.body.readInt32LE(0) : 0;
      if (errno === 0) continue;
      throw new Fault('conflict', `group ${heldGroup} of the kernel's log is not to be had (errno ${errno})`, {
        remedy: 'let no other program of this host use it: services without a task are not woken by this node',
      });
    }
  }

  /** What has come since it was last asked. */
  take(): readonly Packet[] {
    const packets: Packet[] = [];
    for (;;) {
      let length: number;
      try {
        length = receive(this.#log, this.#buffer, MSG_DONTWAIT);
      } catch (error) {
        // More has come than fits: what did not is sent again by who waits.
        if (isFault(error, 'exhausted')) continue;
        if (isFault(error, 'unavailable')) return packets;
        throw error;
      }
      for (const { type, body } of messagesOf(this.#buffer.subarray(0, length))) {
        const payload = type === MSG_PACKET ? attributesOf(body, 4).get(PAYLOAD) : undefined;
        const packet = payload && parsePacket(Uint8Array.from(payload));
        if (packet) packets.push(packet);
      }
    }
  }

  /** Sends it again, marked: to a task where there is one now, else it is refused. What the kernel does not take is lost, as a packet may be. */
  send({ family, destination, bytes }: Packet): void {
    const raw = this.#raw[family];
    if (raw !== undefined) sendRaw(raw, Buffer.from(withChecksum(bytes)), destination);
  }

  close(): void {
    closeFd(this.#log);
    closeFd(this.#raw.ip);
    if (this.#raw.ip6 !== undefined) closeFd(this.#raw.ip6);
  }
}

function openMarked(family: 'ip' | 'ip6'): number {
  const fd = openRaw(family);
  setOption(fd, SOL_SOCKET, SO_MARK, heldMark);
  return fd;
}

/** A kernel may be without IPv6. */
function openIfThere(): number | undefined {
  try {
    return openMarked('ip6');
  } catch (error) {
    if (isFault(error, 'unsupported')) return undefined;
    throw error;
  }
}
