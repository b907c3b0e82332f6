/** The commands for what services have in common: volumes, networks, configs and secrets. */
import type { Command } from 'commander';
import { type AddCommand, collect } from './add-command.ts';

export function addSharedThings(program: Command, add: AddCommand): void {
  const volume = program.command('volume').description('named volumes, each on one node').exitOverride();
  add(
    volume,
    'ls',
    'list volumes, and what uses them',
    async (options) => (await import('./volumes.ts')).list(options),
    (command) => command.option('-p, --project <name>', 'of this project only'),
  );
  add(volume, 'inspect <name>', 'where it is, and what uses it', async (options, name) =>
    (await import('./volumes.ts')).inspect(options, name!),
  );
  add(
    volume,
    'rm <name...>',
    'remove volumes that no service uses: to the trash, with their data',
    async (options, ...names) => (await import('./volumes.ts')).remove(options, names),
  );

  const network = program.command('network').description('networks that services share').exitOverride();
  add(
    network,
    'ls',
    'list networks',
    async (options) => (await import('./networks.ts')).list(options),
    (command) => command.option('-p, --project <name>', 'of this project only'),
  );
  add(network, 'inspect <network>', 'a network, and who is on it', async (options, name) =>
    (await import('./networks.ts')).inspect(options, name!),
  );
  add(
    network,
    'create <network>',
    'make a network that projects may be on: external: true',
    async (options, name) => (await import('./networks.ts')).create(options, name!),
    (command) =>
      command
        .option('-d, --driver <name>', 'cluster, or macvlan', 'cluster')
        .option('--subnet <cidr>', 'a range that its tasks have further addresses of; again for more', collect)
        .option('--gateway <address>', "the subnet's gateway")
        .option('--ip-range <cidr>', 'the part of the subnet that is given out')
        .option('--internal', 'no way out of the cluster')
        .option('--ipv6', 'IPv6 addresses too')
        .option('--encrypted', 'only where the cluster encrypts')
        .option('--label <name=value>', 'a label; again for more', collect)
        .option('-o, --opt <name=value>', 'an option of the driver: parent=eth0', collect),
  );
  add(network, 'rm <network...>', 'remove networks that no service is on', async (options, ...names) =>
    (await import('./networks.ts')).remove(options, names),
  );

  for (const [type, what] of [
    ['config', 'files of configuration'],
    ['secret', 'files that nobody is shown'],
  ] as const) {
    const command = program.command(type).description(`${what} that services have`).exitOverride();
    add(
      command,
      'ls',
      `list ${type}s, and what uses them`,
      async (options) => (await import('./documents.ts')).list(options, type),
      (command) => command.option('-p, --project <name>', 'of this project only'),
    );
    add(command, 'inspect <name>', `what is known of a ${type}, and its versions`, async (options, name) =>
      (await import('./documents.ts')).inspect(options, type, name!),
    );
    add(
      command,
      'create <name> [file]',
      `make a ${type} for projects to use (external: true), or give it another content; - is standard input`,
      async (options, name, file) => (await import('./documents.ts')).create(options, type, name!, file),
      (command) =>
        command
          .option('--label <name=value>', 'a label; again for more', collect)
          .option('-d, --detach', 'do not wait until its services have the new content'),
    );
    if (type === 'config')
      add(
        command,
        'show <name>',
        'print what it holds',
        async (options, name) => (await import('./documents.ts')).show(options, name!),
        (command) => command.option('--version <version>', 'an older version, see inspect'),
      );
    add(command, 'rm <name...>', `remove ${type}s that no service uses`, async (options, ...names) =>
      (await import('./documents.ts')).remove(options, type, names),
    );
  }
}
