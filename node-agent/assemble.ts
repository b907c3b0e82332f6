/** The only place where the agent's real parts are made and joined: containerd, conmon, the kernel's network, NATS, certificates. */
import { existsSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostFacts, readHostFacts } from '#net/host/host-facts.ts';
import { resetNetwork } from '#net/host/reset.ts';
import { seeker } from '#net/host/seek.ts';
import { connectFrom } from '#net/host/task-socket.ts';
import { hostNetwork } from '#net/host-network.ts';
import { issuerOf, whyRefused } from '#proto/certificates.ts';
import { holdDirectory } from '#proto/hold-directory.ts';
import { readBootId } from '#proto/kernel/boot-id.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { retry } from '#proto/kernel/retry.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { serveMetrics } from '#proto/metrics-server.ts';
import { leaseComponent, unaddressedComponent } from '#proto/model/node.ts';
import { openNats } from '#proto/nats.ts';
import { type Agent, startAgent } from './agent.ts';
import { whyClock } from './clock-check.ts';
import type { AgentConfig, ImportConfig, ResetConfig } from './config.ts';
import { claimForm } from './form.ts';
import { grpcTransport } from './grpc-transport.ts';
import { enrol, formerMember, formerPath, identityPaths, loadIdentity, type NodeIdentity } from './identity.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { containerdImages } from './images/containerd-images.ts';
import { collectImages, diskUsage } from './images/gc.ts';
import type { ImageRecords } from './images/images.ts';
import { parseReference } from './images/reference.ts';
import { Journal } from './journal.ts';
import { journalFile } from './journal-file.ts';
import { natsLogSink, nodeInbox } from './logs/nats-log-sink.ts';
import { agentVersion, describeMachine, machinePlatform } from './machine.ts';
import { agentMetrics } from './metrics.ts';
import { resetNode } from './reset.ts';
import { cgroupOf, findCgroups } from './runtime/cgroup.ts';
import { conmonRuntime } from './runtime/conmon-runtime.ts';
import { listensOn } from './task/listening.ts';
import { taskLogs } from './task-logs.ts';
import { taskDocuments } from './volumes/task-documents.ts';
import { taskMounts } from './volumes/task-mounts.ts';
import { hostVolumes } from './volumes/volumes.ts';
import { dismissWatchdog } from './watchdog/dismiss.ts';
import { watchdogHeartbeat } from './watchdog/heartbeat-watchdog.ts';
import { hostFence, shell } from './watchdog/host-fence.ts';
import { openLease } from './watchdog/lease-file.ts';
import { ownCode } from './watchdog/own-code.ts';

