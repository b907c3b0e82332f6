/** The way out of a cluster: everything is tried, what stays is said, and nobody else's files are touched. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readResetConfig } from '#node-agent/config.ts';
import { resetNode } from '#node-agent/reset.ts';
import { holdDirectory } from '#proto/hold-directory.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { taskId } from '#proto/model/ids.ts';

let root: string;
let run: string;
let data: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gantry-reset-'));
  run = join(root, 'run');
  data = join(root, 'data');
  for (const directory of [join(run, 'netns'), join(run, 'oci'), data]) mkdirSync(directory, { recursive: true });
  writeFileSync(join(run, 'control-plane.sock'), '');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const [a, b] = [taskId('a'), taskId('b')];
const containers = [a, b].map((id) => ({ id, status: 'running', pid: 1, annotations: {} }) as const);
const parts = (purge: boolean, deleted: string[] = []) => ({
  run,
  data,
  purge,
  runtime: {
    list: async () => containers,
    async delete(id: string) {
      if (id === a) throw new Fault('timeout', 'it does not end');
      deleted.push(id);
    },
  },
  images: {
    rootfs: async () => [b],
    async release(id: string) {
      deleted.push(`layer ${id}`);
    },
  },
  documents: {
    held: () => [b],
    release(id: string) {
      deleted.push(`documents ${id}`);
    },
  },
  resetNetwork: async () => ['link gantry0'],
});

it('goes on where one thing cannot be removed, and says so', async () => {
  const deleted: string[] = [];
  const { removed, failed } = await resetNode(parts(false, deleted));
  expect(deleted).toEqual([b, `documents ${b}`, `layer ${b}`]);
  expect(removed).toEqual([
    `container ${b}`,
    `configs and secrets of ${b}`,
    `layer of ${b}`,
    'link gantry0',
    join(run, 'netns'),
    join(run, 'oci'),
  ]);
  expect(failed).toEqual([`container ${a}: it does not end`]);
});

it('keeps volumes and identity unless told otherwise, and the files of a control plane always', async () => {
  await resetNode(parts(false));
  expect(existsSync(data)).toBe(true);
  await resetNode(parts(true));
  expect(existsSync(data)).toBe(false);
  expect(existsSync(join(run, 'control-plane.sock'))).toBe(true);
});

it('says what stays where containerd does not answer', async () => {
  const { failed } = await resetNode({ ...parts(false), images: undefined });
  expect(failed).toContain('layers of tasks: containerd does not answer');
});

it('is refused while an agent is at work', async () => {
  const release = holdDirectory(run, 'agent');
  expect(() => holdDirectory(run, 'agent')).toThrow(/an agent is at work in/);
  release();
  holdDirectory(run, 'agent')();
});

it('takes flags of its own', () => {
  expect(readResetConfig(['--purge', '--run', '/r'])).toMatchObject({ purge: true, run: '/r' });
  expect(readResetConfig([])).toMatchObject({ purge: false, run: '/run/gantry', data: '/var/lib/gantry/agent' });
  expect(readResetConfig(['--help'])).toBeUndefined();
  expect(() => readResetConfig(['--advertise', '10.0.0.1'])).toThrow(/--advertise/);
});
