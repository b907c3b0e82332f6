/** A question on the terminal. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';

/** What is typed; `silent`: it is not shown. */
export async function ask(question: string, silent: boolean): Promise<string> {
  process.stderr.write(question);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const reader = createInterface({ input: process.stdin, output: silent ? nowhere : process.stderr, terminal: true });
  try {
    return await reader.question('');
  } finally {
    reader.close();
    if (silent) process.stderr.write('\n');
  }
}
