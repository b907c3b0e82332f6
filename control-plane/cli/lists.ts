/** `gantry ps`, `services`, `nodes`, `inspect`, `info`, `version`. */
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import type { Port, Resources, Service, Task } from '#proto/gen/gantry/v1/types.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { taskName } from '#proto/model/ids.ts';
import { isJob } from '#proto/model/job.ts';
import { clientVersion } from './client-version.ts';
import { filtered, historyFilters, nodeFilters, parseFilters, serviceFilters, taskFilters } from './list-filters.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';
import { ago, bytes, cores, oneLine, table } from './words.ts';

interface ListOptions extends CommonOptions {
  readonly all?: true;
  readonly node?: string;
  readonly project?: string;
  /** Ids alone, a line each. */
  readonly quiet?: true;
  readonly filter?: readonly string[];
}

export function ps(options: ListOptions, service = ''): Promise<number> {
  return withSession(options, async (session) => {
    const { node = '', project = '', all = false } = options;
    const byId = new Map<string, Service>();
    const filters = taskFilters(({ serviceId }) => byId.get(serviceId));
    const wanted = parseFilters(options.filter ?? [], filters, 'tasks');
    const isAsked = (key: string) => wanted.some((one) => one.key === key);
    if (isAsked('label')) {
      const { services } = await session.call(methods.list, ListRequest.create({ kind: 'service', project }));
      for (const { service } of services) if (service) byId.set(service.id, service);
    }
    const history = all || [...historyFilters].some(isAsked);
    const request = ListRequest.create({ kind: 'task', service, node, project, all: history });
    const tasks = filtered((await session.call(methods.list, request)).tasks, wanted, filters);
    if (session.json) session.printJson(tasks.map(taskJson));
    else if (options.quiet) printIds(session, tasks);
    else if (tasks.length === 0) session.print('There are no tasks.');
    else {
      const now = systemClock.now();
      const rows = tasks.map((task) => [
        ...(all ? [task.id.slice(0, 8)] : []),
        taskName(task),
        stateOf(session, task),
        task.nodeName,
        [task.address, ...task.addresses.map(({ address }) => address)].join(' ').trim(),
        ago(task.stateAtMs, now),
        reasonOf(task),
      ]);
      session.print(
        table(
          [...(all ? ['ID'] : []), 'TASK', 'STATE', 'NODE', 'ADDRESS', 'SINCE', 'REASON'],
          rows,
          session.colours.bold,
        ),
      );
    }
    return 0;
  });
}

function printIds({ print }: Session, items: readonly { readonly id: string }[]): void {
  if (items.length > 0) print(items.map(({ id }) => id).join('\n'));
}

/** The proto-JSON of a task, and what people call it and its node. */
export function taskJson(task: Task): object {
  return { name: taskName(task), node: task.nodeName, ...task };
}

/** Of what runs as it should there is nothing to say; of what is stopping, what it waits for. */
function reasonOf(task: Task): string {
  return task.error || (task.message === 'running' ? '' : task.message);
}

function runningOrIsolated({ isolatedUntilMs }: Task): 'running' | 'isolated' {
  return isolatedUntilMs > 0 ? 'isolated' : 'running';
}

function stateOf({ colours }: Session, task: Task): string {
  const health = task.state === 'running' && task.health ? ` (${task.health})` : '';
  const exit =
    task.finishedAtMs > 0 && task.state !== 'rejected' && task.state !== 'orphaned' ? ` (${task.exitCode})` : '';
  const going =
    task.state !== 'running' ? task.state : task.wanted === 'shutdown' ? 'stopping' : runningOrIsolated(task);
  const colour =
    {
      running: colours.green,
      failed: colours.red,
      rejected: colours.red,
      pending: colours.yellow,
      orphaned: colours.yellow,
      isolated: colours.yellow,
    }[going] ?? ((text: string) => text);
  return colour(`${going}${task.absence ? ` (node ${task.nodeName} is down)` : health}${exit}`);
}

export function services(options: ListOptions): Promise<number> {
  return withSession(options, async (session) => {
    const asked = parseFilters(options.filter ?? [], serviceFilters, 'services');
    const request = ListRequest.create({ kind: 'service', project: options.project ?? '' });
    const services = filtered((await session.call(methods.list, request)).services, asked, serviceFilters);
    if (session.json)
      session.printJson(services.map(({ service, running, wanted }) => ({ ...service, running, wanted })));
    else if (options.quiet)
      printIds(
        session,
        services.flatMap(({ service }) => service ?? []),
      );
    else if (services.length === 0 && asked.length > 0) session.print('There are no such services.');
    else if (services.length === 0) session.print('There are no services. Deploy one: gantry apply -f FILE');
    else {
      const now = systemClock.now();
      const rows = services.map(({ service, running, wanted }) => {
        const spec = service?.spec;
        const ends = spec !== undefined && isJob(spec);
        const count = `${running}/${wanted}${ends ? ' completed' : ''}`;
        const state = service?.removing
          ? 'removing'
          : service?.rollout && service.rollout.state !== 'idle' && service.rollout.state !== 'completed'
            ? `${service.rollout.state}${service.rollout.message ? `: ${service.rollout.message}` : ''}`
            : '';
        return [
          `${spec?.project}/${spec?.name}`,
          spec?.mode ?? '',
          running >= wanted ? session.colours.green(count) : session.colours.yellow(count),
          spec?.template?.container?.image ?? '',
          (spec?.ports ?? []).map(portText).join(', '),
          ago(service?.updatedAtMs ?? 0, now),
          state,
        ];
      });
      session.print(
        table(['SERVICE', 'MODE', 'RUNNING', 'IMAGE', 'PORTS', 'UPDATED', 'ROLLOUT'], rows, session.colours.bold),
      );
    }
    return 0;
  });
}

