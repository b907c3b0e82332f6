/** A program directory of another version: this code, which says and writes things that this version does not know. */
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeDir } from '#node-agent/sandbox/layout.ts';
import packageJson from '../../package.json' with { type: 'json' };

/** What this code calls itself, and what the other version does. */
export const ownVersion = packageJson.version;
export const otherVersion = '99.1.0';
/** In all that the other version says and writes beside what this one knows. */
export const omen = 'omen';

/** A field of type string that no message has. */
const unknownTag = (9_001 << 3) | 2;

/** Writes it to `to`, which must not be there yet. What is changed is found by its text: where that is gone, this throws. */
export function writeOtherVersion(to: string): void {
  mkdirSync(to);
  for (const part of ['control-plane', 'node-agent', 'proto', 'net', 'package.json', 'package-lock.json'])
    cpSync(join(codeDir, part), join(to, part), { recursive: true });
  symlinkSync(join(codeDir, 'node_modules'), join(to, 'node_modules'));
  const edit = (file: string, before: string | RegExp, after: string) => {
    const text = readFileSync(join(to, file), 'utf8');
    const changed = text.replace(before, after);
    if (changed === text) throw new Error(`${file} has no ${before}: another version cannot be made of it`);
    writeFileSync(join(to, file), changed);
  };
  edit('package.json', `"version": "${ownVersion}"`, `"version": "${otherVersion}"`);
  // On the wire: a field in every message, in either direction, at every depth.
  const messages = join('proto', 'gen', 'gantry', 'v1');
  for (const file of readdirSync(join(to, messages)))
    if (readFileSync(join(to, messages, file), 'utf8').includes(encoding))
      edit(
        join(messages, file),
        new RegExp(escaped(`${encoding} {`), 'g'),
        `$&\n    writer.uint32(${unknownTag}).string("${omen}");`,
      );
  // A kind of assignment.
  edit(
    join(messages, 'agent.ts'),
    'for (const v of message.put) {',
    `Assignment.encode({ key: "${omen}/1", item: undefined } as Assignment, writer.uint32(42).fork()).join();\n    $&`,
  );
  // A word for how an agent is, in place of one that counts for nothing: it runs.
  edit(
    'node-agent/watchdog/watchdog.ts',
    /\bcondition,(?=\s+probes,)/,
    `condition: (Math.random() < 0.2 ? '${omen}' : condition) as never,`,
  );
  // On a node's disk: a kind of assignment, a kind of record, and a field of what is known already.
  edit(
    'node-agent/journal.ts',
    "for (const line of text.split('\\n')) this.#load(line);",
    `$&\n    this.#write([['item/${omen}/1', { kind: '${omen}' }], ['${omen}', { ${omen}: true }]] as never);`,
  );
  edit(
    'node-agent/journal.ts',
    'JSON.stringify([key, value ?? null])',
    `JSON.stringify([key, value !== null && typeof value === 'object' ? { ...value, ${omen}: 'journal' } : (value ?? null)])`,
  );
  // In etcd: a field of every record.
  edit(
    'control-plane/store/codec.ts',
    'return Buffer.from(JSON.stringify(value));',
    `return Buffer.from(JSON.stringify({ ...value, ${omen}: 'record' }));`,
  );
}

const encoding = 'writer: BinaryWriter = new BinaryWriter()): BinaryWriter';
const escaped = (text: string) => text.replace(/[()]/g, '\\$&');
