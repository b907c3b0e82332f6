/** A process in a running container: `runc exec` with pipes, or with a terminal of ours. */
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { ReadStream } from 'node:tty';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { specText } from './bundle.ts';
import { capabilities } from './capabilities.ts';
import { waitFor } from './children.ts';
import { toolEnvironment } from './conmon.ts';
import { CallError, openTerminal, openUnder, pidfdOpen, pidfdSignal, pipe, resizeTerminal, spawn } from './libc.ts';
import type { OciProcess } from './oci-spec.ts';
import { defaultPath, processEnv, workingDirectory } from './process-args.ts';
import { readInRoot } from './rootfs.ts';
import type { ExecRequest, ExecSession } from './runtime.ts';
import { signalNumber } from './signals.ts';
import { resolveUser } from './user.ts';

export interface ExecLaunch {
  readonly id: string;
  readonly runtimePath: string;
  readonly runtimeRoot: string;
  readonly bundle: string;
  readonly process: OciProcess;
  /** Of the container's first process: its view of the files. */
  readonly containerPid: number;
  readonly stdin: boolean;
  readonly columns: number;
  readonly rows: number;
}

const signals = osConstants.signals;
const signalPatienceMs = 5_000;

/** Starts it. Faults: `unavailable` where the runtime cannot be run. What the command does wrong is in the exit code. */
export function startExec(launch: ExecLaunch, clock: Clock): ExecSession {
  const directory = mkdtempSync(join(launch.bundle, 'exec-'));
  const files = {
    process: join(directory, 'process.json'),
    pid: join(directory, 'pid'),
    log: join(directory, 'log'),
  };
  writeFileSync(files.process, specText(launch.process), { mode: 0o600 });
  const args = [
    ...['--root', launch.runtimeRoot, '--log', files.log, '--log-format', 'json'],
    ...['exec', '--process', files.process, '--pid-file', files.pid, launch.id],
  ];
  const streams = launch.process.terminal ? terminalStreams(launch) : pipeStreams(launch.stdin);
  let pid: number;
  try {
    pid = spawn({ path: launch.runtimePath, args, env: toolEnvironment, cwd: launch.bundle, fds: streams.child });
  } catch (error) {
    streams.abandon();
    rmSync(directory, { recursive: true, force: true });
    throw new Fault('unavailable', `${launch.runtimePath} could not be started: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    for (const fd of new Set(streams.child)) closeSync(fd);
  }
  let ended = false;
  const exit = waitFor(pid).then((status) => {
    ended = true;
    try {
      return exitCodeOf(status, launch, files.log, existsSync(files.pid));
    } finally {
      rmSync(directory, { recursive: true, force: true });
      streams.ended();
    }
  });
  // The command can be heard of before the runtime has written down which process it is.
  const deliver = (number: number, until: number) => {
    if (ended || signalExec(pid, files.pid, number)) return;
    if (clock.monotonic() < until) clock.after(5, () => deliver(number, until));
    else if (number === signals.SIGKILL) process.kill(pid, 'SIGKILL');
  };
  const { stdin, stdout, stderr } = streams.open();
  return {
    stdin,
    stdout,
    stderr,
    exit,
    resize(columns, rows) {
      if (ended || !streams.resize) return;
      streams.resize(columns, rows);
      process.kill(pid, 'SIGWINCH');
    },
    signal(signal) {
      const number = signalNumber(signal);
      deliver(number, clock.monotonic() + signalPatienceMs);
    },
  };
}

/** Signals the command itself, if it is still the runtime's child: some signals the runtime could not pass on. False: not known yet. */
function signalExec(runtimePid: number, pidFile: string, number: number): boolean {
  const text = existsSync(pidFile) ? readFileSync(pidFile, 'utf8').trim() : '';
  if (!/^\d+$/.test(text)) return false;
  const pidfd = pidfdOpen(Number(text));
  if (pidfd === undefined) return true;
  try {
    if (parentOf(Number(text)) === runtimePid) pidfdSignal(pidfd, number);
  } finally {
    closeSync(pidfd);
  }
  return true;
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

/** The command's own status; where the runtime never started it, 127 or 126 as a shell would say. */
function exitCodeOf(status: number, launch: ExecLaunch, log: string, started: boolean): number {
  const complained = existsSync(log) && statSync(log).size > 0;
  if (started && !complained) return status;
  if (!complained || status === 0) return status;
  return findsCommand(launch) ? 126 : 127;
}

/** The command exists in the container as a file; looked up there as execvp(3) does. */
function findsCommand(launch: ExecLaunch): boolean {
  const [command = ''] = launch.process.args;
  const path = launch.process.env.find((entry) => entry.startsWith('PATH='))?.slice(5) ?? defaultPath;
  const candidates = command.includes('/')
    ? [command.startsWith('/') ? command : `${launch.process.cwd}/${command}`]
    : path.split(':').map((directory) => `${directory || launch.process.cwd}/${command}`);
  let root: number;
  try {
    root = openSync(`/proc/${launch.containerPid}/root`, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch {
    return false;
  }
  try {
    return candidates.some((candidate) => {
      try {
        closeSync(openUnder(root, candidate, 0o10000000));
        return true;
      } catch (error) {
        if (error instanceof CallError) return false;
        throw error;
      }
    });
  } finally {
    closeSync(root);
  }
}

interface Streams {
  /** Descriptors 0, 1, 2 of the child; closed here once it runs. */
  readonly child: readonly number[];
  open(): Pick<ExecSession, 'stdin' | 'stdout' | 'stderr'>;
  readonly resize?: (columns: number, rows: number) => void;
  /** The process is gone: nobody reads what is still written to it. */
  ended(): void;
  abandon(): void;
}

function pipeStreams(withStdin: boolean): Streams {
  const input = withStdin ? pipe() : undefined;
  const output = pipe();
  const errors = pipe();
  const childInput = input?.read ?? openSync('/dev/null', constants.O_RDONLY);
  const ours = [output.read, errors.read, ...(input ? [input.write] : [])];
  let stdin: Socket | undefined;
  return {
    child: [childInput, output.write, errors.write],
    open() {
      stdin = input ? new Socket({ fd: input.write, readable: false, writable: true }) : undefined;
      // The command may end without reading all of it.
      stdin?.on('error', () => stdin?.destroy());
      return {
        stdin,
        stdout: new Socket({ fd: output.read, readable: true, writable: false }),
        stderr: new Socket({ fd: errors.read, readable: true, writable: false }),
      };
    },
    ended: () => stdin?.destroy(),
    abandon() {
      for (const fd of ours) closeSync(fd);
    },
  };
}

function terminalStreams(launch: ExecLaunch): Streams {
  const { master, slave } = openTerminal(launch.columns || 80, launch.rows || 24);
  let open = true;
  return {
    child: [slave, slave, slave],
    open() {
      const stream = new ReadStream(master);
      // EIO is how a terminal says that its other side is closed.
      stream.on('error', () => stream.destroy());
      stream.on('close', () => {
        open = false;
      });
      return { stdin: launch.stdin ? stream : undefined, stdout: stream, stderr: undefined };
    },
    resize(columns, rows) {
      if (open) resizeTerminal(master, columns, rows);
    },
    ended: () => {},
    abandon: () => closeSync(master),
  };
}

/** The command's process: the container's own, but for what is asked. `pid`: whose view of the files has the users. */
/** `ofHost`: capabilities that this host can give. */
export function execProcess(request: ExecRequest, own: OciProcess, pid: number, ofHost: readonly string[]): OciProcess {
  const root = `/proc/${pid}/root`;
  const user = request.user
    ? resolveUser(request.user, readInRoot(root, '/etc/passwd'), readInRoot(root, '/etc/group'))
    : undefined;
  return {
    ...own,
    ...(request.privileged ? unlimited(ofHost) : {}),
    terminal: request.tty,
    // Else the command could ask for the size before the runtime has passed it on.
    ...(request.tty ? { consoleSize: { width: request.columns || 80, height: request.rows || 24 } } : {}),
    args: request.command,
    user: user ? { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids } : own.user,
    env: processEnv([own.env, user ? [`HOME=${user.home}`] : [], request.env], {
      hostname: '',
      home: '/',
      tty: request.tty,
    }),
    cwd: workingDirectory(request.workingDir, own.cwd),
  };
}

function unlimited(ofHost: readonly string[]): Pick<OciProcess, 'capabilities' | 'noNewPrivileges'> {
  const held = capabilities({ add: [], drop: [], privileged: true }, ofHost);
  return { capabilities: { bounding: held, effective: held, permitted: held }, noNewPrivileges: false };
}