function portText({ published, target, protocol, mode }: Port): string {
  return `${published ? `${published}→` : ''}${target}${protocol === 'tcp' ? '' : `/${protocol}`}${mode === 'host' ? ' host' : ''}`;
}

export function nodes(options: ListOptions): Promise<number> {
  return withSession(options, async (session) => {
    const asked = parseFilters(options.filter ?? [], nodeFilters, 'nodes');
    const request = ListRequest.create({ kind: 'node' });
    const nodes = filtered((await session.call(methods.list, request)).nodes, asked, nodeFilters);
    if (session.json) session.printJson(nodes.map(({ node, tasks, reserved }) => ({ ...node, tasks, reserved })));
    else if (options.quiet)
      printIds(
        session,
        nodes.flatMap(({ node }) => node ?? []),
      );
    else if (nodes.length === 0 && asked.length > 0) session.print('There are no such nodes.');
    else if (nodes.length === 0) session.print('There are no nodes. Join one: gantry token create');
    else {
      const { colours } = session;
      const now = systemClock.now();
      const devices = nodes.some(({ node }) => node?.capacity?.generic.length);
      const rows = nodes.map(({ node, tasks, reserved }) => [
        node?.name ?? '',
        node?.state === 'ready' ? colours.green('ready') : colours.red(node?.state ?? ''),
        node?.availability ?? '',
        node?.address ?? '',
        node?.subnet ?? '',
        String(tasks),
        `${cores(reserved?.cpuMillis ?? 0)}/${cores(node?.capacity?.cpuMillis ?? 0)}`,
        `${bytes(reserved?.memoryBytes ?? 0)}/${bytes(node?.capacity?.memoryBytes ?? 0)}`,
        ...(devices ? [devicesText(node?.capacity, reserved)] : []),
        node?.agentVersion ?? '',
        Object.entries(node?.labels ?? {})
          .map(([key, value]) => `${key}=${value}`)
          .join(' '),
        ago(node?.stateAtMs ?? 0, now),
      ]);
      session.print(
        table(
          [
            ...['NODE', 'STATE', 'AVAILABILITY', 'ADDRESS', 'SUBNET', 'TASKS', 'CPUS', 'MEMORY'],
            ...(devices ? ['DEVICES'] : []),
            ...['VERSION', 'LABELS', 'SINCE'],
          ],
          rows,
          colours.bold,
        ),
      );
      for (const { node } of nodes)
        if (node?.message) session.print(colours.yellow(`${node.name}: ${oneLine(node.message)}`));
    }
    return 0;
  });
}

/** `gpu 1/2 fpga 0/1`: given away, of what the node offers. */
function devicesText(capacity: Resources | undefined, reserved: Resources | undefined): string {
  const given = (kind: string) => reserved?.generic.find((one) => one.kind === kind)?.count ?? 0;
  return (capacity?.generic ?? []).map(({ kind, count }) => `${kind} ${given(kind)}/${count}`).join(' ');
}

/** Always JSON: everything there is to know. */
export function inspect(options: CommonOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { object, template, checks } = await session.call(methods.inspect, { name, kind: '' });
    const value = object?.$case === 'task' ? { ...taskJson(object.value), checks, template } : object?.value;
    session.printJson({ kind: object?.$case, ...value });
    return 0;
  });
}

const managerWords: Readonly<Record<string, string>> = {
  leads: 'leads',
  follows: 'follows',
  silent: 'does not answer',
};

export function info(options: CommonOptions): Promise<number> {
  return withSession(options, async (session) => {
    const info = await session.call(methods.info, {});
    if (session.json) session.printJson(info);
    else {
      const rows = [
        ['Cluster', info.clusterId],
        ['Control plane', `${info.version} at ${session.target}`],
        ['Leader', `${info.leader} (epoch ${info.epoch})`],
        ['Revision', String(info.revision)],
        [
          'Managers',
          info.managers.map(({ address, state }) => `${address} ${managerWords[state] ?? state}`).join(', '),
        ],
        ['Task network', info.cluster?.network ?? ''],
        ['Service network', info.cluster?.vipNetwork ?? ''],
        ['Domain', info.cluster?.domain ?? ''],
        ['CA', info.caFingerprint],
      ];
      const [first, ...rest] = rows;
      session.print(table(first!, rest));
    }
    return 0;
  });
}

export function version(options: CommonOptions): Promise<number> {
  const client = clientVersion();
  return withSession(options, async (session) => {
    const server = await session.call(methods.info, {}).catch((error) => {
      if (!isFault(error, 'unavailable', 'timeout')) throw error;
      return undefined;
    });
    if (session.json) session.printJson({ client, controlPlane: server?.version ?? null, node: process.version });
    else {
      session.print(`gantry         ${client} (Node ${process.version})`);
      session.print(`control plane  ${server ? server.version : `not reached at ${session.target}`}`);
    }
    return 0;
  });
}
