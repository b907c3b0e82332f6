/** An operator service on a memory store, with everything around it in memory too: what the API's and the CLI's tests talk to. */

import { operatorService } from '#control-plane/api/operator.ts';
import type { OperatorParts } from '#control-plane/api/parts.ts';
import { Turns } from '#control-plane/api/turns.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import type { RelayChannel, RelayRequest } from '#control-plane/dispatch/relay.ts';
import { UsageDesk } from '#control-plane/dispatch/usage.ts';
import type { LogEntry } from '#control-plane/logs/log-store.ts';
import { rootAfter } from '#control-plane/security/authority-files.ts';
import type { Authority } from '#control-plane/security/certificates.ts';
import { Enrolment } from '#control-plane/security/enrol.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Change, Table, Tables } from '#control-plane/store/records.ts';
import { keyOf } from '#control-plane/store/snapshot.ts';
import type { RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { OperatorServer } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { Queue } from '#proto/kernel/queue.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import type { Event } from '#proto/model/cluster.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { testSeal } from './test-seal.ts';

export interface OperatorLab {
  readonly parts: OperatorParts;
  readonly store: MemoryStore;
  readonly service: OperatorServer;
  /** Puts records as if the controllers had. */
  put<T extends Table>(table: T, ...values: Tables[T][]): Promise<void>;
  readonly events: Event[];
  readonly lines: LogEntry[];
  /** What was asked of nodes. */
  readonly asked: { readonly node: NodeId; readonly request: RelayRequest }[];
  /** How a node answers a relay; unless set, no node is connected. */
  answer: ((request: RelayRequest, input: AsyncIterable<RelayFrame>) => AsyncIterable<RelayFrame>) | undefined;
}

export function operatorLab(more: Partial<OperatorParts> = {}): OperatorLab {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  const events: Event[] = [];
  const lines: LogEntry[] = [];
  const asked: { node: NodeId; request: RelayRequest }[] = [];
  const authority: Authority = {
    certificate: 'CA',
    hash: 'A'.repeat(43),
    trust: 'CA',
    issue: async ({ commonName }) => `certificate of ${commonName}`,
  };
  const parts: OperatorParts = {
    store,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    events: {
      lead() {},
      note() {},
      async *read({ follow, sinceMs = 0, signal }) {
        for (const event of events) if (event.atMs >= sinceMs) yield event;
        if (follow) await aborted(signal);
      },
      close: async () => {},
    },
    logs: {
      async *read({ service, slot, tail, follow, signal }) {
        const own = lines.filter((line) => line.service === service && (!slot || line.slot === slot));
        yield* tail ? own.slice(-tail) : own;
        if (follow) await aborted(signal);
      },
    },
    leader: () => undefined,
    asOfMs: () => undefined,
    usage: new UsageDesk(systemClock),
    liveness: new BeatLiveness(systemClock),
    relays: {
      async open(node, request) {
        asked.push({ node, request });
        if (!lab.answer) throw new Fault('unavailable', `node ${node} is not connected to the control plane`);
        const input = new Queue<RelayFrame>();
        const channel: RelayChannel = {
          async write(frame) {
            input.push(frame);
          },
          frames: lab.answer(request, input),
          close: () => input.end(),
        };
        return channel;
      },
    },
    authority,
    enrolment: new Enrolment({ store, authority, clock: systemClock, random: systemRandom, log: silentLog }),
    plan: (_, changes) =>
      new Map(
        changes
          .filter(({ table }) => table === 'service')
          .map(({ key }) => [key, [{ action: 'start', slot: 1, node: 'h1', reason: 'least loaded' }]]),
      ),
    contents: testSeal,
    newRoot: (by) => rootAfter(by, systemRandom),
    identity: async () => ({ 'ca.pem': 'CA', 'ca.key': 'KEY', 'seal.key': 'SEAL' }),
    wishes: new Turns(),
    version: '0.0.0-test',
    addresses: ['127.0.0.1:7400'],
    probe: async () => 1,
    ...more,
  };
  const lab: OperatorLab = {
    parts,
    store,
    service: operatorService(parts),
    events,
    lines,
    asked,
    answer: undefined,
    async put(table, ...values) {
      const changes = values.map((value) => {
        const key = keyOf(table, value);
        return { table, key, value, expect: store.snapshot.get(table, key)?.modRevision ?? 0 } as unknown as Change;
      });
      await store.seen(await store.commit(changes));
    },
  };
  return lab;
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (!signal || signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
