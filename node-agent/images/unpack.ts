/** Turns layers into containerd snapshots, each once, however many images and tasks share it. */

import { DiffService } from '#proto/gen/containerd/diff.ts';
import { SnapshotsService } from '#proto/gen/containerd/snapshots.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import { type Containerd, snapshotter } from './containerd-client.ts';
import { chainIdOf, type Descriptor } from './oci.ts';
import { SingleFlight } from './single-flight.ts';

/** A layer on top of others, named by its chain id. */
export interface LayerStep {
  readonly layer: Descriptor;
  readonly diffId: string;
  readonly parent: string;
  readonly chainId: string;
}

/** The steps of an image, bottom first. */
export function layerSteps(
  layers: readonly Descriptor[],
  diffIds: readonly string[],
  where: string,
): readonly LayerStep[] {
  if (layers.length !== diffIds.length)
    throw new Fault('corrupt', `${where}: ${layers.length} layers, but its config names ${diffIds.length}`, {
      remedy: 'push the image again',
    });
  let parent = '';
  return layers.map((layer, index) => {
    const diffId = diffIds[index]!;
    const chainId = parent === '' ? diffId : chainIdOf([parent, diffId]);
    const step = { layer, diffId, parent, chainId };
    parent = chainId;
    return step;
  });
}

export class Unpacker {
  readonly #containerd: Containerd;
  readonly #random: Random;
  readonly #flights = new SingleFlight<void>();

  constructor(containerd: Containerd, random: Random) {
    this.#containerd = containerd;
    this.#random = random;
  }

  /** True where the snapshot of that chain is committed. */
  async has(chainId: string): Promise<boolean> {
    try {
      await this.#containerd.call(SnapshotsService.stat, { snapshotter, key: chainId });
      return true;
    } catch (error) {
      if (isFault(error, 'not-found')) return false;
      throw error;
    }
  }

  /** Unpacks one layer, whose blob is in the content store and whose parent is unpacked. */
  unpack(step: LayerStep, lease: string): Promise<void> {
    return this.#flights.run(step.chainId, async () => {
      if (!(await this.has(step.chainId))) await this.#apply(step, lease);
    });
  }

  async #apply({ layer, diffId, parent, chainId }: LayerStep, lease: string): Promise<void> {
    const key = `gantry-unpack-${newId(this.#random)} ${chainId}`;
    const { mounts } = await this.#containerd.call(
      SnapshotsService.prepare,
      { snapshotter, key, parent, labels: {} },
      { lease },
    );
    try {
      const diff = { mediaType: layer.mediaType, digest: layer.digest, size: layer.size, annotations: {} };
      const { applied } = await this.#containerd.call(
        DiffService.apply,
        { diff, mounts, payloads: {} },
        { lease, timeoutMs: 600_000 },
      );
      if (applied?.digest !== diffId)
        throw new Fault(
          'corrupt',
          `layer ${layer.digest} unpacks to ${applied?.digest}, its image's config says ${diffId}`,
          { remedy: 'push the image again' },
        );
      const labels = { 'containerd.io/snapshot.ref': chainId };
      await this.#containerd.call(SnapshotsService.commit, { snapshotter, name: chainId, key, labels }, { lease });
    } catch (error) {
      await this.#containerd.call(SnapshotsService.remove, { snapshotter, key }).catch(() => {});
      if (isFault(error, 'exists')) return;
      throw error;
    }
  }
}
