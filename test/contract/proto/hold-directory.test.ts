/** One process to a directory: those that begin in the same instant, one that was killed, one that left children behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdDirectory } from '#proto/hold-directory.ts';

interface Contender {
  readonly process: ChildProcess;
  /** Tells it to `hold`, to `release` or to `beget` a child of its own that stays; what it answers. */
  tell(order: string): Promise<string>;
}

let root: string;
let contenders: Contender[];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gantry-hold-'));
  contenders = [];
});
afterEach(() => {
  for (const { process } of contenders) process.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

const program = `
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
const { holdDirectory } = await import(process.argv[1]);
let release;
const orders = {
  hold() {
    try { release = holdDirectory(process.argv[2], 'control-plane'); return 'held'; } catch (fault) { return fault.code; }
  },
  release() { release?.(); release = undefined; return 'released'; },
  beget() { return String(spawn('sleep', ['60'], { detached: true, stdio: 'ignore' }).pid); },
};
console.log('here');
for await (const order of createInterface(process.stdin)) console.log(orders[order]());
`;

async function contender(): Promise<Contender> {
  const lock = new URL('../../../proto/hold-directory.ts', import.meta.url).href;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, lock, root], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const answers = createInterface(child.stdout)[Symbol.asyncIterator]();
  const answer = async () => (await answers.next()).value as string;
  const one: Contender = {
    process: child,
    tell(order) {
      child.stdin.write(`${order}\n`);
      return answer();
    },
  };
  contenders.push(one);
  expect(await answer()).toBe('here');
  return one;
}

test('of two that begin in the same instant exactly one holds it, each time', async () => {
  const both = [await contender(), await contender()];
  for (let round = 0; round < 100; round++) {
    const outcomes = await Promise.all(both.map((one) => one.tell('hold')));
    expect(outcomes.sort()).toEqual(['conflict', 'held']);
    await Promise.all(both.map((one) => one.tell('release')));
  }
});

test('who was killed holds nothing any more, nor do the children it leaves behind', async () => {
  const first = await contender();
  expect(await first.tell('hold')).toBe('held');
  const child = Number(await first.tell('beget'));
  try {
    expect(() => holdDirectory(root, 'control-plane')).toThrow(`a control plane is at work in ${root}`);
    const gone = new Promise((resolve) => first.process.once('exit', resolve));
    first.process.kill('SIGKILL');
    await gone;
    process.kill(child, 0);
    // What a power cut leaves, too: the file without a holder.
    expect(readdirSync(root)).toEqual(['control-plane.lock']);
    holdDirectory(root, 'control-plane')();
  } finally {
    process.kill(child, 'SIGKILL');
  }
});

test('an agent and a control plane do not stand in each other’s way', () => {
  const releases = [holdDirectory(root, 'agent'), holdDirectory(root, 'control-plane')];
  expect(() => holdDirectory(root, 'agent')).toThrow(`an agent is at work in ${root}`);
  for (const release of releases) release();
  holdDirectory(root, 'agent')();
});
