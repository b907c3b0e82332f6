/** The way into a sandbox's network: its gateway, behind a unix socket. */
import { connect, type Socket } from 'node:net';

/** A way to `target` ("tcp address:port", or "udp …" for datagrams) made by the gateway, paused; nothing if it could not be made. */
export function through(gateway: string, target: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path: gateway, allowHalfOpen: true });
    let head = Buffer.alloc(0);
    const fail = () => {
      socket.destroy();
      resolve(undefined);
    };
    const onData = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\n');
      if (end < 0) return;
      if (head.subarray(0, end).toString() !== 'ok') return fail();
      socket.off('data', onData);
      socket.off('error', fail);
      socket.off('end', fail);
      socket.pause();
      if (head.length > end + 1) socket.unshift(head.subarray(end + 1));
      resolve(socket);
    };
    socket.on('error', fail);
    socket.on('end', fail);
    socket.on('data', onData);
    socket.on('connect', () => socket.write(`${target}\n`));
  });
}
