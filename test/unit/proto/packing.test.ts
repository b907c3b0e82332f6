/** What many nodes are told is compressed once for all of them, and comes out as it went in. */
import { expect, it } from 'vitest';
import { AgentMessage, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { Fault } from '#proto/kernel/errors.ts';
import { packing, unpacking } from '#proto/packing.ts';
import type { MessageStream, StreamListener } from '#proto/stream.ts';

/** A set of so many endpoints. */
function aSet(endpoints: number): ControlMessage {
  const put = Array.from({ length: endpoints }, (_, index) => ({
    key: `endpoint/s${index}`,
    item: { $case: 'endpoint' as const, value: { serviceId: `s${index}`, name: `web${index}`, vip: '10.224.0.1' } },
  }));
  return ControlMessage.fromPartial({
    body: { $case: 'assignments', value: { epoch: 1, full: true, more: true, put } },
  });
}

/** A session from an agent to a leader, over bytes; `unpacks`: false for an agent that knows nothing of it. */
function session(unpacks = true) {
  const line: ControlMessage[] = [];
  const heard: ControlMessage[] = [];
  const faults: (Fault | undefined)[] = [];
  let toLeader: StreamListener<AgentMessage> | undefined;
  let toAgent: StreamListener<ControlMessage> | undefined;
  const ways = { pause() {}, resume() {}, close() {} };
  const leader = packing(
    {
      ...ways,
      listen: (listener) => {
        toLeader = listener;
      },
      send(message) {
        line.push(message);
        toAgent?.message(ControlMessage.decode(ControlMessage.encode(message).finish()));
        return true;
      },
    },
    (message) => ControlMessage.encode(message).finish(),
  );
  const raw: MessageStream<ControlMessage, AgentMessage> = {
    ...ways,
    listen: (listener) => {
      toAgent = listener;
    },
    send(message) {
      toLeader?.message(AgentMessage.decode(AgentMessage.encode(message).finish()));
      return true;
    },
  };
  const agent = unpacks ? unpacking(raw) : raw;
  leader.listen({ message() {}, closed() {} });
  agent.listen({ message: (message) => heard.push(message), closed: (fault) => faults.push(fault) });
  agent.send(AgentMessage.fromPartial({ body: { $case: 'hello', value: { epoch: 1 } } }));
  return { leader, line, heard, faults, hears: (message: ControlMessage) => toAgent!.message(message) };
}

it('packs what is sent to more than one node once, and each reads what was said', () => {
  const message = aSet(200);
  const sessions = Array.from({ length: 50 }, () => session());
  for (const { leader } of sessions) leader.send(message);
  const lines = sessions.map(({ line }) => line[0]!);
  expect(new Set(lines.slice(1)).size).toBe(1);
  expect(lines[0]).toBe(message);
  const sizes = [message, lines[1]!].map((one) => ControlMessage.encode(one).finish().length);
  expect(sizes[1]).toBeLessThan(sizes[0]! / 5);
  for (const { heard } of sessions) expect(heard).toEqual([message]);
});

it('leaves as it is what is one node’s alone, what is short, and what goes to who does not know of it', () => {
  const one = session();
  const sets = [aSet(200), aSet(200)];
  for (const message of sets) one.leader.send(message);
  expect(one.line).toEqual(sets);
  const short = aSet(1);
  const [first, second] = [session(), session()];
  for (const { leader } of [first, second]) leader.send(short);
  expect([first.line, second.line]).toEqual([[short], [short]]);
  const old = [session(false), session(false)];
  const message = aSet(200);
  for (const { leader } of [...old, session(), session()]) leader.send(message);
  for (const { leader, heard } of old) {
    leader.send(message);
    expect(heard).toEqual([message, message]);
  }
});

it('ends the stream where it cannot be unpacked', () => {
  const { hears, heard, faults } = session();
  hears({ body: { $case: 'packed', value: Buffer.from('what is this') } });
  expect(heard).toEqual([]);
  expect(faults.map((fault) => fault?.code)).toEqual(['corrupt']);
});
