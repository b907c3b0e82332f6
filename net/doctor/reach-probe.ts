/** Really sends: whether a connection, or an echo, gets from a task to an address and back. */
import type { ProbeReach } from '#proto/gen/gantry/v1/probe.ts';
import { broken, good, type Say } from './fact.ts';
import { connectTcp, echo } from './sockets.ts';
import type { View } from './view.ts';

const timeoutMs = 1_500;

export async function probeReach(view: View, probe: ProbeReach, say: Say): Promise<void> {
  const netns = probe.taskId === '' ? undefined : view.netnsOf(probe.taskId);
  const { clock } = view;
  const { address, port, from, to } = probe;
  const tell = (error: string) => {
    const words = errors[error] ?? error;
    const remedy = 'the hops above say where; gantry net trace shows each rule that the packet passes';
    say(broken('reach', `${from} does not reach ${to}: ${words}`, remedy, { subject: to, seen: error }));
  };
  if (port === 0) {
    const sizes = [84, 84];
    const [first, second] = await echo(clock, { netns, address, sizes, id: probe.sourcePort || 1, timeoutMs });
    const answered = [first, second].find((one) => one?.kind === 'answered');
    if (answered?.kind === 'answered') say(good('reach', `${from} reaches ${to} in ${answered.ms.toFixed(1)} ms`));
    else tell(first?.kind === 'refused' ? `${first.why}${first.by && ` (says ${first.by})`}` : 'silent');
    return;
  }
  const result = await connectTcp(clock, { netns, address, port, sourcePort: probe.sourcePort, timeoutMs });
  if (result.ok) say(good('reach', `${from} connects to ${to} in ${result.ms.toFixed(1)} ms`));
  else tell(result.error);
}

const errors: Readonly<Record<string, string>> = {
  silent: 'no answer',
  ECONNREFUSED: 'the connection is refused',
  ENETUNREACH: 'the network is unreachable',
  EHOSTUNREACH: 'the host is unreachable',
  EACCES: 'the host prohibits it',
  EADDRINUSE: 'the port to send from was in use: try again',
};
