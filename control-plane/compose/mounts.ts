/** `volumes:` in both syntaxes, `tmpfs:`, and the top-level `volumes:` they refer to. */
import { emptyMount, type Mount } from '#proto/model/service.ts';
import { type Findings, type Place, refuse, suggestion, warn } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { isNull, readBoolean, readBytes, readExternal, readKeys, readOneOf, readScalars, readText } from './read.ts';
import type { ScalarTree, Tree } from './tree.ts';
import { parseOctal } from './units.ts';
import { readTmpfsOption, readVolumeOptions, type VolumeDevice } from './volume-options.ts';

/** What mounts need to know of the rest of the file. */
export interface MountContext {
  /** By their keys in the file. */
  readonly volumes: ReadonlyMap<string, DeclaredVolume>;
}

export interface DeclaredVolume {
  /** On the nodes. */
  readonly name: string;
  /** What is mounted in its stead. */
  readonly device: VolumeDevice | undefined;
}

const propagations = ['rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave'] as const;
const noLabels = 'labels of SELinux mean nothing here: files are as they are on the node';
const laterTypes: Readonly<Record<string, string>> = {
  cluster: 'use volume, bind or tmpfs; no storage of CSI is attached',
  image: 'copy its files into the image that runs, or into a volume by a service that does',
  npipe: 'named pipes are those of Windows: use volume, bind or tmpfs',
};
const consistencies = ['cached', 'consistent', 'delegated'];
const alwaysConsistent = 'a mount is the same for all who see it: how consistent it is means nothing here';
const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

/** The top-level `volumes:`. */
export function readVolumes(findings: Findings, tree: Tree | undefined, project: string): Map<string, DeclaredVolume> {
  const volumes = new Map<string, DeclaredVolume>();
  if (!tree || isNull(tree)) return volumes;
  if (tree.kind !== 'map') {
    refuse(findings, tree, 'volumes must be a map', 'write volumes: { data: }');
    return volumes;
  }
  for (const [key, { keyAt, value }] of tree.entries) {
    if (key.startsWith('x-')) continue;
    const volume: { name: string; external: boolean; device?: VolumeDevice | undefined } = {
      name: '',
      external: false,
    };
    readKeys(
      findings,
      value,
      'a volume',
      volume,
      {
        name: (volume, value) => {
          volume.name = readText(findings, value) ?? '';
        },
        external: (volume, value) => {
          const { external, name } = readExternal(findings, value);
          volume.external = external;
          if (name !== undefined) volume.name = name;
        },
        driver: (_, value) => {
          if (readText(findings, value) !== 'local')
            refuse(findings, value, 'only the driver "local" is supported yet', 'remove it, or write local');
        },
        driver_opts: (volume, value) => {
          volume.device = readVolumeOptions(findings, value);
        },
      },
      { labels: 'remove them: a volume is a directory of its node, which has none' },
    );
    if (volume.external && volume.device)
      refuse(
        findings,
        { at: keyAt, path: `volumes.${key}` },
        'an external volume is as it was made: it has no driver_opts: here',
        'remove them, or remove external:',
      );
    const name = volume.name || (volume.external ? key : `${project}_${key}`);
    if (!volumeName.test(name))
      refuse(
        findings,
        { at: keyAt, path: `volumes.${key}` },
        `"${name}" cannot name a volume`,
        'use letters, digits, ., - and _',
      );
    volumes.set(key, { name, device: volume.device });
  }
  return volumes;
}

export function readMounts(draft: Draft, tree: Tree, context: MountContext): void {
  const { findings } = draft;
  if (tree.kind !== 'list') {
    refuse(findings, tree, 'volumes must be a list', 'write - data:/var/lib/data');
    return;
  }
  for (const item of tree.items) {
    if (item.kind === 'list') refuse(findings, item, 'a list is not a volume', 'write source:target');
    const mount =
      item.kind === 'map'
        ? longMount(findings, item, context)
        : item.kind === 'scalar'
          ? shortMount(findings, item, context)
          : undefined;
    if (mount && checkTarget(findings, item, mount.target)) draft.mounts.push({ value: mount, place: item });
  }
}

