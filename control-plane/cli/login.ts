/** `gantry login` and `logout`: a registry's user and password, for the nodes; the password is never an argument. */
import { Fault } from '#proto/kernel/errors.ts';
import { ask } from './ask.ts';
import { type CommonOptions, methods, withSession } from './session.ts';

interface LoginOptions extends CommonOptions {
  readonly username?: string;
  readonly passwordStdin?: true;
}

export function login(options: LoginOptions, registry: string): Promise<number> {
  return withSession(options, async (session) => {
    if ((!options.username || !options.passwordStdin) && !process.stdin.isTTY)
      throw new Fault('invalid', 'there is no terminal to ask for a user name and a password', {
        remedy: 'use --username NAME --password-stdin',
      });
    const username = options.username ?? (await ask('User name: ', false));
    const password = options.passwordStdin ? (await readAll()).replace(/\r?\n$/, '') : await ask('Password: ', true);
    await session.call(methods.putCredential, { registry, username, password });
    if (!session.json) session.print(`the nodes may pull from ${registry} as ${username}`);
    return 0;
  });
}

/** Images that are on nodes already stay there. */
export function logout(options: CommonOptions, registry: string): Promise<number> {
  return withSession(options, async (session) => {
    await session.call(methods.removeCredential, { registry });
    if (!session.json) session.print(`forgot the login for ${registry}`);
    return 0;
  });
}

async function readAll(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
