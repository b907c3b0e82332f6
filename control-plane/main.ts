/** The control plane as a process: `init` makes its identity, `run` serves until it is told to stop. */
import { Command, Option } from 'commander';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { jsonLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { type ControlPlaneConfig, readConfig, settings } from './config.ts';

/** What `init` asks for: the rest has no part in it. */
const identitySettings: ReadonlySet<string> = new Set(['data', 'name', 'advertise', 'managers', 'certificateLife']);

function withSettings(command: Command, keys?: ReadonlySet<string>): Command {
  for (const { key, flag, help, fallback } of settings) {
    if (keys && !keys.has(key)) continue;
    command.addOption(new Option(flag, fallback ? `${help} (default: ${fallback})` : help));
  }
  return command.option('--config <file>', 'YAML file of these settings, by their names in camelCase');
}

function configOf(options: Record<string, string | undefined>): ControlPlaneConfig {
  const { config: file, ...flags } = options;
  return readConfig(flags, process.env, file);
}

async function init(options: Record<string, string | undefined>): Promise<void> {
  const { data, name, advertise, managers, certificateLife: lifetimeMs } = configOf(options);
  const { assertIdentity, initPki } = await import('./security/pki.ts');
  const { writeBeside } = await import('./beside.ts');
  // One of them makes the identity of the cluster: two that had made one each could never work together.
  const [first] = managers;
  if (first!.name !== name) await assertIdentity(data, first!.name);
  const pki = await initPki({ dataDir: data, name, advertise, lifetimeMs });
  await writeBeside({ dataDir: data, name, advertise, managers }, pki);
  process.stdout.write(`${data}/pki, etcd.env and nats.conf are ready; CA ${pki.authority.hash}\n`);
}

async function restore(file: string, options: Record<string, string | boolean | undefined>): Promise<void> {
  const { passphraseFile, force, ...rest } = options as { passphraseFile?: string; force?: true } & Record<
    string,
    string
  >;
  const { data, name, advertise, certificateLife: lifetimeMs } = configOf(rest);
  const { prepareRestore } = await import('./restore.ts');
  const { initPki } = await import('./security/pki.ts');
  const { readPassphrase } = await import('#proto/passphrase.ts');
  const passphrase = passphraseFile === undefined ? undefined : readPassphrase(passphraseFile);
  const now = systemClock.now();
  const request = { file, passphrase, data, force: force === true, now, random: systemRandom };
  const { info, records, authority, unfinishedJobs } = await prepareRestore(request);
  await initPki({ dataDir: data, name, advertise, lifetimeMs });
  process.stdout.write(
    `the cluster of ${new Date(info.createdAtMs).toISOString()}, ${records} records, is in ${data}\nstart etcd, NATS and the control plane of ${name}: it comes up with it\n`,
  );
  if (authority === 'kept')
    process.stdout.write(
      `the CA that lay in ${data} is newer than the backup's, and is kept: nodes and operators trust it\n`,
    );
  if (authority === 'backup')
    process.stdout.write(
      `its CA is that of the backup: nodes that have seen a later \`gantry ca rotate\` do not trust it\n  → on each of these, with a new token of \`gantry token create\` as GANTRY_TOKEN in /etc/gantry/agent.env:\n    systemctl stop gantry-agent && mv /var/lib/gantry/agent/identity /var/lib/gantry/agent/identity.former && systemctl start gantry-agent\n`,
    );
  if (unfinishedJobs.length > 0)
    process.stdout.write(
      `these jobs had not ended then; what of them has ended since may run again: ${unfinishedJobs.join(', ')}\n  → gantry job suspend, or rm, as soon as it is up, where running again would do harm\n`,
    );
}

async function run(options: Record<string, string | undefined>): Promise<void> {
  const config = configOf(options);
  const log = jsonLog((line) => process.stderr.write(line), systemClock.now, config.logLevel, 'control-plane');
  const crash = (error: unknown) => {
    log.error('a bug: stopping at once', { error });
    process.exit(70);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
  // It answers, and may lead, before all of it is there; or waits for others.
  let close = async (): Promise<void> => process.exit(0);
  const stop = (signal: string) => {
    log.info('stopping', { why: signal });
    close().then(() => process.exit(0), crash);
    // A second signal does not wait.
    process.once('SIGTERM', () => process.exit(1));
    process.once('SIGINT', () => process.exit(1));
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  const { assembleControlPlane } = await import('./assemble.ts');
  const controlPlane = await assembleControlPlane(config, { clock: systemClock, random: systemRandom, log });
  close = () => controlPlane.close();
  await controlPlane.failed;
}

// grpc-js names the server it dials by its IP address in TLS; Node warns about it at every start (DEP0123).
process.noDeprecation = true;

const program = new Command('control-plane').description('The control plane of Gantry: what should be');
withSettings(
  program.command('init').description('make or renew the certificates; safe to repeat'),
  identitySettings,
).action(init);
withSettings(
  program
    .command('restore')
    .description('lay down the cluster of a backup; the next `run` puts its records into an empty etcd')
    .argument('<file>', 'what `gantry cluster backup` wrote')
    .option('--passphrase-file <file>', 'the passphrase that it was encrypted with')
    .option('--force', 'put aside another identity that lies in --data, and have all that etcd holds replaced'),
  identitySettings,
).action(restore);
withSettings(program.command('run').description('serve until stopped')).action(run);

try {
  await program.parseAsync();
} catch (error) {
  if (!isFault(error)) throw error;
  process.stderr.write(`control-plane: ${describe(error)}\n`);
  process.exit(1);
}
