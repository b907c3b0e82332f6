/** What the cgroup of a task holds beside its limits. All of it, as the limits, may change while the process goes on. */

export interface DeviceRate {
  /** Of the device on the node: `/dev/vda`. */
  readonly path: string;
  readonly kind: 'read_bps' | 'write_bps' | 'read_iops' | 'write_iops';
  /** Bytes or operations in a second. */
  readonly rate: number;
}

export interface DeviceWeight {
  readonly path: string;
  /** 10 to 1000. */
  readonly weight: number;
}

/** Field contracts: proto/gantry/v1/types.proto. */
export interface Controls {
  readonly cpuShares: number;
  readonly cpuPeriodUs: number;
  readonly cpusetCpus: string;
  readonly memorySwapBytes: number;
  readonly memorySwappiness?: number | undefined;
  readonly oomKillDisable: boolean;
  readonly blkioWeight: number;
  readonly blkioWeights: readonly DeviceWeight[];
  readonly blkioRates: readonly DeviceRate[];
}

export const rateKinds = ['read_bps', 'write_bps', 'read_iops', 'write_iops'] as const;

export const noControls: Controls = {
  cpuShares: 0,
  cpuPeriodUs: 0,
  cpusetCpus: '',
  memorySwapBytes: 0,
  oomKillDisable: false,
  blkioWeight: 0,
  blkioWeights: [],
  blkioRates: [],
};

/** True for a list of processors as cpuset(7) writes it: `0-3,8`. */
export function isProcessorList(text: string): boolean {
  return text.split(',').every((part) => {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    return first !== undefined && Number(first) <= Number(last);
  });
}
