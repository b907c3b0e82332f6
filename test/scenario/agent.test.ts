/** An agent against dispatch, both as in production, over a wire in memory: stories of single nodes. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Transport } from '#node-agent/transport.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import { containerSpec, defaults } from '#proto/model/service.ts';
import { AgentLab, type LabHost } from '#test/support/agent-lab.ts';
import { idOf, nothingHeld } from '#test/support/builders.ts';
import { attachment } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { fakeImage } from '#test/support/fake-images.ts';

let lab: AgentLab;
afterEach(() => lab.close());

async function oneHost(template: Parameters<typeof AgentLab.start>[1] = {}): Promise<LabHost> {
  lab = await AgentLab.start(['h1'], template);
  const host = lab.hosts[0]!;
  await host.start();
  return host;
}

/** The host's transport, counting how often it was used. */
function countDials(host: LabHost): { transport: Transport; count: () => number } {
  const inner = lab.net.transportOf(host.id);
  let count = 0;
  const connect = (address: string) => {
    count++;
    return inner.connect(address);
  };
  return { transport: { ...inner, connect }, count: () => count };
}

const reaches = (id: TaskId, state: string) =>
  eventually(() => {
    expect(lab.task(id).state).toBe(state);
    return true;
  });

describe('a task on a node', () => {
  it('is prepared, started and reported running with its process and image', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const task = lab.task(id);
    expect(task.pid).toBe(host.runtime.containers.get(id)!.state.pid);
    expect(task.startedAtMs).toBeGreaterThan(0);
    expect(task.imageDigest).toMatch(/^sha256:/);
    expect(host.network.attachments.has(id)).toBe(true);
    expect(host.runtime.containers.get(id)!.request!.network).toEqual({ path: `/run/gantry/netns/${id}` });
    // Later tasks of the revision use what the tag meant to the first.
    await eventually(() => lab.store.snapshot.revisionOf(task.serviceId, 1)!.imageDigest === task.imageDigest);
  });

  it('is told to every node as a backend of its service, and no longer when it ends', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await eventually(() => host.network.wanted?.endpoints[0]?.backends.some((backend) => backend.taskId === id));
    expect(host.network.wanted!.attachments.map((one) => one.taskId)).toEqual([id]);
    host.runtime.exit(id, 1);
    await eventually(() => host.network.wanted?.endpoints[0]?.backends.length === 0);
    expect(host.network.wanted!.attachments).toEqual([]);
  });

  it('is stopped with its signal, reported shutdown, and leaves nothing', async () => {
    const host = await oneHost({ container: containerSpec('web:1', { stopSignal: 'SIGQUIT' }) });
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await lab.edit(id, { wanted: 'shutdown' });
    await reaches(id, 'shutdown');
    expect(host.runtime.signals).toEqual([{ id, signal: 'SIGQUIT' }]);
    await eventually(() => host.runtime.containers.size === 0 && host.network.attachments.size === 0);
    expect(await host.images.rootfs()).toEqual([]);
    // Its record goes too: it is terminal in the store, so no longer assigned.
    await eventually(() => host.agent!.worker.statuses().length === 0);
  });

  it('F15: is killed when it outlives its grace period', async () => {
    const host = await oneHost({ container: containerSpec('web:1', { stopGracePeriodMs: 50 }) });
    const id = await lab.assign(host, 't1');
    host.runtime.stubborn.add(id);
    await reaches(id, 'running');
    await lab.edit(id, { wanted: 'shutdown' });
    await reaches(id, 'shutdown');
    expect(host.runtime.signals.map(({ signal }) => signal)).toEqual(['SIGTERM', 'SIGKILL']);
    expect(lab.task(id).exitCode).toBe(137);
  });

  it('that exits by itself is complete or failed, with its exit code', async () => {
    const host = await oneHost();
    const good = await lab.assign(host, 'good');
    const bad = await lab.assign(host, 'bad');
    const big = await lab.assign(host, 'big');
    for (const id of [good, bad, big]) await reaches(id, 'running');
    host.runtime.exit(good, 0);
    host.runtime.exit(bad, 3);
    host.runtime.exit(big, 137, { oomKilled: true });
    await reaches(good, 'complete');
    await reaches(bad, 'failed');
    await reaches(big, 'failed');
    expect(lab.task(bad)).toMatchObject({ exitCode: 3, error: 'exit code 3' });
    expect(lab.task(big)).toMatchObject({ oomKilled: true, error: expect.stringContaining('memory limit') });
  });

  it('wanted ready is prepared and waits until it is wanted running', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1', { wanted: 'ready' });
    await reaches(id, 'ready');
    expect(host.runtime.containers.get(id)!.state.status).toBe('created');
    await lab.edit(id, { wanted: 'running' });
    await reaches(id, 'running');
  });

  it('does not start before its restart delay is over', async () => {
    const host = await oneHost();
    const startAfterMs = lab.clock.now() + 300;
    const id = await lab.assign(host, 't1', { startAfterMs });
    await reaches(id, 'running');
    expect(lab.task(id).startedAtMs).toBeGreaterThanOrEqual(startAfterMs);
  });

  it('whose image does not exist is rejected in words', async () => {
    lab = await AgentLab.start(['h1']);
    (lab.registry as { any: boolean }).any = false;
    const host = lab.hosts[0]!;
    await host.start();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'rejected');
    expect(lab.task(id).error).toMatch(/image not available: .* has no .*web:1/);
  });

  it('shows why it waits while a registry is away, and goes on when it is back', async () => {
    lab = await AgentLab.start(['h1']);
    lab.registry.failure = new Fault('unavailable', 'registry r:5000 is not reachable');
    const host = lab.hosts[0]!;
    await host.start();
    const id = await lab.assign(host, 't1');
    await eventually(() => /registry r:5000/.test(lab.task(id).error));
    expect(lab.task(id)).toMatchObject({ state: 'preparing', message: expect.stringMatching(/trying again/) });
    lab.registry.failure = undefined;
    await reaches(id, 'running');
    expect(lab.task(id).error).toBe('');
  });

  it('that cannot be started is failed with the words of the runtime', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    host.runtime.startFault = new Fault('invalid', 'exec: "nope": executable file not found');
    await host.start();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'failed');
    expect(lab.task(id).error).toContain('"nope"');
    await eventually(() => host.runtime.containers.size === 0);
  });

  it('told to stop while it is prepared is shut down without having run', async () => {
    lab = await AgentLab.start(['h1']);
    lab.registry.failure = new Fault('unavailable', 'registry r:5000 is not reachable');
    const host = lab.hosts[0]!;
    await host.start();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'preparing');
    await lab.edit(id, { wanted: 'shutdown', why: 'scaled to 0' });
    await reaches(id, 'shutdown');
    expect(lab.task(id)).toMatchObject({ startedAtMs: 0, message: 'not started: scaled to 0' });
  });
});

