/** What every node's network must say, told from what the control plane has stored alone; none of the code that plans networks is used. */

/** A service, a task and a node of the store, as far as they matter here. */
export interface StoredService {
  readonly id: string;
  readonly name: string;
  readonly project: string;
  readonly vip: string;
}
export interface StoredTask {
  readonly id: string;
  readonly serviceId: string;
  readonly state: string;
  readonly wanted: string;
  readonly health: string;
  readonly address: string;
  /** Its node is down: it may run, and nobody is led to it. */
  readonly absence?: unknown;
}
export interface StoredNode {
  readonly name: string;
  readonly address: string;
  readonly subnet: string;
}
export interface Stored {
  readonly revision: number;
  readonly services: readonly StoredService[];
  readonly tasks: readonly StoredTask[];
  readonly nodes: readonly StoredNode[];
}

/** What a node says, or is to say; each list sorted. */
export interface NodeAnswers {
  /** `10.192.2.0/24 via 10.90.0.2`, `unreachable 10.192.0.0/11`, `10.224.0.0/14 dev gantry0`. */
  readonly routes: readonly string[];
  /** Gateways of the tables by which replies go back. */
  readonly ways: readonly string[];
  /** `VIP -> address,address`. */
  readonly vips: readonly string[];
  /** `name -> address,address`. */
  readonly names: readonly string[];
}

/** What of a node's kernel does not depend on the store: forwarding, the rules of our chains, each task's link on the bridge. */
export type KernelWords = readonly string[];

const network = '10.192.0.0/11';
const vipNetwork = '10.224.0.0/14';

/** The addresses at which a service may be called now. */
export function servingOf(stored: Stored, service: StoredService): readonly string[] {
  const addresses = stored.tasks.flatMap((task) =>
    task.serviceId === service.id &&
    task.state === 'running' &&
    task.wanted === 'running' &&
    (task.health === '' || task.health === 'healthy') &&
    !task.absence &&
    task.address !== ''
      ? [task.address]
      : [],
  );
  return [...new Set(addresses)].sort();
}

/** The names that are asked for on each node. */
export function namesOf(stored: Stored): readonly string[] {
  return stored.services.flatMap(({ name, project }) => {
    const full = `${name}.${project}.gantry.internal`;
    return [full, `tasks.${full}`];
  });
}

/** What the node must say at this moment of the store. */
export function oracle(stored: Stored, node: string): NodeAnswers {
  const peers = stored.nodes.filter((peer) => peer.name !== node && peer.subnet !== '' && peer.address !== '');
  const vips: string[] = [];
  const names: string[] = [];
  for (const service of stored.services) {
    const serving = servingOf(stored, service).join();
    if (serving !== '') vips.push(`${service.vip} -> ${serving}`);
    const full = `${service.name}.${service.project}.gantry.internal`;
    names.push(`${full} -> ${service.vip}`, `tasks.${full} -> ${serving}`);
  }
  const routes = peers.map((peer) => `${peer.subnet} via ${peer.address}`);
  return {
    routes: [...routes, `unreachable ${network}`, `${vipNetwork} dev gantry0`].sort(),
    ways: peers.map((peer) => peer.address).sort(),
    vips: vips.sort(),
    names: names.sort(),
  };
}

/** Addresses of tasks that have ended and that no task has now: nobody may be led to them any more. */
export function goneOf(stored: Stored): ReadonlySet<string> {
  const ended = ['complete', 'failed', 'rejected', 'shutdown', 'orphaned', 'remove'];
  const live = new Set(stored.tasks.filter((task) => !ended.includes(task.state)).map((task) => task.address));
  return new Set(stored.tasks.map((task) => task.address).filter((address) => address !== '' && !live.has(address)));
}

/** The addresses that a node leads clients to. */
export function ledTo(answers: NodeAnswers): ReadonlySet<string> {
  const tasks = answers.names.filter((line) => line.startsWith('tasks.'));
  const lists = [...answers.vips, ...tasks].map((line) => line.split(' -> ')[1] ?? '');
  return new Set(lists.flatMap((list) => list.split(',')).filter((address) => address !== ''));
}

