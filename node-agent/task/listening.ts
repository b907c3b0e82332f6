/** When a task of an autoscaled service that has no health check serves: as soon as it listens, or the first requests would be refused. */
import fs from 'node:fs';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import type { Health } from '#proto/model/task.ts';

/** `tcp 80`: what a process has listening sockets on, in its network; undefined where that cannot be read. */
export type ListensOn = (pid: number) => ReadonlySet<string> | undefined;

/** What is to be listened on; `any`: nothing is said, and it is to be called all the same. Undefined: it serves as soon as it runs. Pure. */
export function awaitedPorts(
  endpoint: Pick<Endpoint, 'measured' | 'holdMs' | 'ports'> | undefined,
  container: Pick<ContainerSpec, 'expose'>,
): readonly string[] | 'any' | undefined {
  if (!endpoint?.measured) return undefined;
  const ports = [
    ...endpoint.ports.flatMap(({ protocol, target }) => (protocol === 'sctp' ? [] : [`${protocol} ${target}`])),
    ...container.expose.map((port) => `tcp ${port}`),
  ];
  if (ports.length > 0) return ports;
  return endpoint.holdMs > 0 ? 'any' : undefined;
}

/** Ports from here on are those of who calls. */
const firstEphemeral = 32_768;

/** Pure. */
export function isListening(awaited: readonly string[] | 'any', on: ReadonlySet<string>): boolean {
  if (awaited !== 'any') return awaited.every((port) => on.has(port));
  return [...on].some((port) => Number(port.split(' ')[1]) < firstEphemeral);
}

/** True, too, where nothing is awaited, and where it cannot be seen. */
export function listensAsAwaited(
  endpoint: Parameters<typeof awaitedPorts>[0],
  container: Pick<ContainerSpec, 'expose'>,
  look: () => ReadonlySet<string> | undefined,
): boolean {
  const awaited = awaitedPorts(endpoint, container);
  const on = awaited && look();
  return !awaited || !on || isListening(awaited, on);
}

const lookEveryMs = 25;
/** Who does not listen by then is left to itself: it may listen where nobody says. */
const patienceMs = 30_000;

/** Looks until `ready` says so; `changed` hears `starting` where it does not at once, and `''` when it does. */
export function awaitListening(
  clock: Clock,
  health: Health,
  ready: () => boolean,
  changed: (health: Health) => void,
): { stop(): void } {
  const untilMs = clock.monotonic() + patienceMs;
  let timer: Timer | undefined;
  let now = health;
  const say = (next: Health) => {
    if (next !== now) changed(next);
    now = next;
  };
  const look = () => {
    if (ready() || clock.monotonic() >= untilMs) return say('');
    say('starting');
    timer = clock.after(lookEveryMs, look);
  };
  look();
  return { stop: () => timer?.cancel() };
}

/** Of the network namespace of a process. */
export function listensOn(pid: number): ReadonlySet<string> | undefined {
  const on = new Set<string>();
  try {
    for (const file of ['tcp', 'tcp6', 'udp', 'udp6']) {
      const protocol = file.slice(0, 3);
      for (const port of listeningPorts(fs.readFileSync(`/proc/${pid}/net/${file}`, 'latin1')))
        on.add(`${protocol} ${port}`);
    }
    return on;
  } catch {
    // It has ended, or the kernel lacks IPv6 or shows nothing.
    return on.size > 0 ? on : undefined;
  }
}

/** The kernel's states: LISTEN, and CLOSE, in which an unconnected UDP socket is. */
const listenStates = new Set(['0A', '07']);

/** Out of the kernel's table of sockets. Pure. */
export function listeningPorts(table: string): readonly number[] {
  return table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state = ''] = line.trim().split(/\s+/);
      const port = Number.parseInt(local.split(':')[1] ?? '', 16);
      return listenStates.has(state) && port > 0 ? [port] : [];
    });
}