describe('a health check', () => {
  const check = {
    test: ['CMD-SHELL', 'true'],
    ...defaults.healthCheck,
    intervalMs: 20,
    timeoutMs: 1_000,
    startPeriodMs: 0,
    startIntervalMs: 20,
    retries: 2,
  };

  it('that succeeds makes the task healthy, and a backend that serves', async () => {
    const host = await oneHost({ container: containerSpec('web:1', { healthCheck: check }) });
    const id = await lab.assign(host, 't1');
    await eventually(() => lab.task(id).health === 'healthy');
    expect(host.runtime.execs[0]!.command).toEqual(['/bin/sh', '-c', 'true']);
    await eventually(() => host.network.wanted?.endpoints[0]?.backends[0]?.serving);
  });

  it('that fails its retries ends the task as failed with the reason', async () => {
    lab = await AgentLab.start(['h1'], { container: containerSpec('web:1', { healthCheck: check }) });
    const host = lab.hosts[0]!;
    host.runtime.execExitCode = 1;
    await host.start();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'failed');
    expect(lab.task(id)).toMatchObject({ health: 'unhealthy', error: 'unhealthy: the check exited with 1' });
  });

  it('of the image applies where the service has none', async () => {
    lab = await AgentLab.start(['h1']);
    lab.registry.images.set('docker.io/library/web:1', fakeImage('web', { healthCheck: check }));
    const host = lab.hosts[0]!;
    await host.start();
    const id = await lab.assign(host, 't1');
    await eventually(() => lab.task(id).health === 'healthy');
  });
});

