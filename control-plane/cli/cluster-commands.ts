/** The commands that are about the cluster as a whole. */
import type { Command } from 'commander';
import type { AddCommand } from './add-command.ts';

export function addClusterCommands(program: Command, add: AddCommand): void {
  const cluster = program
    .command('cluster')
    .description('the whole cluster: its settings, and all of it in one file')
    .exitOverride();
  add(cluster, 'show', 'show its settings', async (options) => (await import('./cluster.ts')).show(options));
  add(
    cluster,
    'set <setting...>',
    'change them: NAME=VALUE …, as `cluster show` names them',
    async (options, ...words) => (await import('./cluster.ts')).set(options, words),
  );
  add(
    cluster,
    'backup <file>',
    "on a manager: write all that the cluster needs into a file, the CA's key and secrets too",
    async (options, file) => (await import('./backup.ts')).backup(options, file!),
    (command) =>
      command
        .option('--passphrase-file <path>', 'encrypt it with the first line of this file')
        .option('--check', 'only read a file that is there, to its end'),
  );
  add(
    cluster,
    'restore <file>',
    'on a machine that becomes a manager: lay the cluster of a backup down, for its control plane to come up with',
    async (options, file) => (await import('./backup.ts')).restore(options, file!),
    (command) =>
      command
        .option('--passphrase-file <path>', 'what it was encrypted with')
        .option('--data <dir>', "the control plane's data directory")
        .option('--name <name>', 'of this manager')
        .option('--advertise <address>', 'where agents reach it')
        .option('--config <path>', 'file of these settings, as for the control plane')
        .option('--force', 'put aside the identity that lies there, and have all that etcd holds replaced'),
  );

  const ca = program.command('ca').description("the cluster's certificate authority").exitOverride();
  add(ca, 'status', 'who has certificates of it, and how far a rotation is', async (options) =>
    (await import('./authority.ts')).status(options),
  );
  add(
    ca,
    'rotate',
    'a new CA in its place: all members get certificates of it while everything goes on, then the old one is trusted no more',
    async (options) => (await import('./authority.ts')).rotate(options),
    (command) =>
      command
        .option(
          '--finish',
          'of a rotation under way: who has no new certificate yet is waited for no longer, and must join again',
        )
        .option('-d, --detach', 'do not wait until it is over'),
  );
}