function shortMount(findings: Findings, item: ScalarTree, context: MountContext): Mount | undefined {
  const parts = item.source.split(':');
  if (parts.length > 3)
    return refuse(findings, item, `"${item.source}" has too many colons`, 'write source:target[:options]');
  const [first = '', second, options] = parts;
  if (second === undefined) return emptyMount('volume', '', first);
  const isPath = /^[./~]/.test(first);
  const volume = isPath ? undefined : volumeNamed(findings, item, first, context);
  if (!isPath && !volume) return undefined;
  const mount = { ...(volume ? volumeMount(volume, second) : emptyMount('bind', first, second)) };
  for (const option of options?.split(',') ?? []) {
    if (option === 'ro') mount.readOnly = true;
    else if (option === 'nocopy' && !isPath) mount.noCopy = true;
    else if (option === 'z' || option === 'Z') warn(findings, item, noLabels, `remove "${option}"`);
    else if (consistencies.includes(option)) warn(findings, item, alwaysConsistent, `remove "${option}"`);
    else if (isPath && (propagations as readonly string[]).includes(option)) mount.propagation = option;
    else if (option !== 'rw')
      refuse(
        findings,
        item,
        `"${option}" is not an option of ${isPath ? 'a bind mount' : 'a volume'}`,
        'use ro, rw or nocopy',
      );
  }
  return mount;
}

function volumeNamed(
  findings: Findings,
  place: Place,
  name: string,
  context: MountContext,
): DeclaredVolume | undefined {
  const known = context.volumes.get(name);
  if (known !== undefined) return known;
  const guess = suggestion(name, context.volumes.keys());
  return refuse(
    findings,
    place,
    `volume "${name}" is not declared`,
    guess ? `did you mean "${guess}"?` : `add it under the top-level volumes:, or write ./${name} for a directory`,
  );
}

function volumeMount({ name, device }: DeclaredVolume, target: string): Mount {
  return device
    ? { ...emptyMount(device.type, device.source, target), ...device, createHostPath: false }
    : emptyMount('volume', name, target);
}