describe('an agent that restarts', () => {
  it('adopts what runs, without touching it', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const { pid } = host.runtime.containers.get(id)!.state;
    await host.stop();
    await host.start();
    await eventually(() => host.agent!.session.connected);
    await eventually(() => host.network.wanted?.attachments.length === 1);
    expect(host.runtime.containers.get(id)!.state).toMatchObject({ pid, status: 'running' });
    expect(lab.task(id)).toMatchObject({ state: 'running', pid });
    host.runtime.exit(id, 4);
    await reaches(id, 'failed');
  });

  it('reports an exit that happened while it was away', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.stop();
    host.runtime.exit(id, 9);
    await host.start();
    await reaches(id, 'failed');
    expect(lab.task(id).exitCode).toBe(9);
  });

  it('goes on from its journal while no control plane answers', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await eventually(() => host.network.wanted?.endpoints[0]?.backends.length === 1);
    await host.stop();
    host.network.wanted = undefined;
    lab.net.serve('m1:7400', undefined);
    await host.start();
    await eventually(() => host.network.wanted?.attachments[0]?.taskId === id);
    expect(host.network.wanted!.endpoints[0]!.backends).toHaveLength(1);
    expect(host.agent!.worker.running()).toEqual([id]);
    expect(host.agent!.session.connected).toBe(false);
  });

  it('F2: never starts a task again that had ended', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    lab.net.cut(host.id);
    host.runtime.exit(id, 1);
    await eventually(() => host.runtime.containers.size === 0);
    await host.stop();
    await host.start();
    lab.net.mend(host.id);
    await reaches(id, 'failed');
    expect(host.runtime.containers.size).toBe(0);
  });

  it('reports tasks of an earlier boot as failed, and sweeps their leftovers', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.reboot();
    await host.start();
    await reaches(id, 'failed');
    expect(lab.task(id).error).toBe('host rebooted');
    await eventually(async () => host.runtime.containers.size === 0 && (await host.images.rootfs()).length === 0);
  });

  it('removes what no assignment names, only after the first full set', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    const stray = taskId(idOf('stray'));
    host.runtime.stray(stray);
    host.network.attachments.set(stray, attachment(stray, '10.192.1.99'));
    lab.net.serve('m1:7400', undefined);
    const dials = countDials(host);
    await host.start(dials);
    await eventually(() => dials.count() > 1);
    expect(host.runtime.containers.has(stray)).toBe(true);
    lab.net.serve('m1:7400', lab.dispatches[0]);
    await eventually(() => host.runtime.containers.size === 0 && host.network.attachments.size === 0);
  });

  it('stops a task that was taken from it while it was away', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.stop();
    await lab.edit(id, { state: 'orphaned', wanted: 'shutdown' });
    await host.start();
    await eventually(() => host.runtime.containers.size === 0);
    expect(lab.task(id).state).toBe('orphaned');
  });
});

