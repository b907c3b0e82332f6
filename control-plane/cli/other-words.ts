/** Commands of the docker client, Compose, Swarm and kubectl, and what does the same here: fingers remember. */
import type { Command } from 'commander';
import { Fault } from '#proto/kernel/errors.ts';

const elsewhere: Readonly<Record<string, string>> = {
  build: 'build and push the image with docker build, then gantry apply',
  compose: 'gantry apply -f FILE · ps · logs · rm -p PROJECT',
  create: 'write a Compose file, then gantry apply -f FILE',
  delete: 'gantry rm SERVICE',
  deploy: 'gantry apply -f FILE',
  describe: 'gantry inspect NAME, gantry why NAME',
  diff: 'gantry plan -f FILE',
  docker: 'gantry has commands of its own: gantry --help',
  down: 'gantry rm -p PROJECT',
  get: 'gantry ps, gantry services, gantry nodes',
  images: 'nodes pull and clear up by themselves; which image a service runs: gantry services',
  join: 'gantry token create on a manager, then the agent on the new machine: README, "On real machines"',
  kill: 'gantry rm SERVICE, gantry restart SERVICE; a host of a sandbox: gantry sandbox kill HOST',
  port: 'gantry services',
  pull: 'nodes pull what they run: gantry apply -f FILE',
  push: 'to the registry of a sandbox: gantry sandbox push NAME --from FILE',
  run: 'write a Compose file, then gantry apply -f FILE; in a running task: gantry exec TASK COMMAND',
  service: 'gantry services, inspect, scale, restart, rollback, rm, logs',
  stack: 'gantry apply -f FILE, gantry services -p PROJECT, gantry rm -p PROJECT',
  start: 'gantry scale SERVICE=N, or gantry undo SERVICE',
  status: 'gantry services, gantry nodes, gantry info',
  stop: 'gantry scale SERVICE=0, or gantry rm SERVICE',
  swarm: 'gantry token create, gantry node ls, gantry ca rotate',
  top: 'gantry stats',
  up: 'gantry apply -f FILE',
  update: 'edit the Compose file, then gantry apply -f FILE',
};

/** Hidden commands of those names, which tell it. */
export function addOtherWords(program: Command): void {
  for (const [word, remedy] of Object.entries(elsewhere))
    program
      .command(`${word} [args...]`, { hidden: true })
      .allowUnknownOption()
      .helpOption(false)
      .action(() => {
        throw new Fault('invalid', `there is no command "${word}" here`, { remedy });
      });
}
