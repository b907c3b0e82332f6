/** `gantry sandbox …`: the command line of the sandbox. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Command, CommanderError, Option } from 'commander';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import { codeDir } from './layout.ts';
import { isOurs, wrapperPath } from './path-wrapper.ts';
import type { SandboxStatus, Settings, Wishes } from './protocol.ts';
import { findSandbox, listSandboxes, openSandbox, runsElsewhere, sandboxesByRoot } from './sandbox.ts';
import type { Topology } from './topology.ts';

const program = new Command('gantry sandbox')
  .exitOverride() // First: the subcommands inherit it.
  .enablePositionalOptions()
  .description('a whole cluster on this machine: hosts are sets of namespaces on one virtual switch')
  .option('--name <name>', 'which sandbox; --sandbox, as other commands have it, is the same', 'default')
  .addOption(new Option('--sandbox <name>').hideHelp())
  .option('--json', 'print the status as JSON');

const asked = () => program.opts<{ name: string }>().name;
const sandbox = () => findSandbox(asked());
const progress = (text: string) => process.stderr.write(`${text}\n`);
const show = (status: SandboxStatus) => {
  process.stdout.write(program.opts<{ json?: true }>().json ? `${JSON.stringify(status)}\n` : table(status));
};

program
  .command('up')
  .description('start it, or what of it is off')
  .option('--hosts <count>', 'how many worker hosts', '3')
  .option('--managers <count>', 'how many managers: 1 (default), 3 or 5')
  .option('--bare', 'containerd and a registry only, nothing of Gantry')
  .option('--layout <layout>', 'flat: one link (default); routed: h2, h4 … on a second one, behind a router')
  .option('--mtu <bytes>', 'widest packet that the router of a routed layout lets through')
  .option('--nat <hosts>', 'hosts behind a router that translates addresses, by comma: h3')
  .option('--ipv6', 'IPv6 addresses on links, hosts and the world, too')
  .option('--set <host:name=value>', 'a GANTRY_… variable of a host, e.g. h1:GANTRY_SUBNET=10.192.7.0/24', listed, [])
  .action(async (options: UpOptions) => {
    show(await openSandbox(asked()).up({ hosts: countOf(options.hosts), ...wishesOf(options), onProgress: progress }));
  });
program
  .command('down')
  .description('end it and leave nothing behind')
  .option('--keep', 'keep the disks of its hosts for the next up')
  .option('--all', 'every sandbox that is kept where this one would be (GANTRY_SANDBOX_ROOT)')
  .action(async (options: { keep?: true; all?: true }) => {
    const { own, foreign } = sandboxesByRoot();
    const named = foreign.filter(({ name, root }) => options.all || (name === asked() && root !== undefined));
    if (!options.all && named.length > 0) throw runsElsewhere(named[0]!);
    for (const one of options.all ? own.map((name) => openSandbox(name)) : [sandbox()]) {
      await one.down({ keep: options.keep === true });
      progress(`sandbox ${one.layout.name} is down${options.keep ? ', its disks kept' : ''}`);
    }
    for (const one of named) progress(describe(runsElsewhere(one)));
    if (sandboxesByRoot().own.length === 0 && isOurs(wrapperPath))
      progress(`${wrapperPath} stays, for the next time: it runs ${codeDir}`);
  });
program
  .command('status')
  .description('hosts, control plane and published ports')
  .action(async () => show(await sandbox().status()));
program
  .command('list')
  .description('names of the sandboxes of this machine')
  .action(() => {
    const names = listSandboxes();
    const lines = program.opts<{ json?: true }>().json ? [JSON.stringify(names)] : names;
    process.stdout.write(lines.map((line) => `${line}\n`).join(''));
  });
program
  .command('add')
  .description('add a host')
  .action(async () => show(await sandbox().add(progress)));
for (const [op, what] of [
  ['start', 'switch a host on'],
  ['kill', 'pull the power plug of a host'],
  ['crash', "kill a host's init alone: the others see its connections close"],
  ['cut', 'unplug the network cable of a host'],
  ['join', 'plug it in again'],
] as const) {
  program
    .command(`${op} <host>`)
    .description(what)
    .action(async (host: string) => show(await sandbox().act(op, host, progress)));
}
program
  .command('exec <host> <command...>')
  .description('run a command inside a host, or in the network of "world" (outside), "switch", "router" or "nat"')
  .passThroughOptions()
  .action(async (host: string, words: string[]) => {
    // Where options are passed on, so is the -- that ends them.
    const command = words[0] === '--' ? words.slice(1) : words;
    if (command.length === 0)
      throw new Fault('invalid', 'exec: no command was given', { remedy: `gantry sandbox exec ${host} -- COMMAND` });
    const [file, ...args] = sandbox().execLine(host, command);
    process.exitCode = await new Promise<number>((resolve, reject) => {
      const child = spawn(file, args, { stdio: 'inherit' });
      child.on('error', reject);
      child.on('close', (code) => resolve(code ?? 137));
    });
  });
program
  .command('logs <host> [service]')
  .description('what a service of a host has logged: agent, containerd, control-plane, etcd, nats, registry')
  .action((host: string, service?: string) => {
    const logs = sandbox().logs(host);
    if (service === undefined) {
      for (const [name, file] of logs) process.stdout.write(`${name.padEnd(16)}${file}\n`);
      return;
    }
    const file = logs.get(service);
    if (file === undefined) {
      throw new Fault('not-found', `${host} has no log of "${service}"`, {
        remedy: `it has ${[...logs.keys()].join(', ')}`,
      });
    }
    process.stdout.write(readFileSync(file));
  });
program
  .command('push <image>')
  .description(
    "push an image to the sandbox's registry as <image>, e.g. hello:1: one of your own, or else the sample image",
  )
  .option('--from <file>', 'archive with the image: docker save, skopeo, buildx')
  .action(async (image: string, { from }: { from?: string }) => {
    const { pushSampleImage } = await import('./sample-image.ts');
    const { pushArchive } = await import('./push-archive.ts');
    const name = from === undefined ? pushSampleImage(sandbox(), image) : pushArchive(sandbox(), image, from);
    process.stdout.write(`${await name}\n`);
  });

// Also after the subcommand, as everywhere in `gantry`.
for (const command of program.commands)
  for (const flags of ['--name <name>', '--sandbox <name>', '--json']) command.addOption(new Option(flags).hideHelp());
program.hook('preAction', (_, command) => {
  const { sandbox: before } = program.opts<{ sandbox?: string }>();
  const { name, sandbox = before, json } = command.opts<{ name?: string; sandbox?: string; json?: true }>();
  const wanted = name ?? sandbox;
  if (wanted !== undefined) program.setOptionValue('name', wanted);
  if (json) program.setOptionValue('json', true);
});

program
  .command('complete [words...]', { hidden: true })
  .description('what may stand in place of the last word')
  .helpOption(false)
  .action(async (words: string[]) => {
    const { complete } = await import('./complete.ts');
    process.stdout.write((await complete(program, words)).map((line) => `${line}\n`).join(''));
  });

interface UpOptions {
  readonly hosts: string;
  readonly managers?: string;
  readonly bare?: true;
  readonly layout?: string;
  readonly mtu?: string;
  readonly nat?: string;
  readonly ipv6?: true;
  readonly set: readonly string[];
}

function listed(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** What was asked for; what was not stays as it is. */
function wishesOf({ bare, managers, layout, mtu, nat, ipv6, set }: UpOptions): Wishes {
  if (layout !== undefined && layout !== 'flat' && layout !== 'routed')
    throw new Fault('invalid', `"${layout}" is no layout of a sandbox`, { remedy: 'give flat or routed' });
  const wires: Partial<Topology> = {
    ...(layout === undefined ? {} : { layout }),
    ...(mtu === undefined ? {} : { mtu: Number(mtu) }),
    ...(nat === undefined ? {} : { nat: nat.split(',').filter((host) => host !== '') }),
    ...(ipv6 ? { ipv6 } : {}),
  };
  return {
    ...wires,
    ...(bare ? { bare } : {}),
    ...(managers === undefined ? {} : { managers: Number(managers) }),
    settings: settingsOf(set),
  };
}

