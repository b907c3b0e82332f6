/** Logs out of a NATS of three servers of which one has gone: whoever asks is told all of them, as soon as the others have found each other. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { logStore } from '#control-plane/logs/nats-log-store.ts';
import { natsLogSink } from '#node-agent/logs/nats-log-sink.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { nodeId, taskId } from '#proto/model/ids.ts';
import { openNats } from '#proto/nats.ts';
import { eventually } from '#test/support/eventually.ts';
import { startNatsCluster } from '#test/support/nats-cluster.ts';

let scope: Scope;
beforeEach(() => {
  scope = new Scope();
});
afterEach(() => scope.close());
const lines = 50;

describe('with one of three servers of NATS', () => {
  it.each(['SIGKILL', 'SIGSTOP'] as const)(
    'gone by %s, every reading of a log is whole',
    async (signal) => {
      const cluster = await startNatsCluster();
      scope.defer(() => cluster.stop());
      const [gone, ...others] = cluster.servers;
      // The managers that are left have a server beside them; what was connected to the other dials another one.
      const plane = openNats({ url: others.map(({ url }) => url).join(','), name: 'plane' });
      scope.defer(() => plane.close());
      await plane.ready();
      const store = logStore({ nats: plane, clock: systemClock, copies: 3 });
      const read = async () => {
        let count = 0;
        for await (const _ of store.read({ project: 'demo', service: 'web' })) count++;
        return count;
      };
      const patience = { timeoutMs: 30_000, everyMs: 200 };
      await eventually(async () => (await read()) === 0, patience);
      const sink = natsLogSink({ nats: plane });
      const source = {
        project: 'demo',
        service: 'web',
        slot: 1,
        taskId: taskId('t'),
        nodeId: nodeId('n'),
        node: 'h1',
        path: '',
      };
      const record = (index: number) => ({
        atUs: index,
        stream: 'stdout' as const,
        partial: false,
        text: Buffer.from(`${index}`),
        size: 2,
      });
      for (let index = 0; index < lines; index++)
        await eventually(
          () => sink.publish({ source, from: 2 * index, records: [record(index)] }).then(() => true),
          patience,
        );
      gone!.signal(signal);
      // Twenty readings, one of three or more would be given to the server that is off.
      await eventually(read, patience);
      expect(await Promise.all(Array.from({ length: 20 }, read))).toEqual(Array.from({ length: 20 }, () => lines));
    },
    120_000,
  );
});
