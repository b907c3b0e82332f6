/** The control plane over gRPC with the node's certificate: a connection of its own for each dial, so that a dead one can be dropped. */
import { isIPv4 } from 'node:net';
import type * as grpc from '@grpc/grpc-js';
import type { TlsIdentity } from '#proto/certificates.ts';
import { AgentService, type RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import { splitHostPort } from '#proto/host-port.ts';
import { type Clock, systemClock } from '#proto/kernel/clock.ts';
import { type Random, systemRandom } from '#proto/kernel/random.ts';
import { unpacking } from '#proto/packing.ts';
import { call } from '#proto/rpc.ts';
import { callerStream } from '#proto/rpc-stream.ts';
import { agentLine } from './agent-line.ts';
import { knock } from './knock.ts';
import type { Connection, Transport } from './transport.ts';
import { WarmLines } from './warm-lines.ts';

/**
 * `identity` is asked at each dial, so that a renewed certificate is used from the next one on. `seek` has the host find out anew
 * who is next on the way to an address (IPv4) that has not answered for so long.
 */
export function grpcTransport(
  identity: () => TlsIdentity,
  seek: (address: string, silentMs: number) => void = () => {},
  clock: Clock = systemClock,
  knockAt = knock,
  random: Random = systemRandom,
): Transport {
  const lines = new WarmLines({
    clock,
    random,
    dial: (address, ended) => agentLine(address, identity(), ended),
  });
  /** That the warm ones were made with. */
  let shown: TlsIdentity | undefined;
  /** Addresses that did not answer when they were last knocked at, and since when; monotonic ms. */
  const shut = new Map<string, number>();
  return {
    connect(address, opened = () => {}): Connection {
      const line = lines.take(address);
      const { client } = line;
      /** What stood there before may be dead by now, without anybody knowing: it is open when something has come over it. */
      const wasWarm = line.isOpen();
      let answered = false;
      const calls = new Set<{ cancel(): void }>();
      const cancel = () => {
        for (const active of calls) active.cancel();
      };
      const { host, port } = splitHostPort(address);
      let misses = 0;
      let isThere = false;
      const door = {
        host,
        port,
        isShut: shut.has(address),
        isOpen: () => {
          const isReady = wasWarm ? answered : line.isOpen();
          if (isReady) shut.delete(address);
          isThere ||= isReady;
          return isReady;
        },
        unanswered: () => {
          if (wasWarm) lines.distrust();
          const now = clock.monotonic();
          const since = shut.get(address) ?? now;
          shut.set(address, since);
          if (isIPv4(host) && misses++ % 2 === 0) seek(host, now - since);
        },
        answered: () => {
          isThere = true;
        },
        opened: () => {
          shut.delete(address);
          opened();
        },
      };
      const endKnocking = knockAt(door, clock);
      const tracked = <C extends grpc.ClientDuplexStream<never, unknown>>(active: C): C => {
        calls.add(active);
        active.on('metadata', () => {
          answered = true;
        });
        active.on('end', () => calls.delete(active));
        active.on('error', () => calls.delete(active));
        return active;
      };
      return {
        session: () => unpacking(callerStream(tracked(client.session() as never))),
        relay: () => callerStream<RelayFrame, RelayFrame>(tracked(client.relay() as never)),
        renew: (csrPem) => call(client, AgentService.renew, { csrPem }),
        isThere: () => isThere || door.isOpen(),
        close() {
          endKnocking();
          // Closing a channel lets its calls go on.
          cancel();
          line.close();
        },
        release() {
          endKnocking();
          cancel();
          lines.giveBack(address, line);
        },
      };
    },
    keepWarm(addresses) {
      lines.keep(addresses);
      if (shown && identity() !== shown) lines.renew();
      shown = identity();
    },
  };
}
