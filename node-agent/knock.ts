/** Notices that a way to the control plane is open again, sooner than the kernel does: a SYN that was lost is sent again after a second, then two, then four. */
import { createConnection, type Socket } from 'node:net';
import { type Clock, systemClock, type Timer } from '#proto/kernel/clock.ts';

/** An answer comes in milliseconds, or there is none. */
export const knockMs = 150;

export interface Door {
  /** HOST:PORT. */
  readonly address: string;
  readonly isOpen: () => boolean;
  /** It answered a knock, after others that it had not answered: what was dialled before has its SYN under way to nobody. */
  readonly opened: () => void;
}

/**
 * Knocks while the door is not open, until it is answered or the returned function is called. Where the first knock is
 * answered nothing is said: then whoever was dialled is there, and slow.
 */
export function knock(
  { address, isOpen, opened }: Door,
  clock: Clock = systemClock,
  dial: (to: { readonly host: string; readonly port: number }) => Socket = createConnection,
): () => void {
  const [, host = '', port = ''] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  let socket: Socket | undefined;
  let unanswered = false;
  let timer: Timer;
  const end = () => {
    timer.cancel();
    socket?.destroy();
    socket = undefined;
  };
  const wait = () => {
    timer = clock.after(knockMs, () => {
      unanswered ||= socket !== undefined;
      end();
      if (isOpen()) return;
      const next = dial({ host, port: Number(port) });
      socket = next;
      next.on('connect', () => {
        if (socket !== next) return;
        end();
        if (unanswered) opened();
      });
      // Refused, or no route: an answer too, and one that the dial gets itself.
      next.on('error', () => {
        if (socket === next) socket = undefined;
      });
      wait();
    });
  };
  wait();
  return end;
}
