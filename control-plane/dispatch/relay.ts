/** Channels to nodes for exec, stats and raw logs: asked for over the session, dialled by the agent, matched here. */
import type { OpenRelay, RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { Queue } from '#proto/kernel/queue.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { MessageStream } from '#proto/stream.ts';

export type RelayRequest = NonNullable<OpenRelay['request']>;

/** One open relay. Frames end, or throw the agent's Fault, when the agent is done. */
export interface RelayChannel {
  /** Resolves when there is room for the next frame. */
  write(frame: RelayFrame): Promise<void>;
  readonly frames: AsyncIterable<RelayFrame>;
  close(): void;
}

export interface Relays {
  /** Faults: `unavailable` (the node has no session here, or does not answer within 5 s). */
  open(node: NodeId, request: RelayRequest): Promise<RelayChannel>;
}

const dialTimeoutMs = 5_000;
/** Frames held for a slow reader before the agent is made to wait. */
const frameLimit = 64;

interface Pending {
  readonly node: NodeId;
  taken(stream: MessageStream<RelayFrame, RelayFrame>): void;
}

export class RelayDesk implements Relays {
  readonly #parts: { clock: Clock; random: Random; ask: (node: NodeId, request: OpenRelay) => boolean };
  readonly #pending = new Map<string, Pending>();

  /** `ask` sends the request down the node's session; false where it has none. */
  constructor(parts: { clock: Clock; random: Random; ask: (node: NodeId, request: OpenRelay) => boolean }) {
    this.#parts = parts;
  }

  open(node: NodeId, request: RelayRequest): Promise<RelayChannel> {
    const relayId = newId(this.#parts.random);
    return new Promise((resolve, reject) => {
      const fail = (message: string) => {
        timer.cancel();
        this.#pending.delete(relayId);
        reject(new Fault('unavailable', message, { remedy: 'see `gantry nodes`; try again when the node is ready' }));
      };
      const timer = this.#parts.clock.after(dialTimeoutMs, () =>
        fail(`node ${node} did not open the channel within ${dialTimeoutMs / 1000} s`),
      );
      this.#pending.set(relayId, {
        node,
        taken: (stream) => {
          timer.cancel();
          this.#pending.delete(relayId);
          resolve(channel(stream));
        },
      });
      if (!this.#parts.ask(node, { relayId, request })) fail(`node ${node} is not connected to the control plane`);
    });
  }

  /** A relay stream that an agent dialled: its first frame says which one it is. */
  accept(node: NodeId, stream: MessageStream<RelayFrame, RelayFrame>): void {
    stream.listen({
      message: (frame) => {
        const pending = frame.body?.$case === 'relayId' ? this.#pending.get(frame.body.value) : undefined;
        if (pending?.node === node) pending.taken(stream);
        else stream.close(new Fault('not-found', 'nobody waits for this relay any more'));
      },
      closed() {},
    });
  }
}

function channel(stream: MessageStream<RelayFrame, RelayFrame>): RelayChannel {
  const queue = new Queue<RelayFrame>();
  let wake: (() => void) | undefined;
  let paused = false;
  let done = false;
  stream.listen({
    message(frame) {
      queue.push(frame);
      if (queue.size >= frameLimit && !paused) {
        paused = true;
        stream.pause();
      }
    },
    drain: () => wake?.(),
    closed(fault) {
      done = true;
      queue.end(fault);
      wake?.();
    },
  });
  return {
    async write(frame) {
      if (done || stream.send(frame)) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    },
    frames: {
      async *[Symbol.asyncIterator]() {
        for await (const frame of queue) {
          if (paused && queue.size < frameLimit / 2) {
            paused = false;
            stream.resume();
          }
          yield frame;
        }
      },
    },
    close() {
      done = true;
      stream.close();
      queue.end();
      wake?.();
    },
  };
}
