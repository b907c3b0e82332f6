/** Commands run in a container, with pipes and with terminals. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ExecRequest, ExecSession, Runtime } from '#node-agent/runtime/runtime.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { type ContainerLab, containerLab, shellRequest } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';
import { execRequest } from './runtime-contract.ts';

describe('an exec in a container of conmon with runc', () => {
  let lab: ContainerLab;
  let runtime: Runtime;
  let id: TaskId;
  beforeAll(async () => {
    lab = await containerLab();
    runtime = await lab.open();
    const request = shellRequest(lab, 'sleep 10000', { env: ['COLOUR=blue'] });
    id = request.id;
    await runtime.create(request);
    await runtime.start(id);
  });
  afterAll(() => lab.close());

  const finished = async (session: ExecSession) => {
    let out = '';
    let err = '';
    session.stdout.on('data', (chunk) => (out += chunk));
    session.stderr?.on('data', (chunk) => (err += chunk));
    const closed = new Promise((resolve) => session.stdout.once('close', resolve));
    const exitCode = await session.exit;
    await closed;
    return { out, err, exitCode };
  };
  const exec = async (command: readonly string[], fields: Partial<ExecRequest> = {}) =>
    finished(await runtime.exec(execRequest(id, command, fields)));

  it('has the environment, user and directory asked for, on top of the container’s own', async () => {
    const script = 'echo $COLOUR $SHAPE $HOME; id -u; pwd';
    const { out } = await exec(['sh', '-c', script], { env: ['SHAPE=round'], user: 'app', workingDir: '/tmp' });
    expect(out).toBe('blue round /home/app\n1234\n/tmp\n');
  });

  it('gives 127 for a command that is not there and 126 for one that cannot be executed', async () => {
    expect((await exec(['nothing-of-the-kind'])).exitCode).toBe(127);
    expect((await exec(['/etc/passwd'])).exitCode).toBe(126);
    expect((await exec(['sh', '-c', 'exit 255'])).exitCode).toBe(255);
  });

  it('takes input until it ends', async () => {
    const session = await runtime.exec(execRequest(id, ['wc', '-c'], { stdin: true }));
    const result = finished(session);
    session.stdin!.write('x'.repeat(100_000));
    session.stdin!.end();
    expect((await result).out.trim()).toBe('100000');
  });

  it('gives a large output whole', async () => {
    const { out } = await exec(['sh', '-c', 'head -c 3000000 /dev/zero | tr "\\0" x']);
    expect(out.length).toBe(3_000_000);
  });

  it('has a terminal that can be resized, and gives the exit code through it', async () => {
    const session = await runtime.exec(execRequest(id, ['sh'], { tty: true, stdin: true, columns: 100, rows: 30 }));
    let out = '';
    session.stdout.on('data', (chunk) => (out += chunk));
    session.stdin!.write('stty size; tty\n');
    await eventually(() => out.includes('30 100') && out.includes('/dev/pts/'));
    session.resize(120, 40);
    await eventually(() => {
      session.stdin!.write('stty size\n');
      return out.includes('40 120');
    });
    session.stdin!.write('exit 9\n');
    expect(await session.exit).toBe(9);
  });

  it('can be signalled, also with what cannot be caught', async () => {
    for (const [signal, code] of [
      ['SIGTERM', 143],
      ['SIGKILL', 137],
    ] as const) {
      const session = await runtime.exec(execRequest(id, ['sh', '-c', 'echo ready; exec sleep 1000']));
      let out = '';
      session.stdout.on('data', (chunk) => (out += chunk));
      await eventually(() => out.includes('ready'));
      session.signal(signal);
      expect(await session.exit).toBe(code);
    }
    expect((await exec(['ps'])).out).not.toContain('sleep 1000\n');
  });

  it('has no more rights than the container', async () => {
    const { out } = await exec([
      'sh',
      '-c',
      'mount -t tmpfs none /tmp || grep -E "^(CapEff|NoNewPrivs|Seccomp:)" /proc/self/status',
    ]);
    expect(out.replace(/\s+/g, ' ')).toBe('CapEff: 00000000000405fb NoNewPrivs: 1 Seccomp: 2 ');
  });
});
