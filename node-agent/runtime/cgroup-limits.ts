/** What a container's limits and controls say to the files of its cgroup, in both versions; also while its process goes on. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { type Controls, type DeviceRate, rateKinds } from '#proto/model/controls.ts';
import { field, number, text, write } from './cgroup-files.ts';
import type { LiveSettings } from './runtime.ts';

/** The number of a device on this node: `254:0`. Fault `precondition`: there is no such device. */
export type DeviceNumber = (path: string) => string;

/** What this kernel has not, and what to do without. */
export interface Lacking {
  readonly message: string;
  readonly remedy: string;
}

export const defaultPids = 4096;
const defaultCpuPeriodUs = 100_000;
const defaultCpuShares = 1024;
const weightFiles = ['blkio.weight', 'blkio.bfq.weight'];

/** The files of throttling in version 1, and its keys in `io.max` of version 2. */
export const throttles: Readonly<Record<DeviceRate['kind'], { readonly file: string; readonly key: string }>> = {
  read_bps: { file: 'blkio.throttle.read_bps_device', key: 'rbps' },
  write_bps: { file: 'blkio.throttle.write_bps_device', key: 'wbps' },
  read_iops: { file: 'blkio.throttle.read_iops_device', key: 'riops' },
  write_iops: { file: 'blkio.throttle.write_iops_device', key: 'wiops' },
};

/** Memory with swap, in bytes; undefined: no limit. */
export function swapLimitOf({ limits, controls }: LiveSettings): number | undefined {
  if (limits.memoryBytes === 0 || controls.memorySwapBytes < 0) return undefined;
  return controls.memorySwapBytes || limits.memoryBytes;
}

/** `cpu.cfs_quota_us` and `cpu.cfs_period_us`, -1 being no quota. */
export function quotaOf({ limits, controls }: LiveSettings): { readonly quotaUs: number; readonly periodUs: number } {
  const periodUs = controls.cpuPeriodUs || defaultCpuPeriodUs;
  // The least that the kernel takes is 1 ms.
  const quotaUs = Math.max(1_000, Math.round((limits.cpuMillis * periodUs) / 1_000));
  return { quotaUs: limits.cpuMillis > 0 ? quotaUs : -1, periodUs };
}

export function pidsOf({ limits }: LiveSettings): number {
  return limits.pids > 0 ? limits.pids : defaultPids;
}

/** `cpu.weight` of version 2 for shares of version 1, as runc has it. */
export function cpuWeight(shares: number): number {
  return shares === 0 ? 100 : Math.floor(1 + ((Math.max(2, shares) - 2) * 9_999) / 262_142);
}

/** `io.weight` of version 2 for a `blkio.weight`, as runc has it; bfq takes the latter as it is. */
export function ioWeight(weight: number): number {
  return weight === 0 ? 100 : Math.floor(1 + ((weight - 10) * 9_999) / 990);
}

/** Lines that bring a throttle file of version 1, which holds `before`, to what is wanted of it; a rate of 0 takes one back. */
export function throttleLines(before: string, wanted: ReadonlyMap<string, number>): string[] {
  const held = new Map(lines(before).map(([device, rate]) => [device!, Number(rate)]));
  const gone = [...held.keys()].filter((device) => !wanted.has(device));
  const news = [...wanted].filter(([device, rate]) => held.get(device) !== rate);
  return [...gone.map((device) => `${device} 0`), ...news.map(([device, rate]) => `${device} ${rate}`)];
}

/** As `throttleLines`, for `io.max`: a line for each device that is, or was, limited. */
export function ioMaxLines(before: string, rates: readonly DeviceRate[], numberOf: DeviceNumber): string[] {
  const wanted = new Map<string, Map<string, number>>(lines(before).map(([device]) => [device!, new Map()]));
  for (const { path, kind, rate } of rates) {
    const device = numberOf(path);
    const limits = wanted.get(device) ?? new Map<string, number>();
    wanted.set(device, limits.set(throttles[kind].key, rate));
  }
  const keys = Object.values(throttles).map(({ key }) => key);
  return [...wanted].map(
    ([device, limits]) => `${device} ${keys.map((key) => `${key}=${limits.get(key) ?? 'max'}`).join(' ')}`,
  );
}

/** One container's groups in version 1: a tree for each controller. */
export interface Groups1 {
  has(controller: string): boolean;
  file(controller: string, file: string): string;
}

