/** `gantry events`. */
import { untilInterrupt } from './interrupt.ts';
import { type CommonOptions, withSession } from './session.ts';
import { clockTime, oneLine } from './words.ts';

interface EventsOptions extends CommonOptions {
  readonly follow?: true;
  readonly since?: number;
}

export function events(options: EventsOptions): Promise<number> {
  return withSession(options, async (session) => {
    const { colours } = session;
    const stream = session.client.events({ follow: options.follow === true, sinceMs: options.since ?? 0 });
    return await untilInterrupt(stream, async () => {
      for await (const event of session.stream(stream)) {
        if (session.json) {
          session.print(JSON.stringify(event));
          continue;
        }
        const where = event.node && event.node !== event.name ? ` on ${event.node}` : '';
        const message = event.message && event.message !== event.action ? `: ${oneLine(event.message)}` : '';
        session.print(
          `${colours.dim(clockTime(event.atMs))}  ${event.kind} ${colours.bold(event.name)} ${event.action}${where}${message}`,
        );
      }
    });
  });
}
