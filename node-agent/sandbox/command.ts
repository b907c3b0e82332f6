/** The one place of the sandbox that runs programs of the system and turns their failures into faults. */
import { spawn } from 'node:child_process';
import { Fault } from '#proto/kernel/errors.ts';

/** Runs a program to its end and resolves to its standard output; `input` is its standard input. Rejects with `internal` if it fails. */
export function runCommand(program: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let output = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    child.on('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new Fault('precondition', `cannot run ${program}: ${cause.message}`, {
          cause,
          remedy: cause.code === 'ENOENT' ? 'run "npm start", which installs what is missing' : 'try again as root',
        }),
      ),
    );
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(output);
      const line = [program, ...args].join(' ');
      reject(new Fault('internal', `"${line}" ended with ${signal ?? code}: ${complaint.trim() || output.trim()}`));
    });
    child.stdin.on('error', () => {}); // It may end without reading; its exit code says enough.
    child.stdin.end(input);
  });
}

/** Several `ip` commands in one process, in the network namespace of `pid`. */
export function ipBatch(pid: number, lines: readonly string[]): Promise<string> {
  return runCommand('nsenter', ['-t', String(pid), '-n', 'ip', '-batch', '-'], `${lines.join('\n')}\n`);
}

/** Lines of `ip` that give a network card its addresses, bring it up, and then make ways. */
export function cardLines(card: string, addresses: readonly string[], routes: readonly string[] = []): string[] {
  return [
    ...addresses.map((address) => `addr add ${address} dev ${card}`),
    `link set ${card} up`,
    ...routes.map((route) => `route replace ${route}`),
  ];
}
