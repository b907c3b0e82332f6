/** What an operator says that a node offers, and what a task learns of it. */
import { expect, it } from 'vitest';
import { readConfig } from '#node-agent/config.ts';
import { parseResources, resourceDevices, resourceEnv } from '#node-agent/resources.ts';

it('kinds are offered by number or by name', () => {
  expect(parseResources('gpu=2, fpga=a;b')).toEqual([
    { kind: 'gpu', count: 2, names: [] },
    { kind: 'fpga', count: 2, names: ['a', 'b'] },
  ]);
  const args = ['--advertise', '10.0.0.1', '--control-plane', '10.0.0.250:7400', '--name', 'h1'];
  expect(readConfig(args, { GANTRY_RESOURCES: 'gpu=1,fpga=a' })?.resources).toHaveLength(2);
  expect(readConfig(args)?.resources).toEqual([]);
});

it.each([
  ['gpu', 'names no kind'],
  ['=2', 'names no kind'],
  ['gpu=1,gpu=2', 'gpu is there twice'],
  ['gpu=a;;b', '"" cannot name a gpu'],
  ['gpu=a;a', 'two gpu have one name'],
  ['gpu=/dev/../etc', 'cannot name a gpu'],
])('"%s" is refused: %s', (text, why) => {
  expect(() => parseResources(text)).toThrow(why);
});

it("a task finds its own in Swarm's variables", () => {
  const given = [
    { kind: 'NVIDIA-GPU', count: 2, names: ['a', 'b'] },
    { kind: 'fpga', count: 3, names: [] },
  ];
  expect(resourceEnv(given)).toEqual(['DOCKER_RESOURCE_NVIDIA_GPU=a,b', 'DOCKER_RESOURCE_FPGA=3']);
});

it('a name that is a path of /dev is a device of its container', () => {
  const devices = resourceDevices([{ kind: 'gpu', count: 2, names: ['/dev/nvidia0', 'spare'] }]);
  expect(devices).toEqual([{ source: '/dev/nvidia0', target: '/dev/nvidia0', permissions: 'rwm' }]);
});
