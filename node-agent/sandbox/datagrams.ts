/** Datagrams over a byte stream: each behind two bytes that tell its length. How UDP passes the gateway. */
import type { Socket } from 'node:net';

/** What of them may wait for a slow reader, bytes; more is dropped, as a full queue of a network does. */
const waitingBytes = 1 << 20;

/** Sends one datagram down the stream, or drops it. */
export function sendDatagram(stream: Socket, datagram: Buffer): void {
  if (!stream.writable || stream.writableLength > waitingBytes) return;
  const head = Buffer.alloc(2);
  head.writeUInt16BE(datagram.length);
  stream.cork();
  stream.write(head);
  stream.write(datagram);
  stream.uncork();
}

/** Calls `take` with each datagram that arrives, until the stream closes. */
export function onDatagrams(stream: Socket, take: (datagram: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length >= at + 2) {
      const end = at + 2 + rest.readUInt16BE(at);
      if (rest.length < end) break;
      take(rest.subarray(at + 2, end));
      at = end;
    }
    rest = rest.subarray(at);
  });
}
