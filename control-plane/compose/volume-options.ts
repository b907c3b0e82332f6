/** `driver_opts:` of a volume: what the driver `local` mounts in its stead, as far as every node can do it alike. */
import { emptyMount, type Mount } from '#proto/model/service.ts';
import { type Findings, type Place, refuse } from './diagnostic.ts';
import { readKeys, readText } from './read.ts';
import type { Tree } from './tree.ts';
import { parseBytes, parseOctal } from './units.ts';

/** Instead of a named volume: a directory of the node, or memory. */
export type VolumeDevice = Pick<
  Mount,
  'type' | 'source' | 'readOnly' | 'tmpfsSizeBytes' | 'tmpfsMode' | 'tmpfsOptions'
>;

/** Of mount(8), as far as they are a container's to choose. */
const tmpfsOption = /^(?:(?:uid|gid)=\d{1,10}|nr_inodes=\d+[kmg]?|(?:no)?(?:exec|suid|dev|atime|diratime))$/;
const networkKinds = ['nfs', 'nfs4', 'cifs', 'smb3', 'glusterfs', 'ceph'];

export function readVolumeOptions(findings: Findings, tree: Tree): VolumeDevice | undefined {
  const said: { type: string; o: string; device: string; place: Place } = { type: '', o: '', device: '', place: tree };
  const text = (key: 'type' | 'device' | 'o') => (target: typeof said, value: Tree) => {
    target[key] = readText(findings, value) ?? '';
    if (key === 'o') target.place = value;
  };
  const before = findings.errors.length;
  readKeys(findings, tree, 'driver_opts', said, { device: text('device'), o: text('o'), type: text('type') });
  if (findings.errors.length > before || tree.kind !== 'map' || tree.entries.size === 0) return undefined;
  const options = said.o.split(',').filter((option) => option !== '' && option !== 'rw');
  if (said.type === 'tmpfs') return tmpfs(findings, said.place, options);
  if (options.includes('bind') || options.includes('rbind')) {
    if (!said.device.startsWith('/'))
      return refuse(findings, tree, 'this binds no directory', 'add device: an absolute path of the nodes');
    for (const option of options)
      if (!['bind', 'rbind', 'ro'].includes(option))
        refuse(findings, said.place, `"${option}" is not an option of a bind mount here`, 'use bind and ro');
    const { tmpfsSizeBytes, tmpfsMode, tmpfsOptions } = emptyMount('bind', said.device, '');
    return {
      type: 'bind',
      source: said.device,
      readOnly: options.includes('ro'),
      tmpfsSizeBytes,
      tmpfsMode,
      tmpfsOptions,
    };
  }
  return refuse(
    findings,
    tree,
    networkKinds.includes(said.type)
      ? `file systems of the kind ${said.type} are not mounted by Gantry yet`
      : 'these options are not supported by Gantry yet',
    'mount it on the nodes, and write type: none, o: bind, device: PATH; or type: tmpfs for memory',
  );
}

function tmpfs(findings: Findings, place: Place, options: readonly string[]): VolumeDevice {
  const memory: Memory = { readOnly: false, tmpfsSizeBytes: 0, tmpfsMode: 0, tmpfsOptions: [] };
  for (const option of options) readTmpfsOption(findings, place, option, memory);
  return { type: 'tmpfs', source: '', ...memory };
}

type Memory = { readOnly: boolean; tmpfsSizeBytes: number; tmpfsMode: number; readonly tmpfsOptions: string[] };

/** An option of a tmpfs that is mounted; some say what is so anyway. */
export function readTmpfsOption(findings: Findings, place: Place, option: string, mount: Memory): void {
  const [name, value = ''] = option.split('=', 2);
  const size = name === 'size' ? parseBytes(value) : undefined;
  const mode = name === 'mode' ? parseOctal(value) : undefined;
  if (size !== undefined) mount.tmpfsSizeBytes = size;
  else if (mode !== undefined) mount.tmpfsMode = mode;
  else if (option === 'ro') mount.readOnly = true;
  else if (tmpfsOption.test(option)) mount.tmpfsOptions.push(option);
  else if (option !== 'rw')
    refuse(
      findings,
      place,
      `"${option}" is not an option of tmpfs here`,
      'use size=64m, mode=1777, uid=1000, gid=1000, nr_inodes=1k, exec, suid, dev or ro',
    );
}
