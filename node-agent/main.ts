/** The node agent as a process: joins, adopts, serves until it is told to stop; containers outlive it. */
import { systemClock } from '#proto/kernel/clock.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { jsonLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import {
  type AgentConfig,
  type ImportConfig,
  type ResetConfig,
  readConfig,
  readImportConfig,
  readResetConfig,
  usage,
} from './config.ts';

async function run(config: AgentConfig): Promise<void> {
  const log = jsonLog((line) => process.stderr.write(line), systemClock.now, config.logLevel, 'agent');
  const crash = (error: unknown) => {
    log.error('a bug: stopping at once', { error });
    process.exit(70);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
  const starting = new AbortController();
  let close = async (): Promise<void> => {
    starting.abort();
    process.exit(0);
  };
  const stop = (signal: string) => {
    log.info('stopping; containers go on', { why: signal });
    close().then(() => process.exit(0), crash);
    // A second signal does not wait.
    process.once('SIGTERM', () => process.exit(1));
    process.once('SIGINT', () => process.exit(1));
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  const { assembleAgent } = await import('./assemble.ts');
  const running = await assembleAgent(config, { clock: systemClock, random: systemRandom, log }, starting.signal);
  close = () => running.close();
}

async function runImport(config: ImportConfig): Promise<void> {
  const log = jsonLog((line) => process.stderr.write(line), systemClock.now, 'warn', 'import');
  const { importArchives } = await import('./assemble.ts');
  const names = await importArchives(config, { clock: systemClock, random: systemRandom, log });
  process.stdout.write(names.map((name) => `${name}\n`).join(''));
}

async function runReset(config: ResetConfig): Promise<void> {
  const log = jsonLog((line) => process.stderr.write(line), systemClock.now, 'warn', 'reset');
  const { resetMachine } = await import('./assemble.ts');
  const { removed, failed } = await resetMachine(config, { clock: systemClock, random: systemRandom, log });
  process.stdout.write(removed.map((one) => `removed ${one}\n`).join(''));
  process.stdout.write(failed.map((one) => `NOT removed: ${one}\n`).join(''));
  process.exit(failed.length > 0 ? 1 : 0);
}

// grpc-js names the server it dials by its IP address in TLS; Node warns about it at every start (DEP0123).
process.noDeprecation = true;

try {
  const [command, ...rest] = process.argv.slice(2);
  const config =
    command === 'import'
      ? readImportConfig(rest)
      : command === 'reset'
        ? readResetConfig(rest)
        : readConfig(process.argv.slice(2), process.env);
  if (!config) process.stdout.write(usage);
  else if ('purge' in config) await runReset(config);
  else if ('files' in config) await runImport(config);
  else await run(config);
} catch (error) {
  process.stderr.write(`node-agent: ${describe(error)}\n`);
  if (!isFault(error)) throw error;
  process.exit(1);
}
