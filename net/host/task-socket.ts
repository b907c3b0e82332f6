/** Connections that begin in a task's network: the socket is made there in one synchronous turn, and is Node's own from then on. */
import net from 'node:net';
import koffi from 'koffi';
import { Fault } from '#proto/kernel/errors.ts';
import { openInNetns } from './netns.ts';

const libc = koffi.load('libc.so.6');
const makeSocket = libc.func('int socket(int, int, int)');
const AF_INET = 2;
const SOCK = { stream: 1, nonBlocking: 0o4000, closeOnExec: 0o2000000 } as const;

/** A socket that is about to connect from the network of a process. Fault `not-found`: there is no such process any more. */
export function connectFrom(pid: number, host: string, port: number): net.Socket {
  const fd = openInNetns(`/proc/${pid}/ns/net`, () =>
    makeSocket(AF_INET, SOCK.stream | SOCK.nonBlocking | SOCK.closeOnExec, 0),
  );
  if (fd < 0) throw new Fault('exhausted', `no socket for a probe: errno ${koffi.errno()}`);
  // Nothing can be read before it has connected.
  const options: net.SocketConstructorOpts & { manualStart: true } = { fd, manualStart: true };
  return new net.Socket(options).connect({ host, port });
}