function longMount(findings: Findings, item: Tree, context: MountContext): Mount | undefined {
  const mount: { -readonly [Key in keyof Mount]?: Mount[Key] } & { sourcePlace?: Place } = {};
  const before = findings.errors.length;
  const onlyOf = (type: Mount['type'], value: Tree) => {
    if (mount.type !== undefined && mount.type !== type)
      refuse(
        findings,
        value,
        `a mount of type ${mount.type} has no ${type}: options`,
        `remove them, or write type: ${type}`,
      );
  };
  readKeys(
    findings,
    item,
    'a volume',
    mount,
    {
      type: (mount, value) => {
        const type = readText(findings, value);
        if (type !== undefined && Object.hasOwn(laterTypes, type))
          refuse(findings, value, `mounts of type ${type} are not supported by Gantry`, laterTypes[type]);
        else {
          const known = readOneOf(findings, value, ['volume', 'bind', 'tmpfs']);
          if (known) mount.type = known;
        }
      },
      source: (mount, value) => {
        mount.source = readText(findings, value) ?? '';
        mount.sourcePlace = value;
      },
      target: (mount, value) => {
        mount.target = readText(findings, value) ?? '';
      },
      consistency: (_, value) => warn(findings, value, alwaysConsistent, 'remove it'),
      read_only: (mount, value) => {
        mount.readOnly = readBoolean(findings, value) ?? false;
      },
      bind: (mount, value) => {
        onlyOf('bind', value);
        readKeys(
          findings,
          value,
          'bind',
          mount,
          {
            propagation: (mount, value) => {
              mount.propagation = readOneOf(findings, value, propagations) ?? '';
            },
            selinux: (_, value) => warn(findings, value, noLabels, 'remove it'),
            create_host_path: (mount, value) => {
              mount.createHostPath = readBoolean(findings, value) ?? true;
            },
          },
          { recursive: 'remove it' },
        );
      },
      volume: (mount, value) => {
        onlyOf('volume', value);
        readKeys(
          findings,
          value,
          'volume',
          mount,
          {
            nocopy: (mount, value) => {
              mount.noCopy = readBoolean(findings, value) ?? false;
            },
            subpath: (mount, value) => {
              const subpath = readText(findings, value) ?? '';
              if (subpath.startsWith('/') || subpath.split('/').includes('..'))
                refuse(findings, value, `"${subpath}" leaves the volume`, 'write a relative path without ..');
              mount.subpath = subpath;
            },
          },
          { labels: 'remove them' },
        );
      },
      tmpfs: (mount, value) => {
        onlyOf('tmpfs', value);
        readKeys(findings, value, 'tmpfs', mount, {
          size: (mount, value) => {
            mount.tmpfsSizeBytes = readBytes(findings, value) ?? 0;
          },
          mode: (mount, value) => {
            mount.tmpfsMode = readMode(findings, value) ?? 0;
          },
        });
      },
    },
    { image: 'use a volume' },
  );
  if (findings.errors.length > before) return undefined;
  if (!mount.type) return refuse(findings, item, 'this mount has no type', 'add type: volume, bind or tmpfs');
  if (!mount.target) return refuse(findings, item, 'this mount has no target', 'add target: an absolute path');
  const { sourcePlace, ...fields } = mount;
  const source = mount.source ?? '';
  if (mount.type === 'bind' && source === '')
    return refuse(findings, item, 'a bind mount needs a source', 'add source: a path on the host');
  if (mount.type === 'tmpfs' && source !== '')
    return refuse(findings, sourcePlace ?? item, 'a tmpfs has no source', 'remove it');
  if (mount.type !== 'volume' || source === '')
    return { ...emptyMount(mount.type, source, mount.target), ...fields, source };
  const volume = volumeNamed(findings, sourcePlace ?? item, source, context);
  if (!volume) return undefined;
  if (volume.device && mount.subpath)
    return refuse(findings, item, 'the driver_opts of this volume leave it no subpath', 'mount that directory itself');
  const { type, source: from, readOnly } = volumeMount(volume, mount.target);
  return {
    ...volumeMount(volume, mount.target),
    ...fields,
    type,
    source: from,
    readOnly: readOnly || !!mount.readOnly,
  };
}

/** A file mode: octal, whether YAML took it for text or a number. */
export function readMode(findings: Findings, tree: Tree): number | undefined {
  const value = tree.kind === 'scalar' ? parseOctal(tree.source) : undefined;
  return (
    value ??
    refuse(
      findings,
      tree,
      `${tree.kind === 'scalar' ? `"${tree.source}"` : 'this'} is not a file mode`,
      'write octal digits such as 0755',
    )
  );
}

/** `tmpfs:` of a service: targets with mount options. */
export function readTmpfs(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  for (const item of readScalars(findings, tree, { alone: true })) {
    const [target = '', options] = item.source.split(':', 2);
    const mount = { ...emptyMount('tmpfs', '', target), tmpfsOptions: [] as string[] };
    for (const option of options?.split(',') ?? []) readTmpfsOption(findings, item, option, mount);
    if (checkTarget(findings, item, target)) draft.mounts.push({ value: mount, place: item });
  }
}

/** Absolute, and within the container's root. */
export function isMountTarget(target: string): boolean {
  return target.startsWith('/') && target !== '/' && !target.split('/').includes('..');
}

function checkTarget(findings: Findings, place: Place, target: string): boolean {
  if (isMountTarget(target)) return true;
  refuse(
    findings,
    place,
    `"${target}" is not a place to mount at`,
    'write an absolute path in the container, other than /',
  );
  return false;
}
