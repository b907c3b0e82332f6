/** Pumps between a process in a container and a relay; whoever is slow makes the other side wait. */
import type { ExecStart, RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { taskId } from '#proto/model/ids.ts';
import type { MessageStream } from '#proto/stream.ts';
import type { ExecSession, Runtime } from '../runtime/runtime.ts';

/** Frames both ways, until either side closes. */
export type RelayStream = MessageStream<RelayFrame, RelayFrame>;

/** After the process ended, its output may take this long to reach its end: a child of it may keep it open for ever. */
const outputPatienceMs = 500;

/** Resolves when the process has ended and its exit code is sent, or when the user left it alone. Faults are the runtime's. */
export async function serveExec(
  parts: { readonly runtime: Runtime; readonly clock: Clock },
  start: ExecStart,
  stream: RelayStream,
): Promise<void> {
  // What comes before the process runs must wait for it.
  stream.pause();
  const { command, tty, stdin, columns, rows, env, user, workingDir } = start;
  const session = await parts.runtime.exec({
    id: taskId(start.taskId),
    command,
    tty,
    stdin,
    columns,
    rows,
    env,
    user,
    workingDir,
  });
  const outputs = [pump(session.stdout, 'stdout', stream)];
  if (session.stderr) outputs.push(pump(session.stderr, 'stderr', stream));
  const detached = Promise.withResolvers<undefined>();
  stream.listen({
    message: (frame) => {
      if (frame.body?.$case === 'detach') detached.resolve(undefined);
      else takeFrame(session, frame, stream);
    },
    drain: () => outputs.forEach((output) => void output.source.resume()),
    // The user went away: as a hang-up of their terminal.
    closed: () => {
      session.signal('SIGHUP');
      session.stdin?.end();
      outputs.forEach((output) => void output.source.resume());
    },
  });
  stream.resume();
  const exitCode = await Promise.race([session.exit, detached.promise]);
  // Its output goes on being read, so that it does not stand still; nobody gets it.
  if (exitCode === undefined) return;
  const patience = new AbortController();
  await Promise.race([
    Promise.all(outputs.map((output) => output.ended)),
    parts.clock.sleep(outputPatienceMs, patience.signal).catch(() => {}),
  ]);
  patience.abort();
  stream.send({ body: { $case: 'exitCode', value: exitCode } });
}

function takeFrame(session: ExecSession, frame: RelayFrame, stream: RelayStream): void {
  const body = frame.body;
  switch (body?.$case) {
    case 'stdin':
      if (session.stdin && !session.stdin.write(body.value)) {
        stream.pause();
        session.stdin.once('drain', () => stream.resume());
      }
      break;
    case 'stdinClosed':
      session.stdin?.end();
      break;
    case 'resize':
      session.resize(body.value.columns, body.value.rows);
      break;
    case 'signal':
      session.signal(body.value);
      break;
  }
}

function pump(
  source: NodeJS.ReadableStream,
  kind: 'stdout' | 'stderr',
  stream: RelayStream,
): { readonly source: NodeJS.ReadableStream; readonly ended: Promise<void> } {
  source.on('data', (chunk: Buffer) => {
    if (!stream.send({ body: { $case: kind, value: chunk } })) source.pause();
  });
  const ended = new Promise<void>((resolve) => {
    source.on('end', resolve);
    source.on('close', resolve);
    // A terminal's end is an error (EIO) to its reader.
    source.on('error', () => resolve());
  });
  return { source, ended };
}
