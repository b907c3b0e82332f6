/** `gantry token`: what machines join with. */
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { ago, span, table } from './words.ts';

export function create(options: CommonOptions & { readonly for?: number; readonly uses?: number }): Promise<number> {
  return withSession(options, async (session) => {
    const { token, info } = await session.call(methods.createToken, {
      lifetimeMs: options.for ?? 0,
      uses: options.uses ?? 0,
    });
    if (session.json) session.printJson({ token, ...info });
    else {
      session.print(token);
      if (session.isTerminal)
        process.stderr.write(
          `valid for ${span((info?.expiresAtMs ?? 0) - systemClock.now())}; on the machine that joins: gantry agent --token TOKEN --control-plane ADDRESS:7400 --enrol ADDRESS:7401\n`,
        );
    }
    return 0;
  });
}

export function list(options: CommonOptions): Promise<number> {
  return withSession(options, async (session) => {
    const { tokens } = await session.call(methods.list, ListRequest.create({ kind: 'token' }));
    if (session.json) session.printJson(tokens);
    else if (tokens.length === 0) session.print('There are no tokens.');
    else {
      const now = systemClock.now();
      const rows = tokens.map(({ id, createdAtMs, expiresAtMs, usesLeft }) => [
        id,
        ago(createdAtMs, now),
        `in ${span(expiresAtMs - now)}`,
        usesLeft === 0 ? 'no limit' : String(usesLeft),
      ]);
      session.print(table(['TOKEN', 'CREATED', 'EXPIRES', 'USES LEFT'], rows, session.colours.bold));
    }
    return 0;
  });
}

export function revoke(options: CommonOptions, id: string): Promise<number> {
  return withSession(options, async (session) => {
    await session.call(methods.revokeToken, { id });
    if (!session.json) session.print(`revoked ${id}`);
    return 0;
  });
}
