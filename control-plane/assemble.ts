/** The only place where the control plane's real parts are made and joined: etcd, certificates, servers, leadership. */
import { EnrolmentService } from '#proto/gen/gantry/v1/agent.ts';
import { ClusterService, type PingResponse } from '#proto/gen/gantry/v1/cluster.ts';
import { OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { holdDirectory } from '#proto/hold-directory.ts';
import { joinHostPort } from '#proto/host-port.ts';
import { readBootId } from '#proto/kernel/boot-id.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { kernelProbe } from '#proto/kernel-probe.ts';
import { serveMetrics } from '#proto/metrics-server.ts';
import { openNats } from '#proto/nats.ts';
import { unary } from '#proto/rpc.ts';
import packageJson from '../package.json' with { type: 'json' };
import { leaderDoors } from './api/leader-door.ts';
import { operatorService } from './api/operator.ts';
import { Turns } from './api/turns.ts';
import { keepIdentity, openIdentity, replicaCredentials, replicaProbe } from './assemble-identity.ts';
import { openStore } from './assemble-store.ts';
import type { ControlPlaneConfig } from './config.ts';
import { foundCluster, founded } from './controllers/found-cluster.ts';
import { runControllers } from './controllers/loop.ts';
import { planTasks } from './controllers/plan.ts';
import { Dispatch } from './dispatch/dispatch.ts';
import { agentService, agentServiceDefinition } from './dispatch/server.ts';
import { volumeRemoval } from './dispatch/volume-removal.ts';
import type { EventLog } from './events/event-log.ts';
import { natsEventStream } from './events/nats-event-stream.ts';
import { eventLog } from './events/ring-event-log.ts';
import { Leader } from './leader.ts';
import type { LogStore } from './logs/log-store.ts';
import { logStore } from './logs/nats-log-store.ts';
import { type ControlPlaneMetrics, controlPlaneMetrics, measuredStore } from './metrics.ts';
import { confirmedMs } from './reconcilers/fence.ts';
import {
  guarded,
  nobodyFromElsewhere,
  onlyMembers,
  onlyNodes,
  onlyOperators,
  onlyReplicas,
  refusing,
} from './security/access.ts';
import { rootAfter } from './security/authority-files.ts';
import { Enrolment } from './security/enrol.ts';
import type { LiveIdentity } from './security/live-identity.ts';
import { assertInitialised, identityFiles, pkiPaths } from './security/pki.ts';
import { type ContentSeal, contentSeal } from './security/seal.ts';
import { serveSocket, serveTcp } from './servers.ts';
import type { Store } from './store/store.ts';

export interface Kernel {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The ports it listens at. */
export interface Doors {
  readonly agentPort: number;
  readonly enrolPort: number;
  readonly metricsPort: number;
}

export interface ControlPlane extends Doors {
  /** Rejects when it can no longer serve and must be restarted; never resolves. */
  readonly failed: Promise<never>;
  close(): Promise<void>;
}

const { version } = packageJson;
/** Longest request to join: whoever sends it has proven nothing yet. */
const enrolmentBytes = 64 * 1024;

/** Brings a control plane up. Faults: what keeps it from starting, with the remedy. */
export async function assembleControlPlane(config: ControlPlaneConfig, kernel: Kernel): Promise<ControlPlane> {
  const scope = new Scope();
  try {
    return await assemble(config, kernel, scope);
  } catch (error) {
    await scope.close();
    throw error;
  }
}

async function assemble(config: ControlPlaneConfig, kernel: Kernel, scope: Scope): Promise<ControlPlane> {
  const { clock, random, log } = kernel;
  await assertInitialised(config.data);
  scope.defer(holdDirectory(config.data, 'control-plane'));
  const identity = await openIdentity(config);
  const { pki } = identity;
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  failed.catch(() => {});
  let metrics: ControlPlaneMetrics | undefined;
  const probe = replicaProbe(scope, identity, kernel);
  const opened = await openStore({
    config,
    identity,
    kernel,
    fail,
    leads: async (address) => (await probe(address)) !== undefined,
  });
  const store = measuredStore(opened, clock, (outcome, changes, seconds) =>
    metrics?.committed(outcome, changes, seconds),
  );
  scope.defer(() => store.close());
  const [first] = config.managers;
  if (first && first.name !== config.name && !store.snapshot.cluster) {
    log.info('there is no cluster yet', { why: `${first.name} founds it, or restores it` });
    const waiting = scope.child();
    const refused = refusing(OperatorService, noClusterYet(first.name));
    await serveSocket(waiting, config.socket, [{ definition: OperatorService, handlers: refused }]);
    await Promise.race([founded(store), failed]);
    await waiting.close();
  }
  await foundCluster(store, config, kernel);

  // Contends last, when everything that a leader serves is there; until then this replica follows.
  let leader: Leader | undefined;
  const epoch = () => leader?.epoch;
  const contents = contentSeal([pki.sealKey], random);
  const { events, logs } = openHeard(scope, config, kernel, store);
  const dispatch = new Dispatch({
    store,
    clock,
    random,
    log: log.with('dispatch'),
    probe: kernelProbe(clock),
    leadsBy: (leadership) => leader?.wrote(leadership) ?? false,
    mayGrant: () => (leader?.unconfirmedMs ?? Number.POSITIVE_INFINITY) <= confirmedMs,
    notice: (notice) => events.note(notice),
    replicas: () => replicasOf(config, doors.agentPort),
    // The store has opened it.
    unseal: (password) => password,
    openContent: (content) => contents.open(content),
  });
  scope.defer(() => dispatch.close());
  const { liveness, usage } = dispatch;
  const measured = controlPlaneMetrics({ clock, store, liveness, leads: () => epoch() !== undefined, version });
  metrics = measured;
  scope.defer(() => measured.close());
  const doors = await openDoors(config, kernel, scope, {
    ...{ identity, store, dispatch, epoch, events, logs, contents, probe },
    asOfMs: () => leader?.asOfMs,
    registry: measured.registry,
  });

  leader = new Leader({
    store,
    clock,
    log: log.with('leader'),
    self: { replica: config.name, address: joinHostPort(config.advertise, doors.agentPort) },
    probe,
    replicas: () => replicasOf(config, doors.agentPort),
    succeeded: (by) => dispatch.succeeded(by),
    onLead: (epoch, term) => {
      events.lead(term);
      void runControllers(
        {
          store,
          clock,
          random,
          log: log.with('controllers'),
          liveness,
          usage,
          bootId: readBootId(),
          removeVolume: volumeRemoval(dispatch.relays),
        },
        epoch,
        term,
      );
    },
  });
  keepIdentity(scope, config, kernel, { identity, store, epoch });
  const contender = leader;
  scope.defer(() => contender.close());
  await leader.start();
  log.info('control plane is up', {
    address: joinHostPort(config.advertise, doors.agentPort),
    revision: store.snapshot.revision,
  });
  return { ...doors, failed, close: () => scope.close() };
}

interface Inside {
  readonly identity: LiveIdentity;
  readonly store: Store;
  readonly dispatch: Dispatch;
  readonly events: EventLog;
  readonly logs: LogStore;
  readonly contents: ContentSeal;
  /** As in LeaderParts. */
  readonly probe: (address: string) => Promise<number | undefined>;
  /** This replica leads with; undefined while it follows. */
  readonly epoch: () => number | undefined;
  /** As in OperatorParts. */
  readonly asOfMs: () => number | undefined;
  readonly registry: ControlPlaneMetrics['registry'];
}

/** HOST:PORT of all, with one port: that of another on its machine is not known here. */
function replicasOf({ managers }: ControlPlaneConfig, agentPort: number): string[] {
  return managers.map(({ address }) => joinHostPort(address, agentPort));
}

/** What operators are told on a manager that waits. */
function noClusterYet(first: string): Fault {
  return new Fault(
    'unavailable',
    `there is no cluster yet: ${first} founds it, or restores it, and this manager waits`,
    {
      remedy: `start etcd, NATS and the control plane of ${first}, the first of GANTRY_MANAGERS`,
    },
  );
}

/** All that others may call, and who may. */
async function openDoors(
  config: ControlPlaneConfig,
  kernel: Kernel,
  scope: Scope,
  { identity, store, dispatch, events, logs, contents, probe, epoch, asOfMs, registry }: Inside,
): Promise<Doors> {
  const { clock, random, log } = kernel;
  const { authority } = identity;
  const lifetimeMs = config.certificateLife;
  const enrolment = new Enrolment({ store, authority, lifetimeMs, clock, random, log: log.with('enrolment') });
  const addresses: string[] = [];
  const doors = leaderDoors(() => replicaCredentials(identity));
  scope.defer(identity.onChange(() => doors.close()));
  scope.defer(() => doors.close());
  const operator = operatorService({
    ...{ store, clock, random, events, logs, authority, enrolment, addresses, asOfMs, probe },
    log: log.with('api'),
    relays: dispatch.relays,
    usage: dispatch.usage,
    liveness: dispatch.liveness,
    leader: () => {
      const { leadership } = store;
      return leadership && leadership.replica !== config.name ? doors.at(leadership.address) : undefined;
    },
    contents,
    identity: () => identityFiles(config.data),
    newRoot: (by) => rootAfter(by, random),
    plan: planTasks,
    wishes: new Turns(),
    version,
  });
  const agent = agentService({ dispatch, renew: (node, { csrPem }) => enrolment.renew(node, csrPem) });
  const isMember = onlyMembers((node) => store.snapshot.node(node));
  const pong = (): PingResponse => ({
    replica: config.name,
    epoch: epoch() ?? store.leadership?.epoch ?? 0,
    leading: epoch() !== undefined,
    atMs: clock.now(),
  });
  const agentPort = await serveTcp(
    scope,
    { address: config.listen, port: config.agentPort, flag: '--agent-port' },
    identity.door.credentials({ clients: true }),
    [
      {
        definition: agentServiceDefinition,
        // Dispatch tells a node that was removed to hold nothing before it refuses it.
        handlers: guarded(agentServiceDefinition, agent, isMember, { session: onlyNodes }),
      },
      {
        definition: OperatorService,
        handlers: guarded(OperatorService, operator, onlyOperators, { backup: nobodyFromElsewhere }),
      },
      {
        definition: ClusterService,
        handlers: guarded(ClusterService, { ping: unary(async () => pong()) }, onlyReplicas),
      },
    ],
  );
  addresses.push(...replicasOf(config, agentPort));
  const enrolPort = await serveTcp(
    scope,
    { address: config.listen, port: config.enrolPort, flag: '--enrol-port', messageBytes: enrolmentBytes },
    identity.enrolDoor.credentials({ clients: false }),
    [
      {
        definition: EnrolmentService,
        handlers: {
          enrol: unary((request) => enrolment.enrol(request)),
          time: unary(async () => ({ atMs: clock.now() })),
        },
      },
    ],
  );
  // Whoever can open a socket of mode 0600 is root on a manager, and an operator.
  await serveSocket(scope, config.socket, [{ definition: OperatorService, handlers: operator }]);
  const monitoring = await serveMetrics({
    registry,
    port: config.metricsPort,
    ailment: () => (store.leadership ? undefined : 'no replica leads'),
  });
  scope.defer(() => monitoring.close());
  return { agentPort, enrolPort, metricsPort: monitoring.port };
}

/** NATS for what is heard; without it events are only those of this run, and logs are refused. */
function openHeard(
  scope: Scope,
  config: ControlPlaneConfig,
  { clock, random, log }: Kernel,
  store: Store,
): { readonly events: EventLog; readonly logs: LogStore } {
  const files = pkiPaths(config.data, 'client');
  const nats = config.nats
    ? openNats({
        url: config.nats,
        name: `control-plane ${config.name}`,
        ...(config.nats.startsWith('tls:') && { tls: { caFile: files.ca, certFile: files.cert, keyFile: files.key } }),
      })
    : undefined;
  if (nats) scope.defer(() => nats.close());
  const copies = Math.min(config.managers.length, mostCopies);
  const stream = nats && natsEventStream({ nats, clock, copies });
  const events = eventLog({ clock, random, log: log.with('events'), store, stream });
  scope.defer(() => events.close());
  return { events, logs: nats ? logStore({ nats, clock, copies }) : noLogs };
}

/** Of what NATS keeps; more would only be written more often. */
const mostCopies = 3;

const noLogs: LogStore = {
  // biome-ignore lint/correctness/useYield: there is nothing to tell.
  async *read() {
    throw new Fault('unavailable', 'this cluster keeps no logs', { remedy: 'run the control plane with --nats' });
  },
};
