/** Notices that a way to the control plane is open again, sooner than the kernel does: a SYN that was lost is sent again after a second, then two, then four. */
import { createConnection, type Socket } from 'node:net';
import { type Clock, systemClock, type Timer } from '#proto/kernel/clock.ts';

/** An answer comes in milliseconds, or there is none. */
export const knockMs = 150;

export interface Door {
  readonly host: string;
  readonly port: number;
  /** Nobody answered there when somebody last knocked. */
  readonly isShut: boolean;
  readonly isOpen: () => boolean;
  /** A knock was not answered; another one follows at once. */
  readonly unanswered: () => void;
  /** It answered a knock. */
  readonly answered: () => void;
  /** It answered a knock, after others that it had not answered: what was dialled before has its SYN under way to nobody. */
  readonly opened: () => void;
}

/**
 * Knocks while the door is not open, until it is answered or the returned function is called. Where the first knock is
 * answered, and it was not shut before, nothing is said: then whoever was dialled is there, and slow.
 */
export function knock(
  { host, port, isShut, isOpen, unanswered, answered, opened }: Door,
  clock: Clock = systemClock,
  dial: (to: { readonly host: string; readonly port: number }) => Socket = createConnection,
): () => void {
  let socket: Socket | undefined;
  let shut = isShut;
  let timer: Timer;
  const end = () => {
    timer.cancel();
    socket?.destroy();
    socket = undefined;
  };
  const wait = () => {
    timer = clock.after(knockMs, () => {
      const waited = socket !== undefined;
      end();
      if (isOpen()) return;
      if (waited) {
        shut = true;
        unanswered();
      }
      const next = dial({ host, port });
      socket = next;
      next.on('connect', () => {
        if (socket !== next) return;
        end();
        answered();
        if (shut) opened();
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
