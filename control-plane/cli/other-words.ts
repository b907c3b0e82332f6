/** Commands of the docker client, Compose, Swarm and kubectl, and what does the same here: fingers remember. */
import type { Command } from 'commander';
import { Fault } from '#proto/kernel/errors.ts';

/** By the words: of two the first is a command here. */
const elsewhere: Readonly<Record<string, string>> = {
  attach: 'gantry logs -f SERVICE shows what it prints; a shell beside it: gantry exec -it TASK sh',
  build: 'build and push the image with docker build, then gantry apply',
  compose: 'gantry apply -f FILE · ps · logs · rm -p PROJECT',
  cp: 'from a task: gantry exec TASK tar -c PATH > FILE.tar; into one: gantry exec -i TASK tar -x -C DIRECTORY < FILE.tar (its image must have tar)',
  create: 'write a Compose file, then gantry apply -f FILE',
  delete: 'gantry rm SERVICE',
  deploy: 'gantry apply -f FILE',
  describe: 'gantry inspect NAME, gantry why NAME',
  diff: 'gantry plan -f FILE',
  docker: 'gantry has commands of its own: gantry --help',
  down: 'gantry rm -p PROJECT',
  get: 'gantry ps, gantry services, gantry nodes',
  images: 'nodes pull and clear up by themselves; which image a service runs: gantry services',
  init: 'on this machine: gantry sandbox up; on real ones: README, "On real machines"',
  join: 'gantry token create on a manager, then the agent on the new machine: README, "On real machines"',
  kill: 'gantry rm SERVICE, gantry restart SERVICE; a host of a sandbox: gantry sandbox kill HOST',
  leave: 'gantry drain NODE, stop its agent, gantry node rm NODE; then on its machine: gantry agent reset',
  'node demote': 'managers are those of GANTRY_MANAGERS, whatever the nodes: README, "On real machines"',
  'node inspect': 'gantry inspect NODE, gantry why NODE',
  'node promote': 'managers are those of GANTRY_MANAGERS, whatever the nodes: README, "On real machines"',
  'node ps': 'gantry ps --node NODE',
  'node update': 'gantry drain NODE, gantry activate NODE, gantry node label NODE NAME=VALUE',
  pause: 'a change on its way: gantry rollout pause SERVICE; a schedule: gantry job suspend JOB',
  port: 'gantry services',
  pull: 'nodes pull what they run: gantry apply -f FILE',
  push: 'to the registry of a sandbox: gantry sandbox push NAME --from FILE',
  resume: 'a schedule: gantry job resume JOB; a change that is held: gantry rollout resume SERVICE',
  run: 'a job, once more: gantry job run JOB; something new: write a Compose file, then gantry apply -f FILE; in a running task: gantry exec TASK COMMAND',
  service: 'gantry services, inspect, scale, restart, rollback, rm, logs',
  stack: 'gantry apply -f FILE, gantry services -p PROJECT, gantry rm -p PROJECT',
  start: 'gantry scale SERVICE=N, or gantry undo SERVICE',
  status: 'gantry services, gantry nodes, gantry info',
  stop: 'gantry scale SERVICE=0, or gantry rm SERVICE',
  suspend: 'a schedule: gantry job suspend JOB; a change on its way: gantry rollout pause SERVICE',
  swarm: 'gantry token create, gantry node ls, gantry ca rotate',
  system:
    'gantry info, gantry events; nodes clear up by themselves, and what was removed goes for good with gantry trash empty',
  top: 'gantry stats',
  up: 'gantry apply -f FILE',
  update: 'edit the Compose file, then gantry apply -f FILE',
  'volume create': 'name it in the Compose file (volumes:): it is made on the node where its first task runs',
  'volume prune':
    'gantry volume ls shows which nobody uses, gantry volume rm NAME removes it: to the trash, with its data',
};

/** Hidden commands of those names, which tell it. */
export function addOtherWords(program: Command): void {
  for (const [words, remedy] of Object.entries(elsewhere)) {
    const [word, parent] = words.split(' ').reverse();
    const command = parent ? program.commands.find((one) => one.name() === parent)! : program;
    command
      .command(`${word} [args...]`, { hidden: true })
      .allowUnknownOption()
      .helpOption(false)
      .action(() => {
        throw new Fault('invalid', `there is no command "${words}" here`, { remedy });
      });
  }
}
