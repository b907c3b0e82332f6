/** `gantry activate`, `node label`, `node rm`. */
import { ListRequest, UpdateNodeRequest } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, withSession } from './session.ts';

export function activate(options: CommonOptions, name: string): Promise<number> {
  return update(options, { name, availability: 'active' }, 'takes tasks again');
}

export async function label(options: CommonOptions, name: string, labels: readonly string[]): Promise<number> {
  const setLabels: Record<string, string> = {};
  const removeLabels: string[] = [];
  for (const text of labels) {
    const cut = text.indexOf('=');
    if (cut > 0) setLabels[text.slice(0, cut)] = text.slice(cut + 1);
    else if (text.length > 1 && text.endsWith('-')) removeLabels.push(text.slice(0, -1));
    else
      throw new Fault('invalid', `"${text}" is not a label`, {
        remedy: 'write NAME=VALUE to set one, NAME- to remove it',
      });
  }
  return update(options, { name, setLabels, removeLabels }, 'is labelled');
}

export function remove(options: CommonOptions & { readonly force?: true }, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const node = await session.call(methods.removeNode, { name, force: options.force === true });
    if (session.json) session.printJson(node);
    else {
      session.print(`${node.name} is out of the cluster`);
      const { volumes } = await session.call(methods.list, ListRequest.create({ kind: 'volume' }));
      for (const { volume } of volumes)
        if (volume?.nodeId === node.id)
          session.print(
            session.colours.yellow(
              `volume ${volume.name} is given up with it: its services wait until they are applied with x-volume-loss: recreate, and begin with an empty one`,
            ),
          );
    }
    return exitCodes.ok;
  });
}

function update(options: CommonOptions, request: Partial<UpdateNodeRequest>, words: string): Promise<number> {
  return withSession(options, async (session) => {
    const node = await session.call(methods.updateNode, UpdateNodeRequest.create(request));
    if (session.json) session.printJson(node);
    else session.print(`${node.name} ${words}`);
    return exitCodes.ok;
  });
}
