/**
 * What many nodes are told, compressed once for all of them: at a failover a leader sends megabytes to each of thousands, and spends more on the
 * bytes than on what they say. Both ends wrap the stream of their session in this; what is behind it knows nothing of it.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { type AgentMessage, ControlMessage } from './gen/gantry/v1/agent.ts';
import { Fault } from './kernel/errors.ts';
import type { MessageStream } from './stream.ts';

/** Less is not worth it. */
const leastBytes = 2_048;
/** No message is longer, whoever sent it (`channelOptions`). */
const mostBytes = 64 * 1024 * 1024;
/** Of zstd: it is done while others wait. */
const level = { params: { [constants.ZSTD_c_compressionLevel]: 3 } };

/** Sent once already: it is sent to many. */
const sent = new WeakSet<ControlMessage>();
const packed = new WeakMap<ControlMessage, ControlMessage>();

/** The leader's end: a message that is sent to a second node is packed for that one and all others that can unpack it. `encode`: as it goes out unpacked. */
export function packing(
  stream: MessageStream<AgentMessage, ControlMessage>,
  encode: (message: ControlMessage) => Uint8Array,
): MessageStream<AgentMessage, ControlMessage> {
  let unpacks = false;
  return {
    ...waysOf(stream),
    listen: (listener) =>
      stream.listen({
        message(message) {
          if (message.body?.$case === 'hello') ({ unpacks = false } = message.body.value);
          listener.message(message);
        },
        drain: () => listener.drain?.(),
        closed: (fault) => listener.closed(fault),
      }),
    send: (message) => stream.send(unpacks ? pack(message, encode) : message),
  };
}

/** What is passed on as it is. */
function waysOf(stream: MessageStream<never, never>): Pick<MessageStream<never, never>, 'pause' | 'resume' | 'close'> {
  return {
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    close: (fault) => stream.close(fault),
  };
}

function pack(message: ControlMessage, encode: (message: ControlMessage) => Uint8Array): ControlMessage {
  if (message.body?.$case !== 'assignments') return message;
  const before = packed.get(message);
  if (before) return before;
  if (!sent.has(message)) {
    sent.add(message);
    return message;
  }
  const bytes = encode(message);
  const made: ControlMessage =
    bytes.length < leastBytes ? message : { body: { $case: 'packed', value: zstdCompressSync(bytes, level) } };
  packed.set(message, made);
  return made;
}

/** The agent's end. What cannot be unpacked ends the stream: `corrupt`. */
export function unpacking(
  stream: MessageStream<ControlMessage, AgentMessage>,
): MessageStream<ControlMessage, AgentMessage> {
  return {
    ...waysOf(stream),
    listen: (listener) =>
      stream.listen({
        message(message) {
          if (message.body?.$case !== 'packed') {
            listener.message(message);
            return;
          }
          let unpacked: ControlMessage;
          try {
            unpacked = ControlMessage.decode(zstdDecompressSync(message.body.value, { maxOutputLength: mostBytes }));
          } catch (cause) {
            const fault = new Fault('corrupt', 'the control plane sent what cannot be unpacked', { cause });
            stream.close();
            listener.closed(fault);
            return;
          }
          listener.message(unpacked);
        },
        drain: () => listener.drain?.(),
        closed: (fault) => listener.closed(fault),
      }),
    send: ({ body }) =>
      stream.send({ body: body?.$case === 'hello' ? { ...body, value: { ...body.value, unpacks: true } } : body }),
  };
}