/** Fault `exhausted` where more memory is in use. */
export function setLimits1(groups: Groups1, settings: LiveSettings, numberOf: DeviceNumber): void {
  const { controls } = settings;
  const fileOf = groups.file;
  const set = (controller: string, file: string, value: number | string) => {
    const path = fileOf(controller, file);
    if (text(path) !== String(value)) write(path, value);
  };
  // First: it alone may be refused for what the container does.
  setMemory1((file) => fileOf('memory', file), settings);
  const { quotaUs, periodUs } = quotaOf(settings);
  // Another period with the quota of before might be more than the kernel takes.
  if (number(fileOf('cpu', 'cpu.cfs_period_us')) !== periodUs) set('cpu', 'cpu.cfs_quota_us', -1);
  set('cpu', 'cpu.cfs_period_us', periodUs);
  set('cpu', 'cpu.cfs_quota_us', quotaUs);
  if (existsSync(fileOf('cpu', 'cpu.shares'))) set('cpu', 'cpu.shares', controls.cpuShares || defaultCpuShares);
  if (groups.has('cpuset')) setProcessors1(controls, fileOf('cpuset', 'cpuset.cpus'));
  set('pids', 'pids.max', pidsOf(settings));
  const swappiness = fileOf('memory', 'memory.swappiness');
  if (existsSync(swappiness)) {
    const parent = join(dirname(dirname(swappiness)), 'memory.swappiness');
    set('memory', 'memory.swappiness', controls.memorySwappiness ?? text(parent));
  }
  const oom = fileOf('memory', 'memory.oom_control');
  const disable = controls.oomKillDisable ? 1 : 0;
  if (field(oom, 'oom_kill_disable') !== disable) write(oom, disable);
  if (groups.has('blkio')) setBlkio1((file) => fileOf('blkio', file), controls, numberOf);
}

/** The limit with swap may never be below the one without: raised first, lowered last. */
function setMemory1(fileOf: (file: string) => string, settings: LiveSettings): void {
  const { memoryBytes } = settings.limits;
  const withSwap = fileOf('memory.memsw.limit_in_bytes');
  const wanted: [file: string, value: number][] = [[fileOf('memory.limit_in_bytes'), memoryBytes || -1]];
  const swap = swapLimitOf(settings) ?? -1;
  if (existsSync(withSwap)) {
    if (swap < 0 || swap > number(withSwap)) wanted.unshift([withSwap, swap]);
    else wanted.push([withSwap, swap]);
  }
  for (const [file, value] of wanted) {
    try {
      if (number(file) !== value) write(file, value);
    } catch (error) {
      if (isFault(error, 'conflict')) throw tooLow(value, number(fileOf('memory.usage_in_bytes')), error);
      throw error;
    }
  }
}

function setBlkio1(fileOf: (file: string) => string, controls: Controls, numberOf: DeviceNumber): void {
  const { blkioWeight, blkioWeights } = controls;
  const weight = weightFiles.map(fileOf).find(existsSync);
  // Another group's share of the same parent: 500 is what blkio, 100 what bfq begins with.
  const common = weight?.endsWith('bfq.weight') ? 100 : 500;
  if (weight && Number(text(weight).split(/\s+/).at(-1)) !== (blkioWeight || common))
    write(weight, blkioWeight || common);
  if (weight && existsSync(`${weight}_device`))
    for (const line of throttleLines(
      text(`${weight}_device`),
      new Map(blkioWeights.map((one) => [numberOf(one.path), one.weight])),
    ))
      write(`${weight}_device`, line);
  for (const kind of rateKinds) {
    const file = fileOf(throttles[kind].file);
    const wanted = ratesOf(controls, kind, numberOf);
    if (wanted.size === 0 && !existsSync(file)) continue;
    for (const line of throttleLines(text(file), wanted)) write(file, line);
  }
}

