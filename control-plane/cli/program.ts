/** Every command with its options; what a command does is loaded only when it runs. */
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type AddCommand, collect, type Options } from './add-command.ts';
import { clientVersion } from './client-version.ts';
import { addClusterCommands } from './cluster-commands.ts';
import { examples } from './examples.ts';
import { addOtherWords } from './other-words.ts';
import { addSharedThings } from './shared-things.ts';

/** Rooms with a main of their own, which has options of its own. */
const mains: Readonly<Record<string, string>> = {
  sandbox: 'a whole cluster on this machine: up, kill, start, crash, cut, join, down',
  'control-plane': 'run a control plane',
  agent: 'run a node agent',
};

/** The command line; `end` is told the exit code of a command that ended as it should. */
export function createProgram(end: (code: number) => void): Command {
  const program = new Command('gantry')
    .description('declare services, and keep them running across hosts')
    .enablePositionalOptions()
    .exitOverride()
    .showSuggestionAfterError()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .version(clientVersion(), '-V, --version', 'print the version of this command')
    .addOption(new Option('--json').hideHelp())
    .addOption(new Option('--socket <path>').hideHelp())
    .addOption(new Option('--context <name>').hideHelp())
    .addOption(new Option('--sandbox <name>').hideHelp())
    .addHelpText(
      'after',
      '\nExit codes: 0 done · 1 failed · 2 bad input · 3 control plane not reached\nEvery command takes --json, --socket PATH, --context NAME and --sandbox NAME.',
    );

  const add: AddCommand = (parent, usage, description, run, define = (command) => command) => {
    const command = define(parent.command(usage).description(description)).exitOverride();
    command
      .addOption(new Option('--json', 'print JSON, for scripts'))
      .addOption(new Option('--socket <path>', 'unix socket of the control plane').hideHelp())
      .addOption(new Option('--context <name>', 'context to use, see gantry context').hideHelp())
      .addOption(new Option('--sandbox <name>', 'sandbox to talk to').hideHelp());
    return command.action(async (...given: unknown[]) => {
      const args = given
        .slice(0, -2)
        .flat()
        .filter((arg): arg is string => arg !== undefined);
      end((await run({ ...program.opts<Options>(), ...command.opts<Options>() }, ...args)) ?? 0);
    });
  };

  const files = (command: Command) =>
    command
      .option('-f, --file <path>', 'Compose file, - for standard input; again for more', collect)
      .option('-p, --project <name>', "project, instead of the file's name: or directory")
      .option('--profile <name>', 'enable services of this profile; again for more', collect)
      .option('--env-file <path>', 'variables of the file, instead of .env; again for more', collect)
      .option('--project-directory <path>', "where relative paths begin, instead of the first file's directory")
      .option('--prune', 'remove services of the project that are no longer in the file')
      .option('--yes-remove-protected <service>', 'may be pruned although it is protected; again for more', collect);
  add(
    program,
    'apply',
    'make the cluster run what a Compose file says',
    async (options) => (await import('./apply.ts')).apply(options),
    (command) =>
      files(command)
        .option('-d, --detach', 'do not wait until it runs')
        .option('--plan <path>', 'do what this plan of `gantry plan --out` says, or nothing'),
  );
  add(
    program,
    'plan',
    'show what apply would do',
    async (options) => (await import('./apply.ts')).plan(options),
    (command) => files(command).option('-o, --out <path>', 'keep it for `gantry apply --plan`'),
  );
  add(
    program,
    'whatif',
    'show what would happen if nodes were lost, drained or added, or services scaled',
    async (options) => (await import('./what-if.ts')).whatIf(options),
    (command) =>
      command
        .option('--kill <node>', 'this node is lost; again for more', collect)
        .option('--drain <node>', 'this node is drained; again for more', collect)
        .option('--add <count>', 'so many more nodes', parseCount)
        .option('--like <node>', 'the added ones are of the make of this one')
        .option('--scale <service=replicas>', 'this service is scaled; again for more', collect),
  );

  const choosing = (command: Command, filters: string) =>
    command
      .option('-q, --quiet', 'print ids only')
      .option('-f, --filter <key=value>', `only those: by ${filters}; again for more`, collect);
  const task = (command: Command) =>
    choosing(command, 'id, name, node, state, desired-state, label')
      .argument('[service]', 'only tasks of this service')
      .option('-a, --all', 'history too')
      .option('--node <name>', 'only tasks on this node')
      .option('-p, --project <name>', 'only this project');
  add(program, 'ps', 'list tasks', async (options, service) => (await import('./lists.ts')).ps(options, service), task);
  add(
    program,
    'services',
    'list services',
    async (options) => (await import('./lists.ts')).services(options),
    (command) => choosing(command, 'id, name, mode, label').option('-p, --project <name>', 'only this project'),
  );
  const node = (command: Command) => choosing(command, 'id, name, state, availability, label');
  add(program, 'nodes', 'list nodes', async (options) => (await import('./lists.ts')).nodes(options), node);
  add(program, 'inspect <name>', 'show all of a service, task or node', async (options, name) =>
    (await import('./lists.ts')).inspect(options, name!),
  );
  add(program, 'stats [service]', 'processor, memory and network of running tasks', async (options, service) =>
    (await import('./stats.ts')).stats(options, service),
  );
  add(
    program,
    'why <name> [named]',
    'why a task is pending, or sits where it sits, or how a node is judged; also `why node NAME`',
    async (options, name, named) => (await import('./why.ts')).why(options, name!, named),
  );
  add(
    program,
    'events',
    'what happens in the cluster',
    async (options) => (await import('./events.ts')).events(options),
    (command) =>
      command
        .option('-f, --follow', 'go on with what happens from now on')
        .option('--since <time>', 'how far back: 10m, or a date', parseSince),
  );
  add(
    program,
    'logs <name>',
    'what a service or task printed, on every host',
    async (options, name) => (await import('./logs.ts')).logs(options, name!),
    (command) =>
      command
        .option('-f, --follow', 'go on with what is printed from now on')
        .option('-n, --tail <lines>', 'only the last lines', parseCount)
        .option('--since <time>', 'how far back: 10m, or a date', parseSince)
        .option('-t, --timestamps', 'print the time of each line')
        .option('--no-prefix', 'print the lines alone'),
  );
  add(
    program,
    'exec <task> <command...>',
    'run a command in a running task, on whichever host it is',
    async (options, name, ...command) => (await import('./exec.ts')).exec(options, name!, command),
    (command) =>
      command
        .passThroughOptions()
        .option('-i, --interactive', 'pass standard input on')
        .option('-t, --tty', 'give it a terminal')
        .option('-e, --env <variable>', 'NAME=VALUE for it; again for more', collect)
        .option('-u, --user <user>', 'run as this user')
        .option('-w, --workdir <path>', 'run in this directory')
        .option('--detach-keys <keys>', 'keys that leave it alone', 'ctrl-p,ctrl-q'),
  );

  const waiting = (command: Command) => command.option('-d, --detach', 'do not wait');
  add(
    program,
    'scale <service=replicas...>',
    'change numbers of replicas',
    async (options, ...pairs) => (await import('./services.ts')).scale(options, pairs),
    waiting,
  );
  const autoscale = program
    .command('autoscale')
    .description('services that have as many tasks as they need')
    .exitOverride();
  add(autoscale, 'status [service]', 'how they stand, and why', async (options, service) =>
    (await import('./autoscale.ts')).status(options, service),
  );
  add(
    program,
    'restart <service...>',
    'replace all tasks, by the update policy',
    async (options, ...names) => (await import('./services.ts')).restart(options, names),
    waiting,
  );
  add(
    program,
    'rollback <service>',
    'back to the version before, or to any that history shows',
    async (options, ...names) => (await import('./services.ts')).rollback(options, names),
    (command) => waiting(command).option('--to <version>', 'this one: see gantry history', parseVersion),
  );
  add(
    program,
    'history <service>',
    'what a service was asked to be, and what each version changed',
    async (options, name) => (await import('./rollout.ts')).history(options, name!),
  );
  const rollout = program
    .command('rollout')
    .description('a change of a service on its way: where it stands, stop it, let it go on, take it back')
    .exitOverride();
  add(rollout, 'status <service>', 'seats, old and new, what each waits for, and the gates', async (options, name) =>
    (await import('./rollout.ts')).status(options, name!),
  );
  add(rollout, 'pause <service>', 'stop where it is', async (options, name) =>
    (await import('./rollout.ts')).pause(options, name!),
  );
  add(
    rollout,
    'resume <service>',
    'go on after a pause, or past the gate where it is held',
    async (options, name) => (await import('./rollout.ts')).resume(options, name!),
    waiting,
  );
  add(
    rollout,
    'undo <service>',
    'back to the version before, as gantry rollback',
    async (options, name) => (await import('./rollout.ts')).undo(options, name!),
    waiting,
  );
  add(
    program,
    'rebalance [service]',
    'move tasks to where nodes have room, one by one',
    async (options, service) => (await import('./rebalance.ts')).rebalance(options, service),
    (command) => command.option('--dry-run', 'only show what would be moved'),
  );
  add(
    program,
    'rm [service...]',
    'stop and remove services: undo brings them back',
    async (options, ...names) => (await import('./services.ts')).remove(options, names),
    (command) =>
      waiting(command)
        .option('-p, --project <name>', 'all services of this project')
        .option('--yes-remove-protected <service>', 'it may go although it is protected; again for more', collect)
        .option('--volumes', 'their volumes too, as far as no other service uses them'),
  );
  add(program, 'release <task>', 'stop a task that is isolated because it was unhealthy', async (options, name) =>
    (await import('./services.ts')).release(options, name!),
  );
  add(
    program,
    'undo [name]',
    'bring back what was removed: the last removal, or what bears the name',
    async (options, name) => (await import('./trash.ts')).undo(options, name),
    waiting,
  );
  const trash = program.command('trash').description('what was removed, and can be brought back').exitOverride();
  add(trash, 'ls', 'list it, the last removal first', async (options) => (await import('./trash.ts')).list(options));
  add(trash, 'empty [name...]', 'let it go for good: all of it, or what is named', async (options, ...names) =>
    (await import('./trash.ts')).empty(options, names),
  );

  const job = program.command('job').description('work that ends: jobs, and when they run').exitOverride();
  add(
    job,
    'ls',
    'list jobs: schedule, next run, last result',
    async (options) => (await import('./jobs.ts')).list(options),
    (command) => command.option('-p, --project <name>', 'of this project only'),
  );
  add(job, 'history <job>', 'its iterations: when, how long, what became of them', async (options, name) =>
    (await import('./jobs.ts')).history(options, name!),
  );
  add(
    job,
    'run <job...>',
    'run it once more, now',
    async (options, ...names) => (await import('./jobs.ts')).run(options, names),
    waiting,
  );
  add(job, 'suspend <job...>', 'let its schedule rest', async (options, ...names) =>
    (await import('./jobs.ts')).suspend(options, names, true),
  );
  add(job, 'resume <job...>', 'let its schedule go on, from now', async (options, ...names) =>
    (await import('./jobs.ts')).suspend(options, names, false),
  );

  add(
    program,
    'drain <node>',
    'move all tasks off a node',
    async (options, name) => (await import('./drain.ts')).drain(options, name!),
    waiting,
  );
  add(program, 'activate <node>', 'let a node take tasks again', async (options, name) =>
    (await import('./nodes.ts')).activate(options, name!),
  );
  const members = program.command('node').description('nodes of the cluster').exitOverride();
  add(members, 'ls', 'list nodes', async (options) => (await import('./lists.ts')).nodes(options), node);
  add(
    members,
    'label <node> <label...>',
    'set labels NAME=VALUE, remove with NAME-',
    async (options, name, ...labels) => (await import('./nodes.ts')).label(options, name!, labels),
  );
  add(
    members,
    'rm <node>',
    'take a node out of the cluster',
    async (options, name) => (await import('./nodes.ts')).remove(options, name!),
    (command) => command.option('--force', 'even if it is ready, or has the data of volumes'),
  );

  addClusterCommands(program, add);

  addSharedThings(program, add);

  const net = program
    .command('net')
    .description('the network: what is broken, what is there, how a packet goes')
    .exitOverride();
  add(
    net,
    'doctor [from] [to]',
    'look at every hop between two tasks, services or nodes, or from outside (:8080); everything where none is named',
    async (options, from, to) => (await import('./net.ts')).doctor(options, from, to),
    (command) => command.option('-v, --verbose', 'also what is good'),
  );
  add(net, 'show [node]', 'what nodes should have of the network, and have', async (options, node) =>
    (await import('./net.ts')).show(options, node),
  );
  add(net, 'trace <from> <to>', 'send one packet, and name every rule that it passes', async (options, from, to) =>
    (await import('./net.ts')).trace(options, from!, to!),
  );

  const token = program.command('token').description('tokens for machines that join').exitOverride();
  add(
    token,
    'create',
    'make a join token',
    async (options) => (await import('./tokens.ts')).create(options),
    (command) =>
      command
        .option('--for <duration>', 'how long it lives', parseMs, 3_600_000)
        .option('--uses <count>', 'how many machines may join with it', parseCount),
  );
  add(token, 'ls', 'list join tokens', async (options) => (await import('./tokens.ts')).list(options));
  add(token, 'revoke <id>', 'make a join token useless', async (options, id) =>
    (await import('./tokens.ts')).revoke(options, id!),
  );
  add(
    program,
    'login <registry>',
    'let the nodes pull from a registry',
    async (options, registry) => (await import('./login.ts')).login(options, registry!),
    (command) =>
      command
        .option('-u, --username <name>', 'user name')
        .option('--password-stdin', 'read the password from standard input'),
  );
  add(program, 'logout <registry>', 'forget that login', async (options, registry) =>
    (await import('./login.ts')).logout(options, registry!),
  );

  const context = program.command('context').description('control planes to talk to from this machine').exitOverride();
  add(context, 'ls', 'list contexts', async (options) => (await import('./context.ts')).list(options));
  add(
    context,
    'create <name>',
    'on a manager: make a certificate for another machine, as a context file',
    async (options, name) => (await import('./context.ts')).create(options, name!),
    (command) => command.option('-o, --out <path>', 'where to write it', 'NAME.gantry.json'),
  );
  add(
    context,
    'add <name>',
    'use a context file, or the parts of one',
    async (options, name) => (await import('./context.ts')).add(options, name!),
    (command) =>
      command
        .option('--file <path>', 'context file')
        .option('--address <host:port>', 'control plane; again for more', collect)
        .option('--ca <path>', 'CA certificate')
        .option('--cert <path>', 'client certificate')
        .option('--key <path>', "the certificate's key"),
  );
  add(context, 'use <name>', 'make it the one in use; "local" is the unix socket', async (options, name) =>
    (await import('./context.ts')).use(options, name!),
  );
  add(context, 'rm <name>', 'forget it', async (options, name) =>
    (await import('./context.ts')).remove(options, name!),
  );

  add(program, 'info', 'the cluster: its managers and who leads, networks, revision', async (options) =>
    (await import('./lists.ts')).info(options),
  );
  add(program, 'version', 'versions of this command and of the control plane', async (options) =>
    (await import('./lists.ts')).version(options),
  );
  add(
    program,
    'completion',
    'print what makes a shell complete the words of gantry',
    async (_, shell) => (await import('./completion.ts')).completion(shell!),
    (command) => command.addArgument(new Argument('<shell>').choices(['bash'])),
  );
  program
    .command('complete [words...]', { hidden: true })
    .description('what may stand in place of the last word')
    .helpOption(false)
    .action(async (words: string[]) => {
      const { complete } = await import('./completion.ts');
      end(await complete(program, words));
    });
  for (const [name, description] of Object.entries(mains))
    program
      .command(`${name} [args...]`)
      .description(description)
      .allowUnknownOption()
      .helpOption(false)
      .action(() => {
        throw new Fault('invalid', `options stand after "gantry ${name}", not before`, {
          remedy: `gantry ${name} --help`,
        });
      });
  addOtherWords(program);
  tellMore(program, 'gantry');
  return program;
}

/** Examples below the help of `command` and of those below it; what is wrong with its words points there. */
function tellMore(command: Command, path: string): void {
  command.showHelpAfterError(`(see ${path} --help)`);
  const lines = examples[path.slice('gantry '.length)];
  if (lines) command.addHelpText('after', ['', 'Examples:', ...lines.map((line) => `  $ gantry ${line}`)].join('\n'));
  for (const one of command.commands) if (!(one.name() in mains)) tellMore(one, `${path} ${one.name()}`);
}

function parseCount(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

function parseVersion(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It must be the number of a version.');
  return Number(text);
}

function parseMs(text: string): number {
  const [, amount, unit] = /^(\d+)(s|m|h|d)$/.exec(text) ?? [];
  if (amount === undefined) throw new InvalidArgumentError('Write a duration such as 30m or 2h.');
  return Number(amount) * { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as 's' | 'm' | 'h' | 'd'];
}

/** ms since the epoch. */
function parseSince(text: string): number {
  const at = Date.parse(text);
  return Number.isNaN(at) || /^\d+[smhd]$/.test(text) ? systemClock.now() - parseMs(text) : at;
}