export interface Kernel {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface RunningAgent {
  readonly agent: Agent;
  /** Containers and network go on without it. */
  close(): Promise<void>;
}

/** Brings the agent up. Faults: what keeps it from starting, with the remedy. */
export async function assembleAgent(config: AgentConfig, kernel: Kernel, signal: AbortSignal): Promise<RunningAgent> {
  const scope = new Scope();
  try {
    return await assemble(config, kernel, signal, scope);
  } catch (error) {
    await scope.close();
    throw error;
  }
}

/** Takes the images of archives to this node; the names that tasks may call them by. Faults: `invalid`, `corrupt`, `unavailable` (no containerd). */
export async function importArchives({ files, containerd }: ImportConfig, kernel: Kernel): Promise<readonly string[]> {
  const images = await containerdImages({ socket: containerd, platform: machinePlatform(), ...kernel });
  try {
    const names: string[] = [];
    for (const file of files) names.push(...(await images.importArchive(file)));
    return names;
  } finally {
    images.close();
  }
}

/** Ends what an agent, which must not run, has left on this machine. Faults: `conflict` (it runs). */
export async function resetMachine({ data, run, containerd, purge }: ResetConfig, kernel: Kernel) {
  const scope = new Scope();
  try {
    scope.defer(holdDirectory(run, 'agent'));
    dismissWatchdog(run);
    const runtime = await conmonRuntime({ ...kernel, root: data, run });
    scope.defer(() => runtime.close());
    const images = await containerdImages({ socket: containerd, platform: machinePlatform(), ...kernel }).catch(
      (error) => {
        if (!isFault(error, 'unavailable', 'timeout')) throw error;
        return undefined;
      },
    );
    if (images) scope.defer(() => images.close());
    const documents = taskDocuments(run);
    return await resetNode({ data, run, purge, runtime, images, documents, resetNetwork: () => resetNetwork(run) });
  } finally {
    await scope.close();
  }
}

async function assemble(config: AgentConfig, kernel: Kernel, signal: AbortSignal, scope: Scope): Promise<RunningAgent> {
  const { clock, random, log } = kernel;
  for (const path of [config.data, config.run]) mkdirSync(path, { recursive: true, mode: 0o700 });
  scope.defer(holdDirectory(config.run, 'agent'));
  claimForm(config.data, agentVersion);
  const bootId = readBootId(config.bootIdFile);
  let agent: Agent | undefined;
  const keeper = keepIdentity(config, kernel, await ownIdentity(config, kernel, signal), () => agent);
  scope.defer(() => keeper.close());
  const file = journalFile(join(config.data, 'journal'));
  scope.defer(() => file.close());
  const journal = new Journal(file, (health) =>
    health.onDisk
      ? log.info('the journal is on disk again')
      : log.error('the journal cannot be written: it goes on in memory', { error: health.error }),
  );

  const runtime = await conmonRuntime({ clock, log: log.with('runtime'), root: config.data, run: config.run });
  scope.defer(() => runtime.close());
  const images = await patiently(kernel, signal, 'containerd does not answer yet', () =>
    containerdImages({
      socket: config.containerd,
      platform: machinePlatform(),
      clock,
      random,
      log: log.with('images'),
      insecureRegistries: config.insecureRegistries,
    }),
  );
  scope.defer(() => images.close());
  const network = await hostNetwork({ clock, log, runDir: config.run, dataDir: config.data });
  scope.defer(() => network.close());
  const volumes = hostVolumes({ data: config.data, forbidden: [config.data, config.run, config.containerd] });
  const mounts = taskMounts({ data: config.data, documents: taskDocuments(config.run), volumes });
  const { key, cert, ca } = identityPaths(config.data);
  const logs = await taskLogs({
    clock,
    random,
    log: log.with('logs'),
    data: config.data,
    endedLogsBytes: config.endedLogsBytes,
    reopen: (task) => runtime.reopenLog(task),
    open: (url) => {
      const nats = openNats({
        url,
        name: config.name,
        inboxPrefix: nodeInbox,
        tls: { keyFile: key, certFile: cert, caFile: ca },
      });
      return { ...natsLogSink({ nats }), close: () => nats.close() };
    },
  });
  scope.defer(() => logs.close());
  const leases = join(config.run, 'fence');
  const fence = hostFence({
    clock,
    log: log.with('fence'),
    cgroups: findCgroups(),
    groupOf: (task) => cgroupOf(task),
    lease: openLease(leases, bootId),
    bootId,
    directory: leases,
  });
  scope.defer(() => fence.close());
  const heartbeat = watchdogHeartbeat({
    clock,
    log: log.with('watchdog'),
    run: config.run,
    bootId,
    build: ownCode(agentVersion),
    addresses: config.controlPlane,
    identity: () => keeper.identity,
  });
  scope.defer(() => heartbeat.close());

  const metrics = agentMetrics({
    clock,
    statuses: () => journal.statuses(),
    logs: logs.counts,
    connected: () => agent?.session.connected ?? false,
    version: agentVersion,
  });
  network.onRepair(({ message }) => {
    metrics.networkRepaired();
    log.warn('network repaired', { why: message });
  });
  const components = {
    ...(await runtime.versions()),
    containerd: await images.version(),
    ...(existsSync(shell) && { [leaseComponent]: agentVersion }),
    [unaddressedComponent]: agentVersion,
  };
  const { name, advertise: address, subnet: pinnedSubnet, resources } = config;
  const machine = describeMachine({
    name,
    address,
    pinnedSubnet,
    wireguardKey: network.wireguardKey,
    bootId,
    resources,
    components,
  });
  const facts = hostFacts(address, log);
  const running = await startAgent({
    clock,
    random,
    log,
    journal,
    runtime,
    images: metrics.measured(images),
    network,
    mounts,
    logs,
    fence,
    bootId,
    registryOf: (image) => parseReference(image).registry,
    stepDone: metrics.stepDone,
    listensOn,
    connectFrom,
    readLog: (task, sinceMs) => logs.read(task, sinceMs),
    removeVolume: (name) => volumes.remove(name),
    transport: grpcTransport(() => keeper.identity, seeker(clock), clock),
    heartbeat,
    addresses: config.controlPlane,
    describe: () => ({ ...machine, ...facts(), authority: issuerOf(keeper.identity) }),
    trust: (caPem) => keeper.trust(caPem),
  });
  agent = running;
  scope.defer(() => running.close());
  scope.defer(explaining(config, kernel, running, () => keeper.identity));
  scope.defer(collecting(kernel, images.records, config.data));
  if (config.metricsPort > 0) {
    const ailment = () => (running.session.connected ? undefined : 'no session with the control plane');
    const server = await serveMetrics({ registry: metrics.registry, ailment, port: config.metricsPort });
    scope.defer(() => server.close());
  }
  log.info('agent is up', { node: keeper.identity.nodeId, address, count: running.worker.running().length });
  return { agent: running, close: () => scope.close() };
}

/** Tells the host's networks as they are now; nothing of them where the kernel does not say. */
function hostFacts(address: string, log: Log): () => HostFacts {
  let complaint = '';
  return () => {
    let facts: HostFacts = { link: '', address6: '', foreignNetworks: [] };
    let why = '';
    try {
      facts = readHostFacts(address);
      if (facts.link === '') why = 'no link of this host has the address it was given: check --advertise';
    } catch (error) {
      why = describe(error);
    }
    if (why !== complaint && why !== '') log.warn('what the host has of networks is not known', { address, why });
    complaint = why;
    return facts;
  };
}

/** The one on disk, else a new one for the token. */
async function ownIdentity(config: AgentConfig, kernel: Kernel, signal: AbortSignal): Promise<NodeIdentity> {
  const held = await loadIdentity(config.data);
  if (held) return held;
  const { enrol: addresses, token, name, data } = config;
  const former = await formerMember(data);
  const identity = await enrol({ ...kernel, data, addresses, token, name, former, signal });
  await rm(formerPath(data), { recursive: true, force: true });
  kernel.log.info('joined the cluster', { node: identity.nodeId });
  return identity;
}

/** The next session and the heartbeat that goes with it use what it holds then; the running ones live on with what they have. */
function keepIdentity(
  config: AgentConfig,
  kernel: Kernel,
  first: NodeIdentity,
  agent: () => Agent | undefined,
): IdentityKeeper {
  const renew = async (csrPem: string) => {
    const connection = agent()?.session.connection;
    if (connection) return connection.renew(csrPem);
    throw new Fault('unavailable', 'there is no session with the control plane');
  };
  const parts = { ...kernel, data: config.data, renew, swapped: () => agent()?.session.identityChanged() };
  return new IdentityKeeper(parts, first);
}

const explainEveryMs = 10_000;

/** Says why the control plane does not take this node, where its certificate is the reason: who refuses one does not say so. */
function explaining(
  { controlPlane, enrol: enrolmentPorts }: AgentConfig,
  { clock, log }: Kernel,
  { session }: Agent,
  identity: () => NodeIdentity,
): () => void {
  let said = '';
  let wasAway = false;
  const look = async () => {
    const isAway = !session.connected;
    // Once is a redial.
    const clocks = isAway && wasAway ? await whyClock(enrolmentPorts, clock) : undefined;
    if (clocks !== undefined && clocks !== said) log.error(`no session, and clocks differ: ${clocks}`);
    // By a clock that is wrong nothing can be said of certificates.
    const isUnknown = isAway && wasAway && clocks === undefined;
    const why = isUnknown ? await whyRefused(identity(), controlPlane[0]!, clock.now()) : undefined;
    wasAway = isAway;
    if (why !== undefined && why !== said)
      log.error(
        `the control plane and this node do not trust each other: ${why}: move \`identity\` in its data directory to \`identity.former\`, and start its agent with a new token (gantry token create)`,
      );
    said = clocks ?? why ?? '';
  };
  let closed = false;
  let timer = clock.after(explainEveryMs, function again() {
    void look().finally(() => {
      if (!closed) timer = clock.after(explainEveryMs, again);
    });
  });
  return () => {
    closed = true;
    timer.cancel();
  };
}

/** containerd's own, where it is the usual one. */
const imageDirectory = '/var/lib/containerd';
const collectEveryMs = 60_000;

/** Keeps the disk of the images below its watermark. */
function collecting(kernel: Kernel, records: ImageRecords, data: string): () => void {
  const { clock, log } = kernel;
  const path = existsSync(imageDirectory) ? imageDirectory : data;
  const parts = { clock, log: log.with('images'), records, diskUsage: () => diskUsage(path) };
  const turn = () => {
    collectImages(parts)
      .catch((error) => log.warn('images were not collected', { error }))
      .finally(() => {
        if (!stopped) timer = clock.after(collectEveryMs, turn);
      });
  };
  let stopped = false;
  let timer = clock.after(collectEveryMs, turn);
  return () => {
    stopped = true;
    timer.cancel();
  };
}

/** containerd may come up after the agent: waits for it, and says so. */
function patiently<T>(kernel: Kernel, signal: AbortSignal, message: string, action: () => Promise<T>): Promise<T> {
  return retry(
    { ...kernel, signal },
    { initialMs: 100, maxMs: 1_000 },
    async (attempt) => {
      try {
        return await action();
      } catch (error) {
        if (attempt === 1) kernel.log.warn(message, { why: describe(error) });
        throw error;
      }
    },
    (error) => isFault(error, 'unavailable', 'timeout'),
  );
}
