/** Values of settings in words, as a Compose file and its reader have them: amounts with units, mounts and ports by their keys. Pure. */
import type { Mount, Port } from '#proto/model/service.ts';

/** As Compose spells the name of a field: `stop_grace_period` of `stopGracePeriodMs`. */
export function snake(field: string): string {
  return field
    .replace(/cpuMillis$/, 'cpus')
    .replace(/(?:Ms|Bytes)$/, '')
    .replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** `field`: what the model calls it, whose last letters are its unit. */
export function settingWords(field: string, value: unknown): string {
  if (value === undefined || value === '') return 'none';
  if (typeof value === 'number') return amount(field, value);
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) {
    if (value.length === 0) return 'none';
    const texts = value.map((item) => (isRecord(item) ? itemWords(field, item) : settingWords('', item)));
    return texts.join(value.some(isRecord) ? '; ' : ' ');
  }
  return isRecord(value) ? itemWords(field, value) : JSON.stringify(value);
}

/** `type: volume, source: data, read_only: true`: all but where it is mounted. */
export function mountWords({ target: _, ...mount }: Mount): string {
  return itemWords('', { ...mount, tmpfsMode: mount.tmpfsMode === 0 ? '' : `0${mount.tmpfsMode.toString(8)}` });
}

function amount(field: string, value: number): string {
  if (field.endsWith('Ms')) return value < 1_000 && value > 0 ? `${value} ms` : `${value / 1_000} s`;
  if (field.endsWith('cpuMillis')) return value === 0 ? 'none' : String(value / 1_000);
  if (!field.endsWith('Bytes')) return String(value);
  return value === 0 ? 'none' : size(value);
}

/** To the byte, as two that differ must look different: `512 MiB`, `1.5 GiB`, `1000000 B`. */
function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (let value = bytes; value % 512 === 0 && value >= 1_024 && unit < units.length - 1; value /= 1_024) unit++;
  return `${bytes / 1_024 ** unit} ${units[unit]}`;
}

/** What is empty, off or zero says nothing. */
function itemWords(field: string, item: Readonly<Record<string, unknown>>): string {
  if (field === 'ports') return portWords(item as unknown as Port);
  return Object.entries(item)
    .filter(([, value]) => !isNothing(value))
    .map(([name, value]) => `${snake(name)}: ${settingWords(name, value)}`)
    .join(', ');
}

function portWords({ published, target, protocol, mode }: Port): string {
  return `${published}:${target}/${protocol}${mode === 'host' ? ' (mode: host)' : ''}`;
}

export function isNothing(value: unknown): boolean {
  return value === undefined || value === '' || value === 0 || value === false || isEmpty(value);
}

function isEmpty(value: unknown): boolean {
  return (Array.isArray(value) && value.length === 0) || (isRecord(value) && Object.keys(value).length === 0);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
