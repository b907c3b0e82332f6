/** `gantry exec`: this terminal, on a task's. */
import { spawnSync } from 'node:child_process';
import { ExecStart, type RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { ExecInput } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock, type Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { exitCodes } from './failure.ts';
import { type CommonOptions, withSession } from './session.ts';

/** Who has left does not wait for ever for the node to notice. */
const detachPatienceMs = 2_000;

interface ExecOptions extends CommonOptions {
  readonly interactive?: true;
  readonly tty?: true;
  readonly env?: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly detachKeys?: string;
}

/** The command's exit code. */
export function exec(options: ExecOptions, task: string, words: readonly string[]): Promise<number> {
  // Where options are passed on, so is the -- that ends them.
  const command = words[0] === '--' ? words.slice(1) : words;
  if (command.length === 0)
    throw new Fault('invalid', 'exec: no command was given', { remedy: `gantry exec ${task} -- COMMAND` });
  const tty = options.tty === true;
  const stdin = options.interactive === true;
  if (tty && stdin && !process.stdin.isTTY)
    throw new Fault('invalid', 'standard input is not a terminal', { remedy: 'leave -t out' });
  const detach = parseKeys(options.detachKeys ?? '');
  return withSession(options, async (session) => {
    const { columns = 80, rows = 24 } = process.stdout;
    const call = session.client.exec();
    const send = (input: ExecInput) => call.write(input);
    const frame = (body: RelayFrame['body']) => send({ body: { $case: 'frame', value: { body } } });
    const start = ExecStart.create({
      command: [...command],
      tty,
      stdin,
      columns,
      rows,
      env: [...(options.env ?? []), ...(tty && process.env.TERM ? [`TERM=${process.env.TERM}`] : [])],
      user: options.user ?? '',
      workingDir: options.workdir ?? '',
    });
    send({ body: { $case: 'open', value: { task, start } } });

    let detached = false;
    let letGo: Timer | undefined;
    const keys = detachDetector(detach);
    const onInput = (chunk: Buffer) => {
      if (detached) return;
      const { bytes, detached: leave } = tty ? keys(chunk) : { bytes: chunk, detached: false };
      const room = bytes.length === 0 || frame({ $case: 'stdin', value: bytes });
      if (leave) {
        detached = true;
        frame({ $case: 'detach', value: true });
        letGo = systemClock.after(detachPatienceMs, () => call.cancel());
      } else if (!room) {
        process.stdin.pause();
        call.once('drain', () => process.stdin.resume());
      }
    };
    const onEnd = () => void frame({ $case: 'stdinClosed', value: true });
    const onResize = () =>
      void frame({ $case: 'resize', value: { columns: process.stdout.columns, rows: process.stdout.rows } });
    const signals = ['SIGINT', 'SIGTERM', 'SIGQUIT'] as const;
    const onSignal = (signal: NodeJS.Signals) => void frame({ $case: 'signal', value: signal });
    if (stdin) {
      if (tty) rawTerminal();
      process.stdin.on('data', onInput).on('end', onEnd);
    }
    if (tty) process.stdout.on('resize', onResize);
    for (const signal of signals) process.on(signal, onSignal);
    let code: number | undefined;
    try {
      for await (const { body } of session.stream(call as never) as AsyncIterable<RelayFrame>) {
        if (body?.$case === 'stdout') await write(process.stdout, body.value);
        else if (body?.$case === 'stderr') await write(process.stderr, body.value);
        else if (body?.$case === 'exitCode') code = body.value;
        else if (body?.$case === 'error')
          throw new Fault('invalid', `${task}: ${body.value}`, {
            remedy: 'check the command and its path in the container',
          });
      }
    } catch (error) {
      if (!detached) throw error;
    } finally {
      letGo?.cancel();
      if (stdin && tty) process.stdin.setRawMode(false);
      process.stdin.off('data', onInput).off('end', onEnd).pause();
      process.stdout.off('resize', onResize);
      for (const signal of signals) process.off(signal, onSignal);
    }
    if (detached) {
      process.stderr.write('\ndetached; the command goes on\n');
      return exitCodes.ok;
    }
    if (code === undefined)
      throw new Fault('unavailable', `the connection to ${task} ended before the command did`, {
        remedy: 'see gantry ps',
      });
    return code;
  });
}

/** Node's raw mode still turns each line feed into two characters, which programs that draw on a terminal do not expect. */
function rawTerminal(): void {
  process.stdin.setRawMode(true);
  spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] });
}

async function write(out: NodeJS.WriteStream, bytes: Uint8Array): Promise<void> {
  if (!out.write(bytes)) await new Promise((resolve) => out.once('drain', resolve));
}

/** `ctrl-p,ctrl-q` as bytes. Faults: `invalid`. */
export function parseKeys(text: string): Buffer {
  const keys = text === '' ? [] : text.split(',');
  return Buffer.from(
    keys.map((key) => {
      const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
      if (control) return control.toUpperCase().charCodeAt(0) - 64;
      if (key.length === 1) return key.charCodeAt(0);
      throw new Fault('invalid', `"${key}" is not a key`, { remedy: 'write keys such as ctrl-p,ctrl-q' });
    }),
  );
}

/** Holds bytes back while they may be the keys that detach; what was something else after all is let through. */
export function detachDetector(
  keys: Buffer,
): (chunk: Buffer) => { readonly bytes: Buffer; readonly detached: boolean } {
  let matched = 0;
  return (chunk) => {
    const bytes: number[] = [];
    for (const byte of chunk) {
      if (keys.length > 0 && byte === keys[matched]) {
        matched++;
        if (matched === keys.length) return { bytes: Buffer.from(bytes), detached: true };
        continue;
      }
      bytes.push(...keys.subarray(0, matched));
      matched = byte === keys[0] ? 1 : 0;
      if (matched === 0) bytes.push(byte);
    }
    return { bytes: Buffer.from(bytes), detached: false };
  };
}
