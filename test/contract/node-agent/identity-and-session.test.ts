/** Joining, sessions, beats and relays over real gRPC with mutual TLS: a production agent against production dispatch and enrolment. */
import { mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { agentService, agentServiceDefinition } from '#control-plane/dispatch/server.ts';
import { guarded, onlyMembers, onlyNodes } from '#control-plane/security/access.ts';
import { createAuthority, openAuthority } from '#control-plane/security/certificates.ts';
import { Enrolment } from '#control-plane/security/enrol.ts';
import { LiveCertificate } from '#control-plane/security/live-certificate.ts';
import { initPki, type Pki } from '#control-plane/security/pki.ts';
import { serveTcp } from '#control-plane/servers.ts';
import { whyClock } from '#node-agent/clock-check.ts';
import { grpcTransport } from '#node-agent/grpc-transport.ts';
import type { Heartbeat } from '#node-agent/heartbeat.ts';
import { enrol, formerMember, formerPath, loadIdentity, type NodeIdentity } from '#node-agent/identity.ts';
import { IdentityKeeper, renewalAt } from '#node-agent/identity-keeper.ts';
import type { Door } from '#node-agent/knock.ts';
import { procStat } from '#node-agent/proc-stat.ts';
import { dismissWatchdog, watchdogOf } from '#node-agent/watchdog/dismiss.ts';
import { watchdogHeartbeat } from '#node-agent/watchdog/heartbeat-watchdog.ts';
import { EnrolmentService } from '#proto/gen/gantry/v1/agent.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { seededRandom, systemRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { unary } from '#proto/rpc.ts';
import { AgentLab, LabHost } from '#test/support/agent-lab.ts';
import { nothingHeld } from '#test/support/builders.ts';
import { eventually } from '#test/support/eventually.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const parts = { clock: systemClock, random: systemRandom, log: silentLog };
const directory = mkdtempSync(join(tmpdir(), 'gantry-identity-'));
let pki: Pki;
let scope: Scope;
let lab: AgentLab;
let enrolment: Enrolment;
let agentAddress: string;
let enrolAddress: string;
/** Of the control plane's clock. */
let aheadMs = 0;

beforeAll(async () => {
  pki = await initPki({ dataDir: join(directory, 'm1'), name: 'm1', advertise: '127.0.0.1' });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
afterEach(async () => {
  await lab.close();
  for (const one of runs.splice(0)) dismissWatchdog(one);
  await scope.close();
});

async function controlPlane(): Promise<void> {
  scope = new Scope();
  lab = await AgentLab.start([]);
  const { store } = lab;
  enrolment = new Enrolment({ store, authority: pki.authority, ...parts });
  const certificate = new LiveCertificate(pki.authority.certificate, pki.pair('server'));
  const at = { address: '127.0.0.1', port: 0, flag: '--agent-port' };
  const handlers = agentService({
    dispatch: lab.dispatches[0]!,
    renew: (node, { csrPem }) => enrolment.renew(node, csrPem),
  });
  const isMember = onlyMembers((node) => store.snapshot.node(node));
  const guardedHandlers = guarded(agentServiceDefinition, handlers, isMember, { session: onlyNodes });
  const served = { definition: agentServiceDefinition, handlers: guardedHandlers };
  agentAddress = `127.0.0.1:${await serveTcp(scope, at, certificate.credentials({ clients: true }), [served])}`;
  const join1 = {
    enrol: unary((request: Parameters<Enrolment['enrol']>[0]) => enrolment.enrol(request)),
    time: unary(async () => ({ atMs: Date.now() + aheadMs })),
  };
  const doors = [{ definition: EnrolmentService, handlers: join1 }];
  enrolAddress = `127.0.0.1:${await serveTcp(scope, at, certificate.credentials({ clients: false }), doors)}`;
}

/** Run directories whose watchdogs are to end with the test. */
const runs: string[] = [];

function run(): string {
  runs.push(mkdtempSync(join(directory, 'run-')));
  return runs.at(-1)!;
}

function watchdogOn(run: string, identity: NodeIdentity, build = '1'): Heartbeat {
  return watchdogHeartbeat({
    ...parts,
    run,
    bootId: 'boot',
    build,
    addresses: [agentAddress],
    identity: () => identity,
  });
}

async function token(lifetimeMs = 60_000): Promise<string> {
  return (await enrolment.createToken({ lifetimeMs, uses: 0 })).text;
}

async function joined(name: string, data = mkdtempSync(join(directory, 'h-'))): Promise<NodeIdentity> {
  return enrol({ ...parts, data, addresses: [enrolAddress], token: await token(), name });
}

/** A host whose agent speaks gRPC; it has the subnet that a leader would give it. */
async function hostOf(identity: NodeIdentity): Promise<LabHost> {
  const { value, modRevision } = lab.store.snapshot.get('node', identity.nodeId)!;
  const node = { ...value, subnet: '10.192.0.0/24' };
  await lab.commit({ table: 'node', key: identity.nodeId, value: node, expect: modRevision });
  const host = new LabHost(lab, lab.store.snapshot.node(identity.nodeId)!);
  lab.hosts.push(host);
  await host.start({
    transport: grpcTransport(() => identity),
    heartbeat: watchdogOn(run(), identity),
    addresses: [agentAddress],
  });
  return host;
}

describe('joining', () => {
  it('wins a certificate in the name of a node id, kept for the next start under mode 0600', async () => {
    await controlPlane();
    const data = mkdtempSync(join(directory, 'h-'));
    const identity = await joined('h1', data);
    expect(lab.store.snapshot.node(identity.nodeId)).toMatchObject({ name: 'h1' });
    expect(await loadIdentity(data)).toEqual(identity);
    for (const file of ['identity.json', 'key.pem']) {
      expect(statSync(join(data, 'identity', file)).mode & 0o777).toBe(0o600);
    }
    expect(await loadIdentity(join(directory, 'nowhere'))).toBeUndefined();
  });

  it('trusts only the CA that the token names', async () => {
    await controlPlane();
    const other = await openAuthority(await createAuthority('other', Date.now(), systemRandom), Date.now, systemRandom);
    const [version, , id, secret] = (await token()).split('.');
    const forged = [version, other.hash, id, secret].join('.');
    const data = mkdtempSync(join(directory, 'h-'));
    await expect(enrol({ ...parts, data, addresses: [enrolAddress], token: forged, name: 'h1' })).rejects.toMatchObject(
      {
        code: 'forbidden',
        message: expect.stringContaining('its CA is another one'),
      },
    );
  });

  it('says what to do about an expired token, a malformed one, and a taken name', async () => {
    await controlPlane();
    const data = mkdtempSync(join(directory, 'h-'));
    const attempt = (text: string, name = 'h1') =>
      enrol({ ...parts, data, addresses: [enrolAddress], token: text, name });
    const short = await token(1);
    const madeAt = Date.now();
    await eventually(() => Date.now() > madeAt + 1);
    await expect(attempt(short)).rejects.toMatchObject({
      message: 'the join token has expired',
      remedy: expect.stringContaining('gantry token create'),
    });
    await expect(attempt('nonsense')).rejects.toMatchObject({ code: 'invalid' });
    const host = await hostOf(await joined('h7'));
    await eventually(() => lab.store.snapshot.node(host.id)!.bootId !== '');
    await expect(attempt(await token(), 'h7')).rejects.toMatchObject({ code: 'exists' });
  });
});

describe('a clock', () => {
  afterEach(() => {
    aheadMs = 0;
  });

  it('of this host that is off is told from that of the control plane, whatever TLS makes of it', async () => {
    await controlPlane();
    expect(await whyClock([enrolAddress], systemClock)).toBeUndefined();
    aheadMs = 3_600_000;
    expect(await whyClock([enrolAddress, enrolAddress], systemClock)).toMatch(
      /^the clock of this host is 1 h behind those of 127\.0\.0\.1, 127\.0\.0\.1 \(.*chrony/,
    );
    expect(await whyClock(['127.0.0.1:1'], systemClock)).toBeUndefined();
  });
});

describe('a certificate', () => {
  it('is renewed between half and four fifths of its life', async () => {
    await controlPlane();
    const { certificatePem } = await joined('h1');
    for (let seed = 0; seed < 50; seed++) {
      const day = 86_400_000;
      const share = (renewalAt(certificatePem, seededRandom(seed)) - Date.now()) / (90 * day);
      expect(share).toBeGreaterThan(0.49);
      expect(share).toBeLessThan(0.81);
    }
  });

  it('renewed over the session is stored and used by the next dial', async () => {
    await controlPlane();
    const data = mkdtempSync(join(directory, 'h-'));
    const identity = await joined('h1', data);
    const host = await hostOf(identity);
    await eventually(() => host.agent!.session.connected);
    // 89 of 90 days later, by its own clock.
    const clock = { ...systemClock, now: () => Date.now() + 89 * 86_400_000 };
    let stop = () => {};
    const swapped = await new Promise<NodeIdentity>((resolve) => {
      const renew = (csrPem: string) => host.agent!.session.connection!.renew(csrPem);
      const keeper = new IdentityKeeper(
        { ...parts, clock, data, renew, swapped: () => resolve(keeper.identity) },
        identity,
      );
      stop = () => keeper.close();
    });
    stop();
    expect(swapped.nodeId).toBe(identity.nodeId);
    expect(swapped.certificatePem).not.toBe(identity.certificatePem);
    expect(await loadIdentity(data)).toMatchObject({ nodeId: identity.nodeId });
    await host.stop();
    const again = await hostOf(swapped);
    await eventually(() => again.agent!.session.connected);
  });
});

describe('a session over gRPC', () => {
  it('brings tasks, statuses, and relays', async () => {
    await controlPlane();
    const host = await hostOf(await joined('h1'));
    const id = await lab.assign(host, 't1');
    await eventually(() => lab.task(id).state === 'running');
    const channel = await lab.dispatches[0]!.relays.open(host.id, {
      $case: 'exec',
      value: {
        taskId: id,
        command: ['cat'],
        tty: false,
        stdin: true,
        columns: 0,
        rows: 0,
        env: [],
        user: '',
        workingDir: '',
      },
    });
    // More than the buffers of both ends hold: it only passes where each waits for the other.
    const sent = Buffer.alloc(64 * 1024, 'x');
    let received = 0;
    const writing = (async () => {
      for (let index = 0; index < 100; index++) await channel.write({ body: { $case: 'stdin', value: sent } });
      await channel.write({ body: { $case: 'stdinClosed', value: true } });
    })();
    for await (const { body } of channel.frames) if (body?.$case === 'stdout') received += body.value.length;
    await writing;
    expect(received).toBe(100 * sent.length);
  });

  it('beats from its own thread while the main loop is stuck', async () => {
    await controlPlane();
    const host = await hostOf(await joined('h1'));
    const { liveness } = lab.dispatches[0]!;
    await eventually(() => liveness.lastBeatAt(host.id) !== undefined);
    // The control plane shares this loop, so what arrived is only seen afterwards: all of it, and the thread's own words.
    const beats: number[] = [];
    const beat = liveness.beat.bind(liveness);
    liveness.beat = (node) => {
      beats.push(systemClock.monotonic());
      beat(node);
    };
    const until = systemClock.monotonic() + 900;
    while (systemClock.monotonic() < until);
    await eventually(() => beats.length >= 4);
    // Sent after the stall, four of them would take three periods.
    expect(beats[3]! - beats[0]!).toBeLessThan(3 * 200);
  });

  it('is dropped and dialled again when beats are not acknowledged', async () => {
    await controlPlane();
    const dispatch = lab.dispatches[0]!;
    // As a cut would: what the node sends is swallowed.
    const { beats } = dispatch;
    dispatch.beats = (_, stream) => stream.listen({ message() {}, closed() {} });
    const host = await hostOf(await joined('h1'));
    await eventually(() => host.agent!.session.connected);
    const first = host.agent!.session.connection;
    await eventually(() => host.agent!.session.connected && host.agent!.session.connection !== first);
    dispatch.beats = beats;
    await eventually(() => dispatch.liveness.lastBeatAt(host.id) !== undefined);
  });

  it('has those looked for that do not answer, every other time, and told for how long they have not', async () => {
    await controlPlane();
    const identity = await joined('h1');
    const clock = new FakeClock();
    const sought: [string, number][] = [];
    let door: Door | undefined;
    const transport = grpcTransport(
      () => identity,
      (address, silentMs) => sought.push([address, silentMs]),
      clock,
      (one) => {
        door = one;
        return () => {};
      },
    );
    const misses = async (count: number) => {
      const connection = transport.connect('192.0.2.9:7400');
      for (let miss = 0; miss < count; miss++) {
        await clock.pass(150);
        door!.unanswered();
      }
      return connection.close();
    };
    await misses(4);
    await misses(2);
    expect(sought).toEqual([0, 300, 600].map((ms) => ['192.0.2.9', ms]));
    door!.opened();
    await misses(1);
    expect(sought.at(-1)).toEqual(['192.0.2.9', 0]);
  });

  it('tells a node that was removed to hold nothing, and refuses it', async () => {
    await controlPlane();
    const identity = await joined('h1');
    const held = lab.store.snapshot.get('node', identity.nodeId)!;
    await lab.commit({ table: 'node', key: identity.nodeId, value: undefined, expect: held.modRevision });
    const connection = grpcTransport(() => identity).connect(agentAddress);
    const told: unknown[] = [];
    const fault = await new Promise((resolve) => {
      const stream = connection.session();
      stream.listen({ message: ({ body }) => told.push(body), closed: resolve });
      stream.send({ body: { $case: 'hello', value: { node: undefined, epoch: 0, tasks: [], held: nothingHeld } } });
    });
    expect(told).toMatchObject([{ $case: 'assignments', value: { epoch: 1, full: true, put: [] } }]);
    expect(fault).toMatchObject({ code: 'not-found', remedy: expect.stringContaining('join it again') });
    await expect(connection.renew('')).rejects.toMatchObject({ code: 'unauthenticated' });
    connection.close();
  });

  it('is that of the machine which joined last: one whose place was taken is told to hold nothing', async () => {
    await controlPlane();
    const data = mkdtempSync(join(directory, 'h-'));
    const [identity, text] = [await joined('h1', data), await token()];
    const first = await hostOf(identity);
    const id = await lab.assign(first, 't1');
    await eventually(() => lab.task(id).state === 'running');
    await first.stop();
    const { value, modRevision } = lab.store.snapshot.get('node', first.id)!;
    await lab.commit({ table: 'node', key: first.id, value: { ...value, state: 'down' }, expect: modRevision });
    const again = { ...parts, data, addresses: [enrolAddress], token: text, name: 'h1' };
    await expect(enrol(again)).rejects.toMatchObject({
      code: 'exists',
      remedy: expect.stringContaining('gantry node rm'),
    });
    renameSync(join(data, 'identity'), formerPath(data));
    const taken = await enrol({ ...again, former: await formerMember(data) });
    expect(taken.nodeId).toBe(identity.nodeId);
    const second = await hostOf(taken);
    await eventually(() => second.agent!.session.connected);
    const { connection } = second.agent!.session;
    await first.start({
      transport: grpcTransport(() => identity),
      heartbeat: watchdogOn(run(), identity),
      addresses: [agentAddress],
    });
    await eventually(() => first.runtime.containers.size === 0);
    const old = grpcTransport(() => identity).connect(agentAddress);
    await expect(old.renew('')).rejects.toMatchObject({ code: 'unauthenticated' });
    old.close();
    expect(second.agent!.session.connection).toBe(connection);
    expect(first.agent!.session.connected).toBe(false);
  });
});

describe('the watchdog', () => {
  const target = () => ({ address: agentAddress, session: 1, periodMs: 50 });
  const said = (node: NodeIdentity) => lab.dispatches[0]!.liveness.agentOf(node.nodeId)?.condition;

  it('beats on when the agent has ended, says so, and is adopted by the next one', async () => {
    await controlPlane();
    const [identity, at] = [await joined('h1'), run()];
    const first = watchdogOn(at, identity);
    first.aim(target());
    await eventually(() => said(identity) === 'running');
    const pid = watchdogOf(at)!;
    await first.close();
    await eventually(() => said(identity) === 'gone');
    const second = watchdogOn(at, identity);
    await eventually(() => said(identity) === 'unconnected');
    second.aim(target());
    await eventually(() => said(identity) === 'running');
    expect(watchdogOf(at)).toBe(pid);
    await second.close();
  });

  it.for(['SIGKILL', 'SIGSTOP'] as const)('is replaced after %s, and the beat goes on', async (signal) => {
    await controlPlane();
    const [identity, at] = [await joined('h1'), run()];
    const heartbeat = watchdogOn(at, identity);
    heartbeat.aim(target());
    await eventually(() => said(identity) === 'running');
    const pid = watchdogOf(at)!;
    process.kill(pid, signal);
    await eventually(() => watchdogOf(at) !== undefined && watchdogOf(at) !== pid);
    await eventually(() => procStat(pid) === undefined || procStat(pid)?.state === 'Z');
    const { liveness } = lab.dispatches[0]!;
    const before = liveness.lastBeatAt(identity.nodeId)!;
    await eventually(() => liveness.lastBeatAt(identity.nodeId)! > before);
    await heartbeat.close();
  });

  /** Calls `told` with each beat of the node, from now on. */
  function onBeats(node: NodeIdentity, told: (condition: string | undefined) => void): void {
    const { liveness } = lab.dispatches[0]!;
    const beat = liveness.beat.bind(liveness);
    liveness.beat = (of, condition) => {
      if (of === node.nodeId) told(condition);
      beat(of, condition);
    };
  }
  const isGone = (pid: number) => procStat(pid) === undefined || procStat(pid)?.state === 'Z';
  const inWaiting = (at: string) => readdirSync(at).filter((name) => /^watchdog\.sock\.\d+$/.test(name));

  it('of another version beats on until the next one is acknowledged, however long that takes', async () => {
    await controlPlane();
    const [identity, at] = [await joined('h1'), run()];
    const first = watchdogOn(at, identity, '1');
    first.aim(target());
    await eventually(() => said(identity) === 'running');
    const pid = watchdogOf(at)!;
    await first.close();
    await eventually(() => said(identity) === 'gone');
    let beats = 0;
    /** Whether the former had ended when the first beat of its successor was heard. */
    let goneTooSoon: boolean | undefined;
    onBeats(identity, (condition) => {
      beats++;
      if (condition === 'running') goneTooSoon ??= isGone(pid);
    });
    const second = watchdogOn(at, identity, '2');
    await eventually(() => inWaiting(at).length === 1);
    // Its agent has no session yet.
    const before = beats;
    await eventually(() => beats > before + 20);
    expect(watchdogOf(at)).toBe(pid);
    second.aim(target());
    await eventually(() => said(identity) === 'running' && watchdogOf(at) !== pid);
    expect(goneTooSoon).toBe(false);
    await eventually(() => isGone(pid));
    const after = beats;
    await eventually(() => beats > after + 5);
    expect(inWaiting(at)).toEqual([]);
    await second.close();
  });

  it('that was to take over ends with its agent, and the one in charge goes on', async () => {
    await controlPlane();
    const [identity, at] = [await joined('h1'), run()];
    const first = watchdogOn(at, identity, '1');
    first.aim(target());
    await eventually(() => said(identity) === 'running');
    const pid = watchdogOf(at);
    await first.close();
    const second = watchdogOn(at, identity, '2');
    await eventually(() => inWaiting(at).length === 1);
    const next = Number(inWaiting(at)[0]!.split('.').at(-1));
    await second.close();
    await eventually(() => isGone(next));
    // Back to the version of before: it is adopted.
    const third = watchdogOn(at, identity, '1');
    third.aim(target());
    await eventually(() => said(identity) === 'running');
    expect(watchdogOf(at)).toBe(pid);
    expect(inWaiting(at)).toEqual([]);
    await third.close();
  });

  it('of another version that dies before the next one is acknowledged has a successor at once', async () => {
    await controlPlane();
    const [identity, at] = [await joined('h1'), run()];
    const first = watchdogOn(at, identity, '1');
    await eventually(() => watchdogOf(at) !== undefined);
    const pid = watchdogOf(at)!;
    await first.close();
    const second = watchdogOn(at, identity, '2');
    await eventually(() => inWaiting(at).length === 1);
    process.kill(pid, 'SIGKILL');
    second.aim(target());
    await eventually(() => said(identity) === 'running' && watchdogOf(at) !== undefined && watchdogOf(at) !== pid);
    await second.close();
  });

  it('ends when its run directory is taken away', async () => {
    await controlPlane();
    const at = run();
    const heartbeat = watchdogOn(at, await joined('h1'));
    await eventually(() => watchdogOf(at) !== undefined);
    const pid = watchdogOf(at)!;
    await heartbeat.close();
    rmSync(at, { recursive: true });
    await eventually(() => procStat(pid) === undefined || procStat(pid)?.state === 'Z');
  });
});
