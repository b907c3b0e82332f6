/** The machine's own Node and its libraries, as volumes of a task: an image with busybox alone then runs a program of the test's. */
import { existsSync } from 'node:fs';

const libraries = ['/lib', '/lib64', '/usr/lib'].filter((path) => existsSync(path));

/** In Compose's short syntax; the program is `/node` in the container. */
export const machineNode: readonly string[] = [
  `${process.execPath}:/node:ro`,
  ...libraries.map((path) => `${path}:${path}:ro`),
];