describe('a session', () => {
  it('comes back after a cut, with what happened meanwhile', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    lab.net.cut(host.id);
    host.runtime.exit(id, 5);
    await eventually(() => !host.agent!.session.connected);
    expect(lab.task(id).state).toBe('running');
    lab.net.mend(host.id);
    await reaches(id, 'failed');
    expect(lab.task(id).exitCode).toBe(5);
  });

  it('follows a redirect to the leader', async () => {
    lab = await AgentLab.start(['h1']);
    lab.replica('m2', lab.store);
    const host = lab.hosts[0]!;
    await host.start({ addresses: ['m2:7400', 'm1:7400'] });
    await eventually(() => lab.dispatches[0]!.connected().includes(host.id));
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
  });

  it('moves to the next leader, and the old one no longer rules', async () => {
    const host = await oneHost();
    const m2 = lab.replica('m2', lab.store);
    await eventually(() => host.agent!.session.connected);
    await lab.lead('m2', 2);
    await eventually(() => m2.connected().includes(host.id));
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
  });

  it('refuses the word of a deposed leader', async () => {
    const host = await oneHost();
    await eventually(() => host.agent!.session.connected);
    await lab.lead('m2', 5);
    lab.replica('m2', lab.store);
    await eventually(() => lab.dispatches[1]!.connected().includes(host.id));
    await host.stop();
    // A replica that was away all the time still believes in its epoch.
    const old = new AgentLab();
    await old.commit(
      ...[...lab.store.snapshot.all('node')].map(
        (value) => ({ table: 'node', key: value.id, value, expect: 0 }) as const,
      ),
    );
    old.replica('m1', old.store);
    await old.lead('m1', 1);
    lab.net.serve('m1:7400', old.dispatches[0]);
    lab.net.serve('m2:7400', undefined);
    const id = await lab.assign(host, 't1');
    const dials = countDials(host);
    await host.start(dials);
    await eventually(() => dials.count() > 1);
    expect(host.agent!.session.connected).toBe(false);
    lab.net.serve('m2:7400', lab.dispatches[1]);
    lab.net.serve('m1:7400', lab.dispatches[0]);
    await reaches(id, 'running');
    await old.close();
  });

  it('beats, and the leader knows when it last did', async () => {
    const host = await oneHost();
    const { liveness } = lab.dispatches[0]!;
    const news: string[] = [];
    liveness.onChange((node) => news.push(node));
    await eventually(() => liveness.lastBeatAt(host.id) !== undefined);
    const first = liveness.lastBeatAt(host.id)!;
    await eventually(() => liveness.lastBeatAt(host.id)! > first);
    expect(news).toEqual([host.id]);
  });

  it('of a node that is no member is refused with what to do', async () => {
    lab = await AgentLab.start(['h1']);
    const host = lab.hosts[0]!;
    const held = lab.store.snapshot.get('node', host.id)!;
    await lab.commit({ table: 'node', key: host.id, value: undefined, expect: held.modRevision });
    const stream = lab.net.transportOf(host.id).connect('m1:7400').session();
    const fault = await new Promise<Fault | undefined>((resolve) => {
      stream.listen({ message() {}, closed: resolve });
      stream.send({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [], held: nothingHeld } } });
    });
    expect(fault).toMatchObject({ code: 'not-found', remedy: expect.stringContaining('join it again') });
  });

  it('removed while it was away ends what it holds once it is back, and dials less and less', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    await host.stop();
    const held = lab.store.snapshot.get('node', host.id)!;
    await lab.commit({ table: 'node', key: host.id, value: undefined, expect: held.modRevision });
    const dials = countDials(host);
    await host.start(dials);
    await eventually(() => host.runtime.containers.size === 0 && host.network.attachments.size === 0);
    expect(host.agent!.session.connected).toBe(false);
    await eventually(() => dials.count() === 3);
    const third = lab.clock.monotonic();
    await eventually(() => dials.count() === 4);
    expect(lab.clock.monotonic() - third).toBeGreaterThan(900);
  });

  it('takes only the words of a node about its own tasks', async () => {
    lab = await AgentLab.start(['h1', 'h2']);
    const [h1, h2] = lab.hosts as [LabHost, LabHost];
    await h1.start();
    const id = await lab.assign(h1, 't1');
    await reaches(id, 'running');
    const stream = lab.net.transportOf(h2.id).connect('m1:7400').session();
    stream.listen({ message() {}, closed() {} });
    const status = { ...h1.agent!.worker.statuses()[0]!, state: 'failed', error: 'forged' };
    stream.send({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [status], held: nothingHeld } } });
    await eventually(() => lab.dispatches[0]!.connected().includes(h2.id));
    const second = await lab.assign(h1, 't2');
    await reaches(second, 'running');
    expect(lab.task(id).state).toBe('running');
  });

  it('delivers logins only to nodes that use their registry, unsealed', async () => {
    const host = await oneHost({ container: containerSpec('r.example/web:1') });
    const seen: unknown[] = [];
    const ensure = host.images.ensure.bind(host.images);
    host.images.ensure = (request) => {
      seen.push(request.credential);
      return ensure(request);
    };
    const login = { registry: 'r.example', username: 'u', password: 'sealed:secret' };
    await lab.commit({ table: 'credential', key: 'r.example', value: login, expect: 0 });
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    expect(seen[0]).toMatchObject({ registry: 'r.example', username: 'u', password: 'secret' });
    expect(host.disk.text).not.toContain('secret');
  });
});

