/** `gantry ca`: the cluster's certificate authority, and its rotation. */
import type { AuthorityStatus } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';
import { ago, span, table } from './words.ts';

interface RotateOptions extends CommonOptions {
  readonly finish?: true;
  readonly detach?: true;
}

const lookEveryMs = 500;
/** No manager answers for so long: that is no replica that starts its etcd again. */
const patienceMs = 60_000;

/**
 * Begins one, or has it wait no longer, and says how far it is until only the new CA is trusted; interrupted, the rotation goes on.
 * Faults: those of a call, when no manager has answered for a minute.
 */
export function rotate(options: RotateOptions): Promise<number> {
  return withSession(options, async (session) => {
    let status = await session.call(methods.rotateAuthority, { finish: options.finish === true });
    let answeredAt = systemClock.monotonic();
    for (let said = ''; !options.detach && status.phase !== 'settled'; ) {
      const words = progress(status);
      if (words !== said && !session.json) session.print(words);
      said = words;
      await systemClock.sleep(lookEveryMs);
      // Replicas take turns in starting their etcd again: one that does not answer will.
      const answer = await session.call(methods.authority, {}).catch((error: unknown) => {
        if (systemClock.monotonic() - answeredAt > patienceMs) throw error;
      });
      if (!answer) continue;
      status = answer;
      answeredAt = systemClock.monotonic();
    }
    if (session.json) session.printJson(status);
    else if (status.phase === 'settled') session.print('only the new CA is trusted');
    else session.print('it goes on by itself: see gantry ca status');
    return exitCodes.ok;
  });
}

export function status(options: CommonOptions): Promise<number> {
  return withSession(options, async (session) => {
    const authority = await session.call(methods.authority, {});
    if (session.json) session.printJson(authority);
    else print(session, authority);
    return exitCodes.ok;
  });
}

function print(
  { print, colours }: Session,
  { phase, roots, rotatedAtMs, expiresAtMs, members }: AuthorityStatus,
): void {
  const now = systemClock.now();
  const [newest, ...older] = roots;
  print(`${colours.bold('CA')}  ${newest}, for another ${span(expiresAtMs - now)}`);
  for (const hash of older) print(`    ${hash} is trusted too, until all have a certificate of the new one`);
  print(
    rotatedAtMs === 0
      ? 'never rotated'
      : `rotated ${ago(rotatedAtMs, now)}${phase === 'settled' ? '' : `, and under way: ${phase}`}`,
  );
  const rows = members.map(({ kind, name, done, message }) => [
    done ? colours.green('✓') : colours.yellow('…'),
    kind,
    name,
    message,
  ]);
  print(table(['', 'KIND', 'NAME', 'WAITS FOR'], rows, colours.bold));
}

function progress({ phase, members }: AuthorityStatus): string {
  const waiting = members.filter(({ done }) => !done);
  if (phase === 'dropping')
    return `all have certificates of the new CA; ${waiting.length === 1 ? 'one manager drops' : `${waiting.length} managers drop`} the old one`;
  const names = waiting.slice(0, 5).map(({ kind, name, message }) => `  ${kind} ${name} ${message}`);
  const more = waiting.length > names.length ? [`  and ${waiting.length - names.length} more`] : [];
  return [
    `${members.length - waiting.length} of ${members.length} have certificates of the new CA`,
    ...names,
    ...more,
  ].join('\n');
}
