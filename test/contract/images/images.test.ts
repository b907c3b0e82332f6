/** The images contract, kept by the fake and by containerd with a real registry. */
import { describe } from 'vitest';
import { containerdImages } from '#node-agent/images/containerd-images.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { startContainerd } from '#test/support/containerd.ts';
import { FakeImages, fakeImage, fakeRegistry } from '#test/support/fake-images.ts';
import { startRegistry } from '#test/support/registry.ts';
import { hostPlatform, pushImage, sampleImage } from '#test/support/sample-image.ts';
import { type ImagesUnderTest, imagesContract } from './suite.ts';

describe('fake images', () => {
  imagesContract(async () => {
    const registry = fakeRegistry(false);
    return {
      images: new FakeImages(systemClock, registry),
      host: 'registry:5000',
      async publish(repository, tag, command) {
        const image = fakeImage(`${repository} ${command}`, { command: [command] });
        registry.images.set(`registry:5000/${repository}:${tag}`, image);
        // A moved tag leaves its old image behind, by digest.
        registry.images.set(`registry:5000/${repository}@${image.digest}`, image);
        return image.digest;
      },
      async registryDown() {
        registry.failure = new Fault('unavailable', 'the registry registry:5000 is not reached');
      },
      async close() {},
    } satisfies ImagesUnderTest;
  });
});

describe('images on containerd', () => {
  imagesContract(async () => {
    const containerd = await startContainerd();
    const registry = await startRegistry();
    const images = await containerdImages({
      socket: containerd.socket,
      platform: hostPlatform,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      insecureRegistries: [registry.host],
    });
    return {
      images,
      host: registry.host,
      async publish(repository, tag, command) {
        const image = await sampleImage({ config: { Cmd: [command] } });
        await pushImage(image, registry.host, repository, tag);
        return image.root.digest;
      },
      registryDown: () => registry.stop(),
      async close() {
        images.close();
        await registry.stop();
        await containerd.stop();
      },
    } satisfies ImagesUnderTest;
  });
});
