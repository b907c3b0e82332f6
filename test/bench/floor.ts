/** The machine without a cluster: a bare host where the same work is done by hand and by peers, for the figures to stand beside. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pushSampleImage } from '#node-agent/sandbox/sample-image.ts';
import { openSandbox, type Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { eventually } from '#test/support/eventually.ts';
import { median } from './measure.ts';

export type Engine = 'runc' | 'crun';

export class Floor {
  readonly #sandbox: Sandbox;
  readonly #root: string;

  static async start(): Promise<Floor> {
    const root = mkdtempSync(join(tmpdir(), 'gbf-'));
    const floor = new Floor(root);
    try {
      await floor.#sandbox.up({ hosts: 1, bare: true });
      await eventually(() => pushSampleImage(floor.#sandbox, 'hello:1'), { timeoutMs: 20_000 });
    } catch (error) {
      await floor.close();
      throw error;
    }
    return floor;
  }

  constructor(root: string) {
    this.#root = root;
    this.#sandbox = openSandbox(`f${newId(systemRandom).slice(0, 6)}`, { root });
  }

  async #ask<T>(mode: string, engine: Engine, count: number): Promise<T> {
    const script = join(import.meta.dirname, 'floor-process.ts');
    const line = [process.execPath, script, mode, engine, String(count)];
    return JSON.parse(await this.#sandbox.run('h1', line)) as T;
  }

  /** Milliseconds of each step of a start by hand, one after another: p50 of each, and of the whole. */
  async steps(
    engine: Engine,
    count = 15,
  ): Promise<{ readonly byStep: ReadonlyMap<string, number>; readonly whole: number }> {
    const samples = await this.#ask<Record<string, number>[]>('steps', engine, count);
    const names = Object.keys(samples[0] ?? {});
    const byStep = new Map(names.map((name) => [name, median(samples.map((sample) => sample[name]!))]));
    const wholes = samples.map((sample) => Object.values(sample).reduce((total, ms) => total + ms, 0));
    return { byStep, whole: median(wholes) };
  }

  /** Starts per second, eight at a time: the engine alone, all steps with conmon by hand, or `ctr run -d`. */
  async perSecond(mode: 'bare' | 'conmon' | 'ctr', engine: Engine, count: number): Promise<number> {
    return (count * 1_000) / (await this.#ask<number>(mode, engine, count));
  }

  async close(): Promise<void> {
    await this.#sandbox.down();
    rmSync(this.#root, { recursive: true, force: true });
  }
}
