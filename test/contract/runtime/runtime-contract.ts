/** What every Runtime does, whatever runs the containers: the suite that the fake and the real one both pass. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerExit, ContainerRequest, ExecRequest, Runtime } from '#node-agent/runtime/runtime.ts';
import { noControls } from '#proto/model/controls.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { newTaskId } from '#test/support/container-lab.ts';
import { eventually } from '#test/support/eventually.ts';

/** What the containers of the suite do. */
export type Role = 'stays' | 'exits-7' | 'ignores-term' | 'refused';

export interface RuntimeLab {
  /** A runtime over the same containers each time. */
  open(): Promise<Runtime>;
  request(role: Role): ContainerRequest;
  close(): Promise<void>;
}

export function execRequest(id: TaskId, command: readonly string[], fields: Partial<ExecRequest> = {}): ExecRequest {
  return { id, command, env: [], user: '', workingDir: '', tty: false, stdin: false, columns: 0, rows: 0, ...fields };
}

export function exitsOf(runtime: Runtime): Map<TaskId, ContainerExit[]> {
  const seen = new Map<TaskId, ContainerExit[]>();
  runtime.onExit((id, exit) => seen.set(id, [...(seen.get(id) ?? []), exit]));
  return seen;
}

export async function stateOf(runtime: Runtime, id: TaskId) {
  return (await runtime.list()).find((state) => state.id === id);
}

