/** The command line before an operator service in memory, behind a real unix socket. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OperatorParts } from '#control-plane/api/parts.ts';
import { serveSocket } from '#control-plane/servers.ts';
import { OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { type CliEnd, type CliPlace, startCli } from './cli.ts';
import { type OperatorLab, operatorLab } from './operator.ts';

export interface CliLab {
  readonly scope: Scope;
  readonly lab: OperatorLab;
  readonly place: CliPlace;
  gantry(...args: string[]): Promise<CliEnd>;
  /** Into the directory that commands run in. */
  write(name: string, text: string): Promise<void>;
}

/** It lasts until its scope closes. */
export async function startCliLab(more: Partial<OperatorParts> = {}): Promise<CliLab> {
  const scope = new Scope();
  const lab = operatorLab(more);
  const directory = await mkdtemp(join(tmpdir(), 'gantry-cli-'));
  const place = { directory, socket: join(directory, 'control-plane.sock') };
  scope.defer(() => rm(directory, { recursive: true }));
  await serveSocket(scope, place.socket, [{ definition: OperatorService, handlers: lab.service }]);
  return {
    scope,
    lab,
    place,
    gantry: (...args) => startCli(place, args).end,
    write: (name, text) => writeFile(join(directory, name), text),
  };
}
