/** What may stand next after `gantry sandbox …`, a line each: its words and options, its hosts, and the names of sandboxes. */
import type { Command } from 'commander';
import { type NameKinds, nextOf } from '#proto/next-word.ts';
import { listSandboxes, openSandbox } from './sandbox.ts';

type Kind = 'host' | 'sandbox' | 'log' | 'layout';

const kinds: NameKinds<Kind> = {
  byArgument: { host: ['host'], service: ['log'], hosts: ['host'] },
  byCommand: {},
  byOption: { '--name': ['sandbox'], '--sandbox': ['sandbox'], '--hosts': [], '--layout': ['layout'] },
};
/** Every command takes them; none shows them. */
const everywhere = ['--name', '--json'];

/** Whoever presses a key waits for it: nothing is said of faults. */
export async function complete(program: Command, words: readonly string[]): Promise<string[]> {
  const last = words.at(-1) ?? '';
  const next = nextOf(program, words, kinds);
  const named = words.slice(0, -1).findLast((_, index) => ['--name', '--sandbox'].includes(words[index - 1] ?? ''));
  const names = await Promise.all(next.kinds.map((kind) => namesOf(kind, named, words)));
  const own = last.startsWith('-') ? [...next.words, ...everywhere] : next.words;
  return [...new Set([...own, ...names.flat()])].filter((word) => word.startsWith(last)).sort();
}

async function namesOf(kind: Kind, name: string | undefined, words: readonly string[]): Promise<readonly string[]> {
  try {
    if (kind === 'layout') return ['flat', 'routed'];
    if (kind === 'sandbox') return listSandboxes();
    const sandbox = openSandbox(name);
    if (kind === 'log') return [...sandbox.logs(words.at(-2)!).keys()];
    const { hosts } = await sandbox.status();
    return hosts.map((host) => host.name);
  } catch {
    return [];
  }
}
