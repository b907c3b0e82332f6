/** What the control plane's books alone say of a path: nodes, tasks, health, and who may call whom. Pure. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Finding } from '#proto/model/net-finding.ts';
import { defaultNetworkOf, sharedNetworkOf } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { isWanted, type Task } from '#proto/model/task.ts';
import { nameOfService } from './names.ts';
import { nameOfTask, tasksOf, templateOf } from './net-places.ts';

/** A finding of the control plane's own books. */
export function known(
  hop: Finding['hop'],
  verdict: Finding['verdict'],
  says: string,
  remedy = '',
  subject = '',
): Finding {
  return { path: '', hop, node: '', verdict, says, remedy, subject, wanted: '', seen: '' };
}

export function nodeFact(node: Node): Finding {
  if (node.state === 'ready') return known('node', 'good', `node ${node.name} is ready`, '', node.name);
  const remedy = `is the machine up, and its agent (systemctl status gantry-agent)? else gantry node rm ${node.name}`;
  return known(
    'node',
    'broken',
    `node ${node.name} is ${node.state}${node.message ? `: ${node.message}` : ''}`,
    remedy,
    node.name,
  );
}

export function taskFact(snapshot: Snapshot, task: Task): Finding {
  const name = nameOfTask(task);
  const node = task.nodeId === '' ? undefined : snapshot.node(task.nodeId);
  if (node && node.state !== 'ready') return nodeFact(node);
  const template = templateOf(snapshot, task);
  if (template?.networkMode === 'none')
    return known(
      'isolation',
      'broken',
      `${name} has no network (network_mode: none)`,
      'take network_mode: none out of the Compose file',
      name,
    );
  if (task.state === 'running' && task.wanted === 'running')
    return known('task', 'good', `${name} runs on ${task.nodeName}`, '', name);
  const why = task.error || task.message;
  const remedy = `gantry why ${name} and gantry logs ${name} say more`;
  return known(
    'task',
    'broken',
    `${name} is ${isWanted(task) ? task.state : 'being stopped'}${why ? `: ${why}` : ''}`,
    remedy,
    name,
  );
}

export function healthFact(task: Task): Finding[] {
  const name = nameOfTask(task);
  if (task.health === '' || task.state !== 'running') return [];
  if (task.health === 'healthy') return [known('health', 'good', `${name} is healthy`, '', name)];
  const remedy = `its health check fails or has not passed yet: gantry inspect ${name}, gantry logs ${name}`;
  return [known('health', 'broken', `${name} is ${task.health}: nobody is led to it`, remedy, name)];
}

/** Whether the networks and the rules of a service let a task call it. */
export function isolation(snapshot: Snapshot, caller: Task, service: Service): Finding {
  const [from, to] = [nameOfTask(caller), nameOfService(service)];
  const owner = networkOwner(snapshot, caller);
  const mine = owner === 'host' ? [] : networksOf(templateOf(snapshot, owner), owner.project);
  const theirs = networksOf(service.spec.template, service.spec.project);
  const shared = mine.filter((name) => theirs.includes(name));
  const words = (names: readonly string[]) => names.join(', ') || 'none';
  // Who is on its host's network is a host of the cluster, and those pass.
  const hostly = owner === 'host' || service.spec.template.networkMode === 'host';
  if (hostly) return known('isolation', 'good', `${from} and ${to}: one is on its host's network`);
  if (shared.length === 0) {
    const remedy = `put both on one network: networks: [${theirs[0] ?? 'NAME'}] of ${caller.serviceName} too (external: true where another project declares it)`;
    const says = `${from} is on ${words(mine)}, ${to} on ${words(theirs)}: they share no network`;
    return { ...known('isolation', 'broken', says, remedy, to), wanted: words(theirs), seen: words(mine) };
  }
  const { allowFrom } = service.spec;
  const names = [
    '*',
    `${caller.project}/${caller.serviceName}`,
    ...(caller.project === service.spec.project ? [caller.serviceName] : []),
  ];
  if (allowFrom && caller.serviceId !== service.id && !allowFrom.services.some((name) => names.includes(name))) {
    const says = `${to} lets only ${words(allowFrom.services)} in (x-allow-from)`;
    const remedy = `add ${names.at(-1)} to x-allow-from of ${to}`;
    return { ...known('isolation', 'broken', says, remedy, to), wanted: words(allowFrom.services), seen: from };
  }
  return known('isolation', 'good', `both are on ${words(shared)}`, '', to);
}

function networksOf(template: ReturnType<typeof templateOf>, project: string): readonly string[] {
  if (template?.networkMode !== '') return [];
  const names = template.networks.map(({ network }) => network);
  return names.length > 0 ? names : [defaultNetworkOf(project)];
}

/** The task whose network a task has: its own, or that of the one beside it (network_mode: service:NAME); `host`: its node's. */
function networkOwner(snapshot: Snapshot, task: Task): Task | 'host' {
  const mode = templateOf(snapshot, task)?.networkMode ?? '';
  if (mode === 'host') return 'host';
  const name = sharedNetworkOf(mode);
  const service = name === undefined ? undefined : snapshot.serviceNamed(task.project, name);
  const owner =
    service && tasksOf(snapshot, service).find((one) => one.slot === task.slot && one.nodeId === task.nodeId);
  // Who names itself, or one another, is refused at apply.
  return owner && owner.id !== task.id ? networkOwner(snapshot, owner) : task;
}

/** Whose namespace that is, as probes are told. */
export function namespaceOf(snapshot: Snapshot, task: Task): string {
  const owner = networkOwner(snapshot, task);
  return owner === 'host' ? '' : owner.id;
}

/** What a node saw of a packet that was sent. */
export interface Watched {
  readonly node: Node;
  readonly findings: readonly Finding[];
}

/** Where a packet that no rule of nftables stops is last seen, of the nodes in the order of its way; undefined where it is answered. */
export function whereLost(seen: readonly Watched[], reached: readonly Finding[]): Finding | undefined {
  const silent = reached.some(
    ({ hop, verdict, seen: error }) => hop === 'reach' && verdict === 'broken' && error === 'silent',
  );
  if (!silent || seen.some(({ findings }) => findings.some(({ verdict }) => verdict === 'broken'))) return undefined;
  const saw = seen.map(({ findings }) => findings.length > 0);
  const last = saw.lastIndexOf(true);
  const here = seen[last]?.node;
  const next = seen[last + 1]?.node;
  if (!here) return undefined;
  if (next) {
    const remedy = `look at what is between them: cables, switches, a cloud's security groups; and what nftables does not show: iptables-legacy -S, tc filter show`;
    return {
      ...known(
        'link',
        'unknown',
        `the packet leaves ${here.name} and does not come to ${next.name}`,
        remedy,
        next.name,
      ),
      node: next.name,
    };
  }
  const remedy = `what nftables does not show may drop it: iptables-legacy -S, rp_filter (sysctl -a | grep rp_filter); or the program is too busy to answer: gantry logs, gantry stats`;
  return {
    ...known(
      'firewall',
      'unknown',
      `the packet comes to ${here.name}, no rule of nftables drops it, and no answer goes back`,
      remedy,
      here.name,
    ),
    node: here.name,
  };
}
