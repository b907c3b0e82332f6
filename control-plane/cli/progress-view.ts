/** Progress of services: one line each, redrawn on a terminal, printed when it changes elsewhere. */
import { ProgressRequest, type ServiceProgress } from '#proto/gen/gantry/v1/operator.ts';
import { exitCodes } from './failure.ts';
import type { Session } from './session.ts';
import { oneLine, width } from './words.ts';

/** Waits until the services, by id, have all converged or one has failed; the exit code. A service that is gone has no other name than ours. */
export async function watchProgress(
  session: Session,
  names: ReadonlyMap<string, string>,
  wish: { readonly revision: number; readonly rollback?: boolean },
): Promise<number> {
  if (names.size === 0) return exitCodes.ok;
  const stream = session.client.progress(ProgressRequest.create({ services: [...names.keys()], ...wish }));
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
    stream.cancel();
  };
  process.once('SIGINT', interrupt);
  const view = session.json ? undefined : progressView(session);
  let last: readonly ServiceProgress[] = [];
  try {
    for await (const { services } of session.stream(stream)) {
      last = services.map((service) => ({ ...service, name: names.get(service.serviceId) ?? service.name }));
      view?.show(last);
    }
  } catch (error) {
    if (!interrupted) throw error;
    process.stderr.write('\nno longer watching; the change goes on: see gantry services\n');
    return exitCodes.interrupted;
  } finally {
    process.off('SIGINT', interrupt);
  }
  if (session.json) session.printJson({ services: last });
  if (last.every(({ outcome }) => outcome !== 'failed')) return exitCodes.ok;
  if (last.some(({ outcome }) => outcome === 'progressing'))
    process.stderr.write('no longer watching, as one has failed; the others go on: see gantry services\n');
  return exitCodes.failed;
}

function progressView(session: Session) {
  const shown = new Map<string, string>();
  let drawn = 0;
  return {
    show(services: readonly ServiceProgress[]) {
      const longest = Math.max(...services.map(({ name }) => width(name)));
      const lines = services.map((service) => lineOf(session, service, longest));
      if (session.isTerminal) {
        const columns = process.stdout.columns || 80;
        process.stdout.write(
          `${drawn > 0 ? `\x1b[${drawn}A` : ''}${lines.map((line) => `\x1b[2K${clipped(line, columns)}\n`).join('')}`,
        );
        drawn = lines.length;
      } else
        services.forEach(({ name }, index) => {
          if (shown.get(name) !== lines[index]) session.print(lines[index]!);
          shown.set(name, lines[index]!);
        });
    },
  };
}

function lineOf(
  { colours }: Session,
  { name, outcome, running, wanted, message }: ServiceProgress,
  longest: number,
): string {
  const mark =
    { converged: colours.green('✓'), held: colours.yellow('‖'), failed: colours.red('✗') }[outcome] ??
    colours.yellow('…');
  const count = message === 'removed' || wanted === 0 ? '' : ` ${running}/${wanted}`;
  const words = oneLine(outcome === 'converged' ? message || 'running' : message);
  return `${mark} ${name}${' '.repeat(longest - width(name))} ${count} ${outcome === 'failed' ? colours.red(words) : words}`.trimEnd();
}

/** A line that wraps cannot be redrawn. */
function clipped(line: string, columns: number): string {
  return width(line) <= columns ? line : `${[...line].slice(0, columns - 1).join('')}…\x1b[0m`;
}