/** In what the two differ, a line each. */
export function differences(expected: NodeAnswers, seen: NodeAnswers): readonly string[] {
  return (['routes', 'ways', 'vips', 'names'] as const).flatMap((part) => {
    const [wanted, found] = [new Set(expected[part]), new Set(seen[part])];
    return [
      ...expected[part].filter((line) => !found.has(line)).map((line) => `${part}: missing ${line}`),
      ...seen[part].filter((line) => !wanted.has(line)).map((line) => `${part}: unwanted ${line}`),
    ];
  });
}

/** What a host is asked, for `readAnswers` to read. */
export function questions(names: readonly string[]): string {
  const lookups = names.map((name) => `echo "?${name}"; timeout 0.4 busybox nslookup -type=a ${name}. $gateway 2>&1`);
  return `gateway=$(ip -4 -o address show dev gantry0 | awk '{ split($4, a, "/"); print a[1]; exit }')
echo "#routes"; ip -4 route show proto 71
echo "#ways"; ip -4 route show proto 71 table all
echo "#services"; nft list map ip gantry services
echo "#backends"; nft list map ip gantry backends
echo "#names"; ${lookups.join('; ')}
echo "#kernel"; sysctl -n net.ipv4.ip_forward
for chain in incoming replies prerouting output postrouting forward input local; do
  echo "$chain $(nft -s list chain ip gantry $chain 2>&1 | md5sum)"
done
echo "links $(ip -o link show master gantry0 up | wc -l) of $(ls /run/gantry/netns | wc -l)"`;
}

function partOf(text: string, name: string): string {
  return text.split(/^#/m).find((part) => part.startsWith(`${name}\n`)) ?? '';
}

/** The kernel's words in an answer to `questions`. */
export function readKernel(text: string): KernelWords {
  return lines(partOf(text, 'kernel')).flatMap((line) => {
    const [, up, all] = /^links (\d+) of (\d+)$/.exec(line) ?? [];
    return line === '' || (up !== undefined && up === all) ? [] : [line];
  });
}

export function readAnswers(text: string): NodeAnswers {
  const part = (name: string) => partOf(text, name);
  const main = lines(part('routes')).flatMap((line) => {
    const [, route] =
      /^(unreachable \S+|\S+ via \S+|\S+ dev gantry0)/.exec(line.replace(/ (proto|scope|metric) .*/, '')) ?? [];
    return route ? [route] : [];
  });
  const ways = [...part('ways').matchAll(/^default via (\S+) .*table \d+/gm)].map((match) => match[1] as string);
  const members = new Map<string, [number, string][]>();
  for (const [, vip, index, address] of part('backends').matchAll(/([\d.]+) \. (\w+) : ([\d.]+)/g)) {
    const list = members.get(vip as string) ?? [];
    list.push([Number(index), address as string]);
    members.set(vip as string, list);
  }
  const vips = [...part('services').matchAll(/([\d.]+) : goto k(\d+)/g)].map(([, vip, count]) => {
    const addresses = (members.get(vip as string) ?? [])
      .filter(([index]) => index < Number(count))
      .map(([, one]) => one);
    return `${vip} -> ${addresses.sort().join()}`;
  });
  const names = part('names')
    .split(/^\?/m)
    .slice(1)
    .map((answer) => {
      const [name] = answer.split('\n');
      const found = [...answer.matchAll(/^Address(?: \d+)?: ([\d.]+)$/gm)].map((match) => match[1] as string);
      return `${name} -> ${/can't find|NXDOMAIN|timed out|refused/i.test(answer) ? 'nothing' : found.sort().join()}`;
    });
  return { routes: main.sort(), ways: ways.sort(), vips: vips.sort(), names: names.sort() };
}

const lines = (text: string) => text.split('\n').slice(1);
