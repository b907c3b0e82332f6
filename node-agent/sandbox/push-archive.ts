/** An image of the user's own, from a file into the registry of a sandbox: its hosts reach no registry outside. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { runCommand } from './command.ts';
import { firstManager, registryName } from './layout.ts';
import { registryImage } from './sample-image.ts';
import type { Sandbox } from './sandbox.ts';

/** Pushes the image in `file` (docker save, or an OCI layout in a tar) as `image`; resolves to its full name. Faults: `not-found`, `invalid`. */
export async function pushArchive(sandbox: Pick<Sandbox, 'run'>, image: string, file: string): Promise<string> {
  const { repository, tag } = registryImage(image);
  if (!existsSync(file))
    throw new Fault('not-found', `${file} is not there`, { remedy: 'make it: docker save IMAGE -o FILE' });
  const names = await runCommand('tar', ['-tf', file]).catch((cause) => {
    throw new Fault('invalid', `${file} is not a tar archive`, { cause, remedy: 'make it: docker save IMAGE -o FILE' });
  });
  const kind = names.split('\n').includes('manifest.json') ? 'docker-archive' : 'oci-archive';
  const name = `${registryName}/${repository}:${tag}`;
  const source = `${kind}:${resolve(file)}`;
  await sandbox.run(firstManager, ['skopeo', 'copy', '--quiet', '--dest-tls-verify=false', source, `docker://${name}`]);
  return name;
}