export function runtimeContract(name: string, openLab: () => Promise<RuntimeLab>): void {
  describe(`${name} as a Runtime`, () => {
    let lab: RuntimeLab;
    let runtime: Runtime;
    beforeAll(async () => {
      lab = await openLab();
      runtime = await lab.open();
    });
    afterAll(() => lab.close());

    const running = async (role: Role) => {
      const request = lab.request(role);
      await runtime.create(request);
      await runtime.start(request.id);
      return request.id;
    };

    it('creates a container that waits, starts it, and tells its exit code once', async () => {
      const exits = exitsOf(runtime);
      const request = lab.request('exits-7');
      const { pid } = await runtime.create(request);
      expect(pid).toBeGreaterThan(0);
      expect(await stateOf(runtime, request.id)).toMatchObject({
        status: 'created',
        pid,
        annotations: request.annotations,
      });
      await runtime.start(request.id);
      await eventually(() => exits.has(request.id));
      expect(exits.get(request.id)).toMatchObject([{ exitCode: 7, oomKilled: false, lost: false }]);
      expect(await stateOf(runtime, request.id)).toMatchObject({ status: 'exited', exit: { exitCode: 7 } });
      await runtime.delete(request.id);
      expect(await stateOf(runtime, request.id)).toBeUndefined();
    });

    it('takes every call twice', async () => {
      const request = lab.request('stays');
      const first = await runtime.create(request);
      expect(await runtime.create(request)).toEqual(first);
      await runtime.start(request.id);
      await runtime.start(request.id);
      expect((await stateOf(runtime, request.id))?.status).toBe('running');
      await runtime.kill(request.id, 'SIGKILL');
      await runtime.kill(request.id, '9');
      await eventually(async () => (await stateOf(runtime, request.id))?.status === 'exited');
      await runtime.kill(request.id, 'SIGTERM');
      await runtime.delete(request.id);
      await runtime.delete(request.id);
      await runtime.kill(request.id, 'KILL');
    });

    it('ends what still runs when it is deleted', async () => {
      const exits = exitsOf(runtime);
      const id = await running('ignores-term');
      await runtime.delete(id);
      expect(exits.get(id)).toMatchObject([{ exitCode: 137 }]);
      expect(await stateOf(runtime, id)).toBeUndefined();
    });

    it('deletes what was created and never started', async () => {
      const request = lab.request('stays');
      await runtime.create(request);
      await runtime.delete(request.id);
      expect(await stateOf(runtime, request.id)).toBeUndefined();
    });

    it('sends the signal it is told, which a process may ignore', async () => {
      const stubborn = await running('ignores-term');
      const id = await running('stays');
      await eventually(async () => {
        await runtime.kill(id, 'SIGTERM');
        return (await stateOf(runtime, id))?.status === 'exited';
      });
      await runtime.kill(stubborn, 'TERM');
      expect((await stateOf(runtime, stubborn))?.status).toBe('running');
      await runtime.delete(id);
      await runtime.delete(stubborn);
    });

    it('refuses a signal that is none', async () => {
      const id = await running('stays');
      await expect(runtime.kill(id, 'SIGNONSENSE')).rejects.toMatchObject({ code: 'invalid' });
      await runtime.delete(id);
    });

    it('says what is wrong with a container that cannot be created, and leaves nothing of it', async () => {
      const request = lab.request('refused');
      await expect(runtime.create(request)).rejects.toMatchObject({
        code: 'invalid',
        message: expect.stringMatching(/not.*found|no such file/i),
      });
      expect(await stateOf(runtime, request.id)).toBeUndefined();
    });

    it('does not know what was never created', async () => {
      const id = newTaskId();
      await expect(runtime.start(id)).rejects.toMatchObject({ code: 'not-found' });
      await expect(runtime.stats(id)).rejects.toMatchObject({ code: 'not-found' });
      await expect(runtime.exec(execRequest(id, ['true']))).rejects.toMatchObject({ code: 'not-found' });
      await expect(runtime.reopenLog(id)).rejects.toMatchObject({ code: 'not-found' });
    });

    it('refuses to start what ended before its start, and to exec in what has ended', async () => {
      const request = lab.request('stays');
      await runtime.create(request);
      await runtime.kill(request.id, 'SIGKILL');
      await eventually(async () => (await stateOf(runtime, request.id))?.status === 'exited');
      await expect(runtime.start(request.id)).rejects.toMatchObject({ code: 'precondition' });
      await expect(runtime.exec(execRequest(request.id, ['true']))).rejects.toMatchObject({ code: 'precondition' });
      await runtime.delete(request.id);
    });

    it('adopts after a restart of the agent what runs, and tells the exits that happened in between', async () => {
      const stays = await running('stays');
      const created = lab.request('stays');
      await runtime.create(created);
      const ending = lab.request('exits-7');
      await runtime.create(ending);
      const before = await stateOf(runtime, stays);
      const exiting = runtime.start(ending.id);
      await exiting;
      await runtime.close();
      runtime = await lab.open();
      const exits = exitsOf(runtime);
      expect(await stateOf(runtime, stays)).toEqual(before);
      expect((await stateOf(runtime, created.id))?.status).toBe('created');
      await eventually(() => exits.has(ending.id));
      expect(exits.get(ending.id)).toMatchObject([{ exitCode: 7, lost: false }]);
      await runtime.start(created.id);
      expect((await stateOf(runtime, created.id))?.status).toBe('running');
      await runtime.kill(stays, 'SIGKILL');
      await eventually(() => exits.has(stays));
      expect(exits.get(stays)).toMatchObject([{ exitCode: 137, lost: false }]);
      for (const id of [stays, created.id, ending.id]) await runtime.delete(id);
      expect(await runtime.list()).toEqual([]);
    });

    it('measures what runs, and changes its limits', async () => {
      const id = await running('stays');
      const limits = { cpuMillis: 500, memoryBytes: 64 << 20, pids: 50, generic: [] };
      await runtime.updateLimits(id, { limits, controls: noControls });
      expect((await stateOf(runtime, id))?.settings).toEqual({ limits, controls: noControls });
      const stats = await runtime.stats(id);
      expect(stats.memoryLimitBytes).toBe(64 << 20);
      expect(stats.pids).toBeGreaterThan(0);
      await runtime.delete(id);
    });

    it('runs a command in a container and tells its exit code', async () => {
      const id = await running('stays');
      const session = await runtime.exec(execRequest(id, ['sh', '-c', 'echo out; echo err >&2; exit 5']));
      let out = '';
      let err = '';
      session.stdout.on('data', (chunk) => (out += chunk));
      session.stderr!.on('data', (chunk) => (err += chunk));
      expect(await session.exit).toBe(5);
      await eventually(() => out === 'out\n' && err === 'err\n');
      await runtime.delete(id);
    });
  });
}
