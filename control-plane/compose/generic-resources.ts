/** Things of nodes that are counted: `generic_resources`, `devices` of reservations, and `gpus`. */
import { type GenericResource, isResourceKind, isResourceName } from '#proto/model/resources.ts';
import { refuse, warn } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readInteger, readKeys, readText, readTexts } from './read.ts';
import type { Tree } from './tree.ts';

/** What nodes may offer under the name of a capability; others say what a device of one of these must be able to do. */
const deviceKinds: readonly string[] = ['gpu', 'tpu'];

export function readGenericResources(draft: Draft, tree: Tree): undefined {
  const { findings } = draft;
  const example = 'write - discrete_resource_spec: { kind: gpu, value: 2 }';
  if (tree.kind !== 'list') return refuse(findings, tree, 'generic_resources must be a list', example);
  for (const item of tree.items)
    readKeys(findings, item, 'a generic resource', draft, {
      discrete_resource_spec: (_, value) => {
        const asked = { kind: '', count: 1 };
        readKeys(findings, value, 'discrete_resource_spec', asked, {
          kind: (asked, value) => {
            asked.kind = readText(findings, value) ?? '';
          },
          value: (asked, value) => {
            asked.count = readInteger(findings, value, 1, 10_000) ?? 1;
          },
        });
        if (isResourceKind(asked.kind)) ask(draft, value, { ...asked, names: [] });
        else refuse(findings, value, `"${asked.kind}" is not a kind of resources`, example);
      },
    });
}

export function readDevices(draft: Draft, tree: Tree): undefined {
  if (tree.kind !== 'list')
    return refuse(draft.findings, tree, 'devices must be a list', 'write - { capabilities: [gpu], count: 1 }');
  for (const item of tree.items) readDevice(draft, item, '');
}

/** `all`, or as `devices`, where that they are GPUs need not be said. */
export function readGpus(draft: Draft, tree: Tree): void {
  if (tree.kind === 'scalar' && tree.source === 'all') ask(draft, tree, { kind: 'gpu', count: 0, names: [] });
  else if (tree.kind === 'list') for (const item of tree.items) readDevice(draft, item, 'gpu');
  else refuse(draft.findings, tree, 'gpus must be all, or a list', 'write gpus: all, or - count: 1');
}

function readDevice(draft: Draft, tree: Tree, implied: string): undefined {
  const { findings } = draft;
  const device = { kind: implied, count: undefined as number | undefined, names: [] as string[], driver: '' };
  const before = findings.errors.length;
  readKeys(
    findings,
    tree,
    'a device',
    device,
    {
      capabilities: (device, value) => {
        const capabilities = readTexts(findings, value);
        device.kind = capabilities.find((one) => deviceKinds.includes(one)) ?? (implied || (capabilities[0] ?? ''));
        if (!isResourceKind(device.kind))
          refuse(findings, value, `"${device.kind}" is not a kind of devices`, 'write capabilities: [gpu]');
      },
      count: (device, value) => {
        const all = value.kind === 'scalar' && (value.source === 'all' || value.source === '-1');
        device.count = all ? 0 : (readInteger(findings, value, 1, 10_000) ?? 1);
      },
      device_ids: (device, value) => {
        device.names = readTexts(findings, value);
        for (const name of device.names)
          if (!isResourceName(name))
            refuse(findings, value, `"${name}" cannot name a device`, 'write the name that the node offers it by');
      },
      driver: (device, value) => {
        device.driver = readText(findings, value) ?? '';
        warn(
          findings,
          value,
          `the driver ${device.driver} is not asked: tasks get the devices that their node offers`,
          'let the agents of nodes offer them: GANTRY_RESOURCES=gpu=/dev/nvidia0;/dev/nvidia1',
        );
      },
    },
    { options: 'remove it: no driver is there to read them' },
  );
  if (findings.errors.length > before) return;
  if (device.kind === '') return refuse(findings, tree, 'this device has no capabilities', 'add capabilities: [gpu]');
  if (device.count !== undefined && device.names.length > 0)
    return refuse(findings, tree, 'count and device_ids exclude each other', 'keep one of the two');
  const { kind, names } = device;
  ask(draft, tree, { kind, count: names.length > 0 ? names.length : (device.count ?? 0), names });
}

function ask(draft: Draft, place: Tree, value: GenericResource): undefined {
  const before = draft.generic.find((one) => one.value.kind === value.kind);
  if (before)
    return refuse(draft.findings, place, `${value.kind} is asked for at ${before.place.path} too`, 'say it once');
  draft.generic.push({ value, place });
}
