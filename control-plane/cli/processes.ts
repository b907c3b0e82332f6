/** Mains of other rooms, as processes that have this terminal. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The exit code of the process. */
export function runMain(main: URL, args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [fileURLToPath(main), ...args], { stdio: 'inherit' });
  // The terminal sends its signals to both; the child decides when to end.
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  const wait = () => {};
  process.on('SIGINT', wait).on('SIGTERM', pass).on('SIGHUP', pass);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}
