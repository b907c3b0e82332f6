/** The agent without its adapters: worker and session tied together. What `assemble` runs on a machine, the simulator runs in memory. */
import type { OpenRelay } from '#proto/gen/gantry/v1/agent.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Heartbeat } from './heartbeat.ts';
import { Notices } from './notices.ts';
import { Session } from './session.ts';
import { type RelayParts, serveRelay } from './streams/relay.ts';
import type { Connection, Transport } from './transport.ts';
import { UsageReporter } from './usage.ts';
import { Worker, type WorkerParts } from './worker.ts';

export interface AgentParts extends WorkerParts, Pick<RelayParts, 'readLog' | 'removeVolume'> {
  readonly transport: Transport;
  readonly heartbeat: Heartbeat;
  /** HOST:PORT of the control plane's replicas. */
  readonly addresses: readonly string[];
  /** What the agent knows of its machine; id, name, labels and the like are the control plane's to say. */
  readonly describe: () => Node;
  /** Told the roots to trust, PEM, of which the first issues. */
  readonly trust?: (caPem: string) => void;
}

export interface Agent {
  readonly worker: Worker;
  readonly session: Session;
  /** Containers and network go on without it. */
  close(): void;
}

/** How often the machine is looked at again: links, addresses and routes of it come and go. */
const lookEveryMs = 5_000;

/** Adopts what an earlier agent left, and dials. Resolves when adopted; whether the control plane answers is not waited for. */
export async function startAgent(parts: AgentParts): Promise<Agent> {
  const { journal, clock, log, runtime } = parts;
  const worker = new Worker(parts, {
    status: (status) => session.report(status),
    applied: (revision) => session.applied(revision),
  });
  const relay = (request: OpenRelay, connection: Connection) => {
    const { network, readLog, removeVolume } = parts;
    const of = { runtime, clock, network, readLog, removeVolume, tasks: () => worker.running() };
    const checks = (task: TaskId) => worker.checks(task);
    void serveRelay({ ...of, checks, log: log.with('relay') }, request, connection.relay());
  };
  const session: Session = new Session({
    clock,
    log: log.with('session'),
    transport: parts.transport,
    heartbeat: parts.heartbeat,
    addresses: parts.addresses,
    describe: parts.describe,
    statuses: () => journal.statuses(),
    epoch: { get: () => journal.epoch, set: (epoch) => journal.setEpoch(epoch) },
    welcomed: (welcome) => {
      parts.trust?.(welcome.caPem);
      worker.welcome(welcome);
      notices.flush();
    },
    assigned: (set) => worker.take(set),
    began: () => worker.began(),
    relay,
  });
  const notices = new Notices({ clock, send: (said) => session.notices(said) });
  const unsubscribe = [
    parts.network.onRepair(({ message }) => notices.repaired(message)),
    parts.network.onCall((service) => session.wake(service)),
  ];
  const usage = new UsageReporter({
    clock,
    log: log.with('usage'),
    runtime,
    network: parts.network,
    measured: () => worker.measured(),
    send: (batch) => session.usage(batch),
  });
  let look = clock.after(lookEveryMs, function lookAgain() {
    session.described();
    look = clock.after(lookEveryMs, lookAgain);
  });
  await worker.start();
  session.start();
  return {
    worker,
    session,
    close() {
      look.cancel();
      for (const leave of unsubscribe) leave();
      notices.close();
      usage.close();
      session.close();
      worker.close();
    },
  };
}
