/** Serves the doctor: probes of this node's network, a frame for each fact as it is found. */
import type { Network } from '#net/network.ts';
import type { ProbeStart } from '#proto/gen/gantry/v1/probe.ts';
import type { RelayStream } from './exec.ts';

/** Resolves when every probe is done. `stdin_closed`, or the end of the stream, ends those that watch. */
export async function serveProbe(
  network: Pick<Network, 'examine'>,
  start: ProbeStart,
  stream: RelayStream,
): Promise<void> {
  const enough = new AbortController();
  stream.listen({
    message(frame) {
      if (frame.body?.$case === 'stdinClosed') enough.abort();
    },
    closed: () => enough.abort(),
  });
  await network.examine(
    start.probes,
    (fact) => void stream.send({ body: { $case: 'fact', value: fact } }),
    enough.signal,
  );
}
