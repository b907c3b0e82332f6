/** A follower passes on what only the leader can do. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { leaderDoors } from '#control-plane/api/leader-door.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { serveSocket } from '#control-plane/servers.ts';
import { ExecStart, type RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import { type NetProbeUpdate, OperatorClient, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { call, faultOf } from '#proto/rpc.ts';
import { aNode, aService, aTask, idOf } from '#test/support/builders.ts';
import { type OperatorLab, operatorLab } from '#test/support/operator.ts';

let scope: Scope;
let heard: BeatLiveness;
let leading: OperatorLab;
let following: OperatorLab;
let client: OperatorClient;

beforeEach(async () => {
  scope = new Scope();
  const directory = await mkdtemp(join(tmpdir(), 'gantry-doors-'));
  scope.defer(() => rm(directory, { recursive: true }));
  const insecure = grpc.credentials.createInsecure();
  heard = new BeatLiveness(systemClock);
  leading = operatorLab({ liveness: heard });
  await serveSocket(scope, join(directory, 'leader.sock'), [
    { definition: OperatorService, handlers: leading.service },
  ]);
  const doors = leaderDoors(() => insecure);
  scope.defer(() => doors.close());
  following = operatorLab({ leader: () => doors.at(`unix:${join(directory, 'leader.sock')}`) });
  await serveSocket(scope, join(directory, 'f.sock'), [{ definition: OperatorService, handlers: following.service }]);
  client = new OperatorClient(`unix:${join(directory, 'f.sock')}`, insecure);
  scope.defer(() => client.close());
  await leading.put('service', aService('web'));
  await leading.put('task', aTask('one', { nodeId: aNode('h1').id, nodeName: 'h1' }));
});
afterEach(() => scope.close());

async function execute(task: string): Promise<RelayFrame['body'][]> {
  const stream = client.exec();
  const start = ExecStart.create({ command: ['cat'], stdin: true });
  stream.write({ body: { $case: 'open', value: { task, start } } });
  stream.write({ body: { $case: 'frame', value: { body: { $case: 'stdin', value: Buffer.from('hello') } } } });
  const bodies: RelayFrame['body'][] = [];
  for await (const frame of stream) bodies.push((frame as RelayFrame).body);
  return bodies;
}

describe('a follower', () => {
  it('passes an exec on, both ways, to its end', async () => {
    leading.answer = async function* (_, input) {
      for await (const { body } of input) {
        if (body?.$case === 'stdin') yield { body: { $case: 'stdout', value: body.value } };
        break;
      }
      yield { body: { $case: 'exitCode', value: 3 } };
    };
    expect(await execute('web.1')).toEqual([
      { $case: 'stdout', value: Buffer.from('hello') },
      { $case: 'exitCode', value: 3 },
    ]);
  });

  it('passes on why the leader refuses', async () => {
    const refusal = await execute('web.77').catch(faultOf);
    expect(refusal).toMatchObject({ code: 'not-found', message: 'service demo/web has no task 77' });
  });

  it('tells the figures that the leader has', async () => {
    leading.answer = async function* () {
      yield {
        body: {
          $case: 'stats',
          value: {
            taskId: idOf('one'),
            atMs: 1,
            cpuSeconds: 2,
            memoryBytes: 3,
            memoryLimitBytes: 0,
            pids: 1,
            networkReceivedBytes: 0,
            networkSentBytes: 0,
          },
        },
      };
    };
    const { tasks } = await call(client, OperatorService.stats, { service: 'web' });
    expect(tasks).toMatchObject([{ taskId: idOf('one'), cpuSeconds: 2 }]);
  });

  it('tells of a node what the leader has heard of it, and what it knows itself where that does not answer', async () => {
    for (const lab of [leading, following]) await lab.put('node', aNode('h1'));
    heard.beat(aNode('h1').id);
    const { summary } = await call(client, OperatorService.explain, { name: 'h1' });
    expect(summary).toMatch(/^Node h1 is ready.*It has 1 task\.\nLast beat 0\.\d s ago\./);
    Object.assign(leading.parts, { leader: () => ({ explain: () => Promise.reject(new Error('not now')) }) });
    const alone = await call(client, OperatorService.explain, { name: 'h1' });
    expect(alone.summary).toContain('Another manager leads and hears the nodes, and does not answer');
  });

  it('passes on what the doctor finds, and why it finds nothing', async () => {
    await leading.put('node', aNode('h1'));
    leading.answer = async function* (request) {
      const words = { remedy: '', subject: '', wanted: '', seen: '' };
      if (request.$case !== 'probe') return;
      for (const { id } of request.value.probes)
        yield {
          body: { $case: 'fact', value: { probe: id, hop: 'bridge', verdict: 'broken', says: 'it is down', ...words } },
        };
    };
    const probe = async (from: string) => {
      const bodies: NetProbeUpdate['body'][] = [];
      for await (const { body } of client.netProbe({ kind: 'doctor', from, to: from })) bodies.push(body);
      return bodies.at(-1);
    };
    expect(await probe('h1')).toMatchObject({
      $case: 'diagnosis',
      value: { ok: false, broken: { node: 'h1', says: 'it is down' } },
    });
    await expect(probe('h9')).rejects.toSatisfy((error) => faultOf(error).code === 'not-found');
  });
});