describe('a relay', () => {
  const exec = (id: TaskId, command: string[]) => ({
    $case: 'exec' as const,
    value: {
      taskId: id,
      command,
      tty: false,
      stdin: true,
      columns: 0,
      rows: 0,
      env: [],
      user: '',
      workingDir: '',
    },
  });

  it('carries an exec both ways, and its exit code', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const channel = await lab.dispatches[0]!.relays.open(host.id, exec(id, ['cat']));
    await channel.write({ body: { $case: 'stdin', value: Buffer.from('hello ') } });
    await channel.write({ body: { $case: 'stdin', value: Buffer.from('there') } });
    await channel.write({ body: { $case: 'stdinClosed', value: true } });
    let text = '';
    let code: number | undefined;
    for await (const { body } of channel.frames) {
      if (body?.$case === 'stdout') text += body.value.toString();
      if (body?.$case === 'exitCode') code = body.value;
    }
    expect({ text, code }).toEqual({ text: 'hello there', code: 7 });
  });

  it('says why it cannot be', async () => {
    const host = await oneHost();
    await eventually(() => host.agent!.session.connected);
    const channel = await lab.dispatches[0]!.relays.open(host.id, exec(taskId(idOf('nobody')), ['cat']));
    const frames = [];
    for await (const frame of channel.frames) frames.push(frame.body);
    expect(frames).toEqual([{ $case: 'error', value: expect.stringContaining('no container') }]);
    await host.stop();
    await eventually(() => lab.dispatches[0]!.connected().length === 0);
    await expect(lab.dispatches[0]!.relays.open(host.id, exec(taskId(idOf('x')), ['cat']))).rejects.toMatchObject({
      code: 'unavailable',
    });
  });

  it('brings statistics and logs', async () => {
    const host = await oneHost();
    const id = await lab.assign(host, 't1');
    await reaches(id, 'running');
    const stats = await lab.dispatches[0]!.relays.open(host.id, { $case: 'stats', value: { taskIds: [] } });
    const measured = [];
    for await (const { body } of stats.frames) measured.push(body?.value);
    expect(measured).toEqual([expect.objectContaining({ taskId: id, memoryBytes: 2, pids: 4 })]);
    const logs = await lab.dispatches[0]!.relays.open(host.id, { $case: 'logs', value: { taskId: id, sinceMs: 0 } });
    let text = '';
    for await (const { body } of logs.frames) if (body?.$case === 'stdout') text += body.value.toString();
    expect(text).toContain('stdout F hello');
  });
});
