/** Has a node delete a named volume: asked over a relay, which ends when the data is gone. */
import { Fault } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Relays } from './relay.ts';

/** Faults: `unavailable` (the node is away, or says why not). */
export function volumeRemoval(relays: Relays): (node: NodeId, name: string) => Promise<void> {
  return async (node, name) => {
    const channel = await relays.open(node, { $case: 'removeVolume', value: { name } });
    for await (const { body } of channel.frames)
      if (body?.$case === 'error')
        throw new Fault('unavailable', `node ${node} did not delete volume ${name}: ${body.value}`);
  };
}
