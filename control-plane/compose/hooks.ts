/** `post_start` and `pre_stop`: commands run in the container at these moments of its life. */
import type { Hook } from '#proto/model/hook.ts';
import { type Findings, refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readBoolean, readKeys, readPairs, readText, readTexts } from './read.ts';
import { shellWords } from './shell-words.ts';
import type { Tree } from './tree.ts';

const mostHooks = 32;

export function readHooks(field: 'postStart' | 'preStop') {
  return (draft: Draft, tree: Tree) => {
    const { findings } = draft;
    if (tree.kind !== 'list') return refuse(findings, tree, 'hooks are a list', 'write - command: …');
    if (tree.items.length > mostHooks)
      refuse(findings, tree, `${tree.items.length} hooks are too many`, `at most ${mostHooks} fit`);
    draft.container[field] = tree.items.flatMap((item) => readHook(findings, item) ?? []);
  };
}

function readHook(findings: Findings, tree: Tree): Hook | undefined {
  const hook: { -readonly [Key in keyof Hook]: Hook[Key] } = {
    command: [],
    user: '',
    privileged: false,
    workingDir: '',
    env: [],
  };
  const before = findings.errors.length;
  readKeys(findings, tree, 'a hook', hook, {
    command: (hook, value) => {
      const words = value.kind === 'scalar' ? shellWords(value.source) : readTexts(findings, value);
      if (words) hook.command = words;
      else refuse(findings, value, 'this command leaves a quote or backslash open', 'close it, or write a list');
    },
    user: (hook, value) => {
      hook.user = readText(findings, value) ?? '';
    },
    privileged: (hook, value) => {
      hook.privileged = readBoolean(findings, value) ?? false;
    },
    working_dir: (hook, value) => {
      const path = readText(findings, value) ?? '';
      if (!path.startsWith('/')) refuse(findings, value, `"${path}" is not an absolute path`, 'start it with /');
      hook.workingDir = path;
    },
    environment: (hook, value) => {
      hook.env = readPairs(findings, value).map(({ name, value, tree: place }) => {
        if (value === undefined) refuse(findings, place, `variable ${name} has no value`, `write ${name}=VALUE`);
        return `${name}=${value ?? ''}`;
      });
    },
  });
  if (findings.errors.length > before) return undefined;
  return hook.command.length > 0 ? hook : refuse(findings, tree, 'this hook has no command', 'add command:');
}
