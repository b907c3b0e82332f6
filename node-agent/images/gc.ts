/** Frees disk by watermark: above the high one, images that no task uses are forgotten, oldest first, until usage is below the low one. */
import { statfs } from 'node:fs/promises';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { ImageRecords } from './images.ts';

export interface CollectParts {
  readonly records: ImageRecords;
  /** Of the disk that holds the images, 0 to 1. */
  readonly diskUsage: () => Promise<number>;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Watermarks {
  readonly high: number;
  readonly low: number;
  /** Younger images stay: their task may be on its way. */
  readonly minAgeMs: number;
}

export const defaultWatermarks: Watermarks = { high: 0.85, low: 0.8, minAgeMs: 120_000 };

/** One round. Returns the names that were forgotten. */
export async function collectImages(
  parts: CollectParts,
  marks: Watermarks = defaultWatermarks,
): Promise<readonly string[]> {
  if ((await parts.diskUsage()) < marks.high) return [];
  const inUse = await parts.records.inUse();
  const before = parts.clock.now() - marks.minAgeMs;
  const candidates = (await parts.records.list())
    .filter(({ digest, createdAtMs }) => !inUse.has(digest) && createdAtMs <= before)
    .sort((a, b) => a.createdAtMs - b.createdAtMs || a.name.localeCompare(b.name));
  const removed: string[] = [];
  for (const { name } of candidates) {
    if ((await parts.diskUsage()) < marks.low) break;
    await parts.records.remove(name);
    removed.push(name);
  }
  parts.log.info('removed images nobody uses: the disk was filling up', { count: removed.length });
  return removed;
}

/** How full the disk under a path is for those who are not root, 0 to 1. */
export async function diskUsage(path: string): Promise<number> {
  const { blocks, bavail, bfree } = await statfs(path);
  const usable = blocks - bfree + bavail;
  return usable === 0 ? 1 : (blocks - bfree) / usable;
}
