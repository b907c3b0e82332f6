/** `gantry logs`: lines of all replicas in the order of time, each with its task in front. */
import type { LogLine } from '#proto/gen/gantry/v1/operator.ts';
import { taskName } from '#proto/model/ids.ts';
import { untilInterrupt } from './interrupt.ts';
import { type CommonOptions, type Session, withSession } from './session.ts';
import { width } from './words.ts';

interface LogsOptions extends CommonOptions {
  readonly follow?: true;
  readonly tail?: number;
  readonly since?: number;
  readonly timestamps?: true;
  readonly prefix?: boolean;
}

export function logs(options: LogsOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const stream = session.client.logs({
      name,
      follow: options.follow === true,
      tail: options.tail ?? 0,
      sinceMs: options.since ?? 0,
    });
    const format = session.json ? jsonLine : lineFormat(session, options);
    return await untilInterrupt(stream, async () => {
      for await (const line of session.stream(stream)) {
        const out = line.stream === 'stdout' || session.json ? process.stdout : process.stderr;
        if (!out.write(format(line))) await new Promise((resolve) => out.once('drain', resolve));
      }
    });
  });
}

function jsonLine(line: LogLine): string {
  return `${JSON.stringify({ ...line, task: nameOf(line), text: Buffer.from(line.text).toString() })}\n`;
}

function nameOf({ service, slot, node }: LogLine): string {
  return taskName({ serviceName: service, slot, nodeName: node });
}

function lineFormat({ colours }: Session, options: LogsOptions): (line: LogLine) => Uint8Array {
  const palette = [
    colours.cyan,
    colours.yellow,
    colours.green,
    colours.magenta,
    colours.blue,
    colours.cyanBright,
    colours.yellowBright,
    colours.greenBright,
  ];
  const colourOf = new Map<string, (text: string) => string>();
  let longest = 0;
  return (line) => {
    const task = `${nameOf(line)}@${line.node}`;
    longest = Math.max(longest, width(task));
    let colour = colourOf.get(line.taskId);
    if (!colour) {
      colour = palette[colourOf.size % palette.length]!;
      colourOf.set(line.taskId, colour);
    }
    const stamp = options.timestamps ? `${new Date(line.atUs / 1_000).toISOString()} ` : '';
    const prefix = options.prefix === false ? '' : `${colour(`${task}${' '.repeat(longest - width(task))} |`)} `;
    const text = line.stream === 'gap' ? Buffer.from(colours.dim(`… ${Buffer.from(line.text)}`)) : line.text;
    return Buffer.concat([Buffer.from(stamp + prefix), text, Buffer.from('\n')]);
  };
}
