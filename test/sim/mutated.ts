/** A process of its own in which a bug is put back: `node test/sim/mutated.ts NUMBER [FROM SEEDS]` tells stories until one breaks, and says which and why, as JSON. */
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { assert } from '#proto/kernel/errors.ts';
import { mutations } from './mutations.ts';

const mutation = mutations[Number(process.argv[2])];
assert(mutation, `there is no mutation ${process.argv[2]}`);
const root = join(import.meta.dirname, '../..');
const left = new Set(mutation.edits);

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context);
    const edits = mutation.edits.filter(({ file }) => pathToFileURL(join(root, file)).href === url);
    if (edits.length === 0) return loaded;
    let source = String(loaded.source);
    for (const edit of edits) {
      const parts = source.split(edit.find);
      assert(parts.length === 2, `${edit.file} has ${parts.length - 1} times: ${edit.find}`);
      source = parts.join(edit.replace);
      left.delete(edit);
    }
    return { ...loaded, source };
  },
});

// Only what is loaded from here on has the bug in it.
const { plots } = await import('./plots.ts');
const { BrokenStory, tell } = await import('./story.ts');
assert(left.size === 0, `never loaded: ${[...left].map(({ file }) => file)}`);
let caught: { readonly seed: number; readonly why: string } | undefined;
const { story = 'first' } = mutation;
const [from = mutation.from ?? 1, seeds = mutation.seeds] = process.argv.slice(3).map(Number);
const whole = plots.find(({ name }) => name === story)!;
const only = mutation.chapters?.map((name) => {
  const chapter = whole.chapters.find((chapter) => chapter.name === name);
  assert(chapter, `plot ${story} has no chapter ${name}`);
  return chapter;
});
const plot = { ...whole, chapters: only ?? whole.chapters };
for (let seed = from; seed < from + seeds && !caught; seed++) {
  try {
    await tell(seed, { plot, brief: story !== 'first' });
  } catch (error) {
    if (!(error instanceof BrokenStory)) throw error;
    caught = { seed, why: error.why };
  }
}
process.stdout.write(`${JSON.stringify(caught ?? {})}\n`);