/** As `setLimits1`. The kernel would end processes to come below a limit: that is not what a change of it asks for. */
export function setLimits2(fileOf: (file: string) => string, settings: LiveSettings, numberOf: DeviceNumber): void {
  const { limits, controls } = settings;
  // Cached files go before anything is ended for them.
  const stat = fileOf('memory.stat');
  const used = number(fileOf('memory.current')) - field(stat, 'inactive_file') - field(stat, 'active_file');
  if (limits.memoryBytes > 0 && used > limits.memoryBytes) throw tooLow(limits.memoryBytes, used);
  write(fileOf('memory.max'), limits.memoryBytes || 'max');
  const swap = swapLimitOf(settings);
  if (existsSync(fileOf('memory.swap.max')))
    write(fileOf('memory.swap.max'), swap === undefined ? 'max' : swap - limits.memoryBytes);
  const { quotaUs, periodUs } = quotaOf(settings);
  write(fileOf('cpu.max'), `${quotaUs < 0 ? 'max' : quotaUs} ${periodUs}`);
  if (existsSync(fileOf('cpu.weight'))) write(fileOf('cpu.weight'), cpuWeight(controls.cpuShares));
  if (controls.cpusetCpus !== '' || existsSync(fileOf('cpuset.cpus')))
    write(fileOf('cpuset.cpus'), controls.cpusetCpus || '\n');
  write(fileOf('pids.max'), pidsOf(settings));
  setIo2(fileOf, controls, numberOf);
}

function setIo2(fileOf: (file: string) => string, controls: Controls, numberOf: DeviceNumber): void {
  const { blkioWeight, blkioWeights, blkioRates } = controls;
  const bfq = existsSync(fileOf('io.bfq.weight'));
  const file = fileOf(bfq ? 'io.bfq.weight' : 'io.weight');
  const weigh = (weight: number) => (bfq ? weight || 100 : ioWeight(weight));
  if (existsSync(file)) {
    const wanted = new Map(blkioWeights.map(({ path, weight }) => [numberOf(path), weigh(weight)]));
    const ofDevices = throttleLines(text(file), wanted).map((line) => line.replace(/ 0$/, ' default'));
    for (const line of [`default ${weigh(blkioWeight)}`, ...ofDevices]) write(file, line);
  }
  if (blkioRates.length === 0 && !existsSync(fileOf('io.max'))) return;
  for (const line of ioMaxLines(text(fileOf('io.max')), blkioRates, numberOf)) write(fileOf('io.max'), line);
}

/** Version 1; `rootOf`: of a controller's tree. */
export function lacking1(rootOf: (controller: string) => string | undefined, controls: Controls): Lacking | undefined {
  const { blkioWeight, blkioWeights, blkioRates, cpusetCpus, memorySwappiness } = controls;
  const blkio = rootOf('blkio');
  if (
    (blkioWeight > 0 || blkioWeights.length > 0) &&
    !weightFiles.some((file) => blkio && existsSync(join(blkio, file)))
  )
    return {
      message: 'the kernel of this node shares no disks by weight',
      remedy: 'use device_read_bps and its like, or the scheduler bfq for its disks',
    };
  if (blkioRates.length > 0 && !blkio)
    return { message: 'the kernel of this node limits no disks', remedy: 'remove blkio_config' };
  if (cpusetCpus !== '' && !rootOf('cpuset'))
    return { message: 'this node has no control group for cpuset', remedy: 'remove it' };
  const memory = rootOf('memory');
  if (memorySwappiness !== undefined && !(memory && existsSync(join(memory, 'memory.swappiness'))))
    return { message: 'the kernel of this node has no swappiness for each container', remedy: 'remove mem_swappiness' };
  return undefined;
}

export function lacking2({ memorySwappiness, oomKillDisable }: Controls): Lacking | undefined {
  const without = 'control groups of version 2, which this node has, know no';
  if (memorySwappiness !== undefined)
    return { message: `${without} mem_swappiness`, remedy: 'remove it, or use memswap_limit' };
  if (oomKillDisable) return { message: `${without} oom_kill_disable`, remedy: 'remove it, or use oom_score_adj' };
  return undefined;
}

/** An empty list is the parent's. */
function setProcessors1({ cpusetCpus }: Controls, file: string): void {
  if (!existsSync(file)) return;
  const wanted = cpusetCpus || text(join(dirname(dirname(file)), 'cpuset.cpus'));
  if (text(file) !== wanted) write(file, wanted);
}

function tooLow(bytes: number, used: number, cause?: unknown): Fault {
  return new Fault('exhausted', `${used} bytes of memory are in use, more than the new limit of ${bytes}`, {
    cause,
    remedy: 'choose a higher limit, or restart the service with it',
  });
}

/** Rates of one kind, by device. */
export function ratesOf(
  { blkioRates }: Controls,
  kind: DeviceRate['kind'],
  numberOf: DeviceNumber,
): ReadonlyMap<string, number> {
  return new Map(blkioRates.filter((rate) => rate.kind === kind).map(({ path, rate }) => [numberOf(path), rate]));
}

function lines(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => /^\d+:\d+ /.test(line))
    .map((line) => line.split(' '));
}
