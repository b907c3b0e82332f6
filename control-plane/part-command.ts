/** What the operator says is to be run so that a part beside us (etcd, NATS) takes up what has changed. */
import { execFile } from 'node:child_process';
import { describe, Fault } from '#proto/kernel/errors.ts';

const timeoutMs = 30_000;

/** Runs a line of the shell. Fault `internal` where it fails. */
export function runPartCommand(line: string): Promise<void> {
  return new Promise((resolve, reject) =>
    execFile('sh', ['-c', line], { timeout: timeoutMs }, (error, _, stderr) => {
      if (!error) return resolve();
      const said = stderr.trim() || describe(error);
      reject(new Fault('internal', `\`${line}\` failed: ${said}`, { cause: error }));
    }),
  );
}
