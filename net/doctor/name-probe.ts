/** Asks a name server as a task does, from the task's own namespace. */
import packet from 'dns-packet';
import { gatewayOf } from '#net/plan/cidr.ts';
import type { ProbeName } from '#proto/gen/gantry/v1/probe.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { broken, good, type Say } from './fact.ts';
import { isOpen, listeners } from './listeners.ts';
import { askUdp, type Netns } from './sockets.ts';
import type { View } from './view.ts';

const attemptMs = 700;
const attempts = 2;
/** A question like any other; not to be guessed, there is nothing to win. */
const questionId = 0x4747;

export type NameReply =
  | { readonly kind: 'addresses'; readonly addresses: readonly string[] }
  | { readonly kind: 'refused'; readonly why: string }
  | { readonly kind: 'silent'; readonly why: string };

/** The IPv4 addresses of `name`, asked of `server` from `netns`. */
export async function askName(clock: Clock, netns: Netns, server: string, name: string): Promise<NameReply> {
  const payload = packet.encode({
    type: 'query',
    id: questionId,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type: 'A', name }],
  });
  let error = '';
  for (let attempt = 0; attempt < attempts; attempt++) {
    const reply = await askUdp(clock, { netns, address: server, port: 53, payload, timeoutMs: attemptMs });
    if (reply.answer) return read(reply.answer);
    error = reply.error ?? '';
    if (error === 'ECONNREFUSED') break;
  }
  const words = error === 'ECONNREFUSED' ? 'nothing listens there' : error === 'silent' ? 'no answer' : error;
  return { kind: 'silent', why: words };
}

function read(bytes: Buffer): NameReply {
  const reply = packet.decode(bytes);
  const code = (reply.flags ?? 0) & 15;
  if (code !== 0) return { kind: 'refused', why: codes[code] ?? `code ${code}` };
  const addresses = (reply.answers ?? []).flatMap((answer) => (answer.type === 'A' ? [answer.data] : []));
  return { kind: 'addresses', addresses };
}

const codes: Readonly<Record<number, string>> = { 2: 'server failure', 3: 'no such name', 5: 'refused' };

export async function probeName(view: View, probe: ProbeName, say: Say): Promise<void> {
  const server = gatewayOf(view.plan.input.subnet);
  const netns = probe.taskId === '' ? undefined : view.netnsOf(probe.taskId);
  const { name, task } = probe;
  const reply = await askName(view.clock, netns, server, name);
  const wanted = [...probe.addresses].sort().join(' ');
  switch (reply.kind) {
    case 'silent': {
      const runs = listeners(undefined).some(
        (one) =>
          one.protocol === 'udp' && one.port === 53 && isOpen(one) && [server, '0.0.0.0', '::'].includes(one.address),
      );
      const [why, remedy] = runs
        ? [
            'it listens: what the task sends does not get there, or not back',
            'look for a rule that drops port 53 from gantry0: nft list ruleset',
          ]
        : [
            'nothing listens there',
            "the agent's log says why its name server is down; is port 53 taken? ss -lunp sport = :53",
          ];
      say(broken('dns', `the name server ${server} does not answer ${task}: ${why}`, remedy, { wanted }));
      return;
    }
    case 'refused':
      say(
        broken(
          'dns',
          `the name server tells ${task} of ${name}: ${reply.why}`,
          'is the service there, and on a network of the task? gantry services; the agent may not have heard yet',
          { wanted, seen: reply.why },
        ),
      );
      return;
    case 'addresses': {
      const seen = [...reply.addresses].sort().join(' ');
      if (seen === wanted) say(good('dns', `${task} is told ${name} = ${seen || 'no address'}`, { wanted, seen }));
      else
        say(
          broken(
            'dns',
            `${task} is told ${name} = ${seen || 'no address'}, not ${wanted || 'none'}`,
            'the agent has not heard of the newest revision: is it connected? gantry nodes',
            { wanted, seen },
          ),
        );
    }
  }
}
