/** Keys of a service that its cgroup holds beside the limits of `deploy.resources`: shares, processors, swap, disks. */
import { type DeviceRate, isProcessorList, rateKinds } from '#proto/model/controls.ts';
import { sayAmount } from './deploy.ts';
import { type Findings, refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { type KeyReader, readBoolean, readBytes, readInteger, readKeys, readText } from './read.ts';
import type { Tree } from './tree.ts';

const maxCpuShares = 262_144;
/** What the kernel takes, in microseconds. */
const cpuPeriod = { least: 1_000, most: 1_000_000 };
const weights = { least: 10, most: 1_000 };

export function controlKeys(findings: Findings): Readonly<Record<string, KeyReader<Draft>>> {
  return {
    cpu_shares: (draft, value) => {
      const shares = readInteger(findings, value, 0, maxCpuShares);
      // The kernel's least; 0 is its default.
      if (shares !== undefined) draft.controls.cpuShares = shares === 1 ? 2 : shares;
    },
    cpu_period: (draft, value) => {
      draft.controls.cpuPeriodUs = readInteger(findings, value, cpuPeriod.least, cpuPeriod.most) ?? 0;
    },
    cpu_quota: (draft, value) => {
      const quota = readInteger(findings, value, -1);
      if (quota === undefined || quota <= 0) return;
      if (quota >= cpuPeriod.least) draft.cpuQuota = { value: quota, place: value };
      else refuse(findings, value, `a quota of ${quota} µs is less than the kernel takes`, 'write at least 1000');
    },
    cpuset: (draft, value) => {
      const cpus = readText(findings, value) ?? '';
      if (isProcessorList(cpus)) draft.controls.cpusetCpus = cpus;
      else refuse(findings, value, `"${cpus}" is not a list of processors`, 'write 0-3 or 0,2');
    },
    memswap_limit: (draft, value) => {
      const none = value.kind === 'scalar' && value.source === '-1';
      draft.controls.memorySwapBytes = none ? -1 : (readBytes(findings, value) ?? 0);
    },
    mem_swappiness: (draft, value) => {
      const swappiness = readInteger(findings, value, 0, 100);
      if (swappiness !== undefined) draft.controls.memorySwappiness = swappiness;
    },
    oom_kill_disable: (draft, value) => {
      draft.controls.oomKillDisable = readBoolean(findings, value) ?? false;
    },
    blkio_config: readBlkio,
  };
}

/** `cpu_quota` of `cpu_period` is a limit in cores: said as such, so that it is shown and changed as any other. */
export function settleQuota(draft: Draft): void {
  if (!draft.cpuQuota) return;
  const { value, place } = draft.cpuQuota;
  const millis = Math.max(1, Math.round((value * 1_000) / (draft.controls.cpuPeriodUs || 100_000)));
  sayAmount(draft, draft.limits, 'cpuMillis', millis, place);
}

function readBlkio(draft: Draft, tree: Tree): void {
  const { findings, controls } = draft;
  const rates: DeviceRate[] = [];
  const readWeight = (value: Tree) => readInteger(findings, value, weights.least, weights.most);
  const ofDevices = rateKinds.map((kind): [string, KeyReader<unknown>] => [
    `device_${kind}`,
    (_, list) => {
      for (const { path, value } of deviceValues(findings, list, 'rate')) {
        const rate = kind.endsWith('bps') ? readBytes(findings, value) : readInteger(findings, value, 1);
        if (rate === 0) refuse(findings, value, 'a rate of 0 would let nothing through', 'remove it for no limit');
        else if (rate !== undefined) rates.push({ path, kind, rate });
      }
    },
  ]);
  readKeys(findings, tree, 'blkio_config', controls, {
    weight: (controls, value) => {
      controls.blkioWeight = readWeight(value) ?? 0;
    },
    weight_device: (controls, list) => {
      controls.blkioWeights = deviceValues(findings, list, 'weight').flatMap(({ path, value }) => {
        const weight = readWeight(value);
        return weight === undefined ? [] : [{ path, weight }];
      });
    },
    ...Object.fromEntries(ofDevices),
  });
  controls.blkioRates = rates;
}

/** A list of `{ path, NAME }`. */
function deviceValues(findings: Findings, list: Tree, name: string): { readonly path: string; readonly value: Tree }[] {
  if (list.kind !== 'list') {
    refuse(findings, list, 'this must be a list', `write - { path: /dev/sda, ${name}: … }`);
    return [];
  }
  return list.items.flatMap((item) => {
    const said: { path?: string; value?: Tree } = {};
    readKeys<typeof said>(findings, item, 'a device', said, {
      path: (said, value) => {
        said.path = readText(findings, value) ?? '';
      },
      [name]: (said, value) => {
        said.value = value;
      },
    });
    const { path, value } = said;
    if (path?.startsWith('/') && value) return [{ path, value }];
    refuse(findings, item, `a device needs its path and ${name}`, `write { path: /dev/sda, ${name}: … }`);
    return [];
  });
}