function settingsOf(set: readonly string[]): Settings {
  const settings: Record<string, Record<string, string>> = {};
  for (const text of set) {
    const [, host = '', name = '', value = ''] = /^([a-z0-9]+):(GANTRY_[A-Z0-9_]+)=(.*)$/.exec(text) ?? [];
    if (name === '')
      throw new Fault('invalid', `"${text}" is no setting of a host`, { remedy: 'write it as h1:GANTRY_NAME=value' });
    settings[host] = { ...settings[host], [name]: value };
  }
  return settings;
}

function countOf(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 200) return count;
  throw new Fault('invalid', `"${text}" is not a number of hosts`, { remedy: 'give a whole number from 1 to 200' });
}

function table(status: SandboxStatus): string {
  const rows = status.hosts.map((host) => {
    const isUp = host.power === 'on' && host.cable === 'plugged';
    const word = host.role === 'manager' ? `control plane ${status.controlPlane}` : 'ready';
    const node = isUp && (host.role === 'manager' || status.ready.includes(host.name)) ? word : '-';
    return [host.name, host.address, host.power, host.cable, node]
      .map((cell) => cell.padEnd(14))
      .join('')
      .trimEnd();
  });
  const ports = status.ports.map(
    ({ port, protocol, problem }) =>
      `published: 127.0.0.1:${port}${protocol === 'udp' ? '/udp' : ''}${problem ? ` not forwarded: ${problem}` : ''}`,
  );
  const header = ['HOST', 'ADDRESS', 'POWER', 'CABLE', 'NODE']
    .map((cell) => cell.padEnd(14))
    .join('')
    .trimEnd();
  return `${[header, ...rows, ...wires(status.topology), ...ports].join('\n')}\n`;
}

/** How it is wired, where that is not the usual way. */
function wires({ layout, mtu, nat, ipv6 }: Topology): string[] {
  const words = [
    ...(layout === 'flat' ? [] : [`${layout}${mtu === 0 ? '' : `, packets of ${mtu} bytes at most`}`]),
    ...(nat.length === 0 ? [] : [`behind NAT: ${nat.join(', ')}`]),
    ...(ipv6 ? ['IPv6'] : []),
  ];
  return words.length === 0 ? [] : [words.join(' · ')];
}

try {
  await program.parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else if (error instanceof Fault) {
    process.stderr.write(`gantry sandbox: ${describe(error)}\n`);
    process.exitCode = isFault(error, 'invalid', 'not-found', 'unsupported') ? 2 : 1;
  } else throw error;
}
