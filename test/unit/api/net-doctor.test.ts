/** Which probes the leader asks for, what its books say, and what it makes of the answers. */
import { describe, expect, it } from 'vitest';
import { isolation, known, whereLost } from '#control-plane/api/net-books.ts';
import { examineAll, examineOne, examinePath } from '#control-plane/api/net-doctor.ts';
import { nameOfPlace, placeOf } from '#control-plane/api/net-places.ts';
import { netProbe } from '#control-plane/api/net-probe.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import type { NetProbeUpdate } from '#proto/gen/gantry/v1/operator.ts';
import type { ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';
import { type OperatorLab, operatorLab } from '#test/support/operator.ts';

const on = (network: string) => aTemplate({ networks: [{ network, aliases: [], ipv4Address: '' }] });
const web = aService(
  'web',
  { template: on('demo_default'), ports: [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }] },
  { vip: '10.224.0.2' },
);
const db = aService('db', { template: on('demo_default') }, { vip: '10.224.0.3' });
const task = (service: Service, slot: number, node: Node, more: Partial<Task> = {}) =>
  aTask(`${service.spec.name}${slot}`, {
    serviceId: service.id,
    serviceName: service.spec.name,
    slot,
    nodeId: node.id,
    nodeName: node.name,
    address: node.subnet.replace('.0/24', `.${slot + 1}`),
    ...more,
  });
const [h1, h2, h3] = [aNode('h1'), aNode('h2'), aNode('h3')];
const records = { node: [h1, h2, h3], service: [web, db], task: [task(web, 1, h1), task(db, 2, h2)] } as const;

function snapshotOf(
  more: {
    readonly node?: readonly Node[];
    readonly service?: readonly Service[];
    readonly task?: readonly Task[];
  } = {},
) {
  const snapshot = new LiveSnapshot();
  for (const [table, values] of Object.entries({ ...records, ...more }) as ['node', readonly Node[]][])
    for (const value of values) snapshot.apply(table, keyOf(table, value), value, 1);
  return snapshot;
}

describe('FROM and TO', () => {
  it.each([
    ['web', 'demo/web'],
    ['demo/web:80', 'demo/web:80'],
    ['web.1', 'demo/web.1'],
    ['db.2:5432', 'demo/db.2:5432'],
    ['h2', 'h2'],
    [':8080', ':8080 (demo/web)'],
    ['h2:8080', 'h2:8080 (demo/web)'],
    ['192.0.2.1:443', '192.0.2.1:443'],
    ['outside', 'outside'],
  ])('%s means %s', (text, name) => expect(nameOfPlace(placeOf(snapshotOf(), text))).toBe(name));

  it.each([
    [':9', 'not-found', 'published are 8080'],
    ['nobody', 'not-found', 'gantry ps'],
    ['web:70000', 'invalid', ''],
  ])('%s is refused', (text, code, remedy) => {
    try {
      placeOf(snapshotOf(), text);
      expect.unreachable();
    } catch (error) {
      expect(isFault(error) && [error.code, error.remedy ?? '']).toEqual([code, expect.stringContaining(remedy)]);
    }
  });
});

describe('the probes of a path', () => {
  const path = (from: string, to: string, snapshot = snapshotOf()) =>
    examinePath(snapshot, placeOf(snapshot, from), placeOf(snapshot, to)).paths;

  it('between two tasks look at both ends, both ways, and send', () => {
    const [one] = path('web.1', 'db.2:5432');
    expect(one?.questions.map(({ node, ask }) => `${node.name} ${ask.$case}`)).toEqual([
      'h1 host',
      'h1 task',
      'h2 host',
      'h2 task',
      'h1 way',
      'h2 way',
    ]);
    expect(one?.sends).toMatchObject([
      { node: { name: 'h1' }, reach: { address: '10.192.2.3', port: 5432 }, watchers: [h1, h2] },
    ]);
    expect(one?.known.every(({ verdict }) => verdict === 'good')).toBe(true);
  });

  it('to a service look at its name and its VIP too', () => {
    const [one] = path('web', 'db:5432');
    expect(one?.questions.map(({ ask }) => ask.$case)).toEqual(expect.arrayContaining(['name', 'service']));
    expect(one?.questions.find(({ ask }) => ask.$case === 'name')?.ask.value).toMatchObject({
      name: 'db.demo.gantry.internal',
      addresses: ['10.224.0.3'],
    });
    expect(one?.sends.at(-1)?.reach).toMatchObject({ address: '10.224.0.3', port: 5432 });
  });

  it('from outside go in by several nodes, sent by another one', () => {
    const paths = path('outside', ':8080');
    expect(paths.map(({ title }) => title)).toEqual(
      ['h1', 'h2', 'h3'].map((node) => `outside → ${node}:8080 (demo/web)`),
    );
    for (const { sends, title } of paths) {
      const last = sends.at(-1);
      expect(last?.reach).toMatchObject({ port: 8080, taskId: '' });
      expect(title).not.toContain(`${last?.node.name}:`);
    }
  });

  it('ask no node that is down: the books name it', () => {
    const snapshot = snapshotOf({ node: [h1, { ...h2, state: 'down' }, h3] });
    const [one] = path('web.1', 'db.2:5432', snapshot);
    expect(one?.known.find(({ verdict }) => verdict === 'broken')).toMatchObject({
      hop: 'node',
      says: 'node h2 is down',
    });
    expect(one?.questions.every(({ node }) => node.name === 'h1')).toBe(true);
  });

  it('of a task beside another look into that one’s namespace, of one with its host’s into the host', () => {
    const side = aService('side', { template: aTemplate({ networkMode: 'service:web' }) });
    const bare = aService('bare', { template: aTemplate({ networkMode: 'host' }) });
    const snapshot = snapshotOf({
      service: [web, db, side, bare],
      task: [task(web, 1, h1), task(side, 1, h1), task(bare, 1, h1)],
    });
    const ids = (from: string) => path(from, '192.0.2.1:80', snapshot)[0]?.sends[0]?.reach.taskId;
    expect([ids('side.1'), ids('bare.1')]).toEqual([idOf('web1'), '']);
  });
});

describe('one place alone', () => {
  const titles = (text: string) => {
    const snapshot = snapshotOf();
    return examineOne(snapshot, placeOf(snapshot, text)).paths.map(({ title }) => title);
  };

  it.each([
    ['h1', ['h1']],
    ['web.1', ['demo/web.1 → demo/web']],
    ['db', ['demo/db.2 → demo/db']],
    ['web', ['h1', 'h2', 'h3'].map((node) => `outside → ${node}:8080 (demo/web)`)],
    ['h2:8080', ['outside → h2:8080 (demo/web)']],
  ])('%s is looked at by %j', (text, paths) => expect(titles(text)).toEqual(paths));

  it('asks a node for its ways to others, and them for theirs to it', () => {
    const snapshot = snapshotOf();
    const [one] = examineOne(snapshot, placeOf(snapshot, 'h1')).paths;
    expect(one?.questions.map(({ node, ask }) => `${node.name} ${ask.$case}`)).toEqual([
      'h1 host',
      'h1 way',
      'h2 way',
      'h1 way',
      'h3 way',
    ]);
  });
});

describe('a packet that no rule stops', () => {
  const passed = [known('rules', 'good', 'passes')];
  const reach = (seen: string) => [{ ...known('reach', 'broken', 'no answer'), seen }];

  it('is lost behind the last node that saw it', () => {
    const lost = whereLost(
      [
        { node: h1, findings: passed },
        { node: h2, findings: [] },
      ],
      reach('silent'),
    );
    expect(lost).toMatchObject({
      hop: 'link',
      verdict: 'unknown',
      node: 'h2',
      says: 'the packet leaves h1 and does not come to h2',
    });
  });

  it('is lost on the last node where that saw it, too', () => {
    const lost = whereLost(
      [
        { node: h1, findings: passed },
        { node: h2, findings: passed },
      ],
      reach('silent'),
    );
    expect(lost).toMatchObject({ hop: 'firewall', node: 'h2', remedy: expect.stringContaining('iptables-legacy') });
  });

  it('is not lost where a rule was seen to drop it, or somebody refuses', () => {
    const dropped = [known('firewall', 'broken', 'dropped')];
    expect(whereLost([{ node: h1, findings: dropped }], reach('silent'))).toBeUndefined();
    expect(whereLost([{ node: h1, findings: passed }], reach('ECONNREFUSED'))).toBeUndefined();
  });
});

describe('isolation', () => {
  const caller = task(web, 1, h1);
  const verdict = (service: Service, who = caller) =>
    isolation(snapshotOf({ service: [web, db, service] }), who, service);

  it('is good on a shared network', () => expect(verdict(db).verdict).toBe('good'));
  it('names the networks of both, and which to join', () => {
    expect(verdict(aService('far', { template: on('far_net') }))).toMatchObject({
      verdict: 'broken',
      says: 'demo/web.1 is on demo_default, demo/far on far_net: they share no network',
      remedy: expect.stringContaining('networks: [far_net]'),
    });
  });
  it.each([
    [['web'], 'good'],
    [['demo/web'], 'good'],
    [['*'], 'good'],
    [['other/web', 'api'], 'broken'],
    [[], 'broken'],
  ])('asks x-allow-from: %j', (services, wanted) => {
    expect(verdict(aService('kept', { template: on('demo_default'), allowFrom: { services } })).verdict).toBe(wanted);
  });
});

describe('everything', () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_, index) => aNode(`n${String(index).padStart(4, '0')}`));

  it('is each node, each pair, each published port', () => {
    const { paths, notes } = examineAll(snapshotOf());
    expect(paths.map(({ title }) => title)).toEqual([
      'h1',
      'h2',
      'h3',
      'h1 ↔ h2',
      'h2 ↔ h3',
      'h3 ↔ h1',
      'outside → h1:8080 (demo/web)',
    ]);
    expect(notes).toEqual([]);
  });

  it('of 5,000 nodes is a spread of them, and says so', () => {
    const nodes = many(5_000);
    const { paths, notes } = examineAll(snapshotOf({ node: [...nodes, { ...aNode('z1'), state: 'down' }], task: [] }));
    expect(notes[0]).toBe('64 of 5000 nodes are looked at, spread over all');
    expect(notes[1]).toMatch(/96 of 12497500 pairs/);
    expect(paths.filter(({ questions }) => questions.length > 0).length).toBeLessThan(200);
    expect(paths[0]?.known[0]).toMatchObject({ hop: 'node', verdict: 'broken', subject: 'z1' });
  });
});

describe('the answers', () => {
  async function lab(facts: (ask: string, node: string) => Partial<ProbeFact>[]): Promise<OperatorLab> {
    const made = operatorLab();
    await made.put('node', ...records.node);
    await made.put('service', ...records.service);
    await made.put('task', ...records.task);
    made.answer = async function* (request) {
      if (request.$case !== 'probe') return;
      const node = made.asked.at(-1)?.node ?? '';
      for (const { id, ask } of request.value.probes)
        for (const fact of facts(ask?.$case ?? '', node))
          yield {
            body: {
              $case: 'fact',
              value: {
                probe: id,
                hop: 'route',
                verdict: 'good',
                says: '',
                remedy: '',
                subject: '',
                wanted: '',
                seen: '',
                ...fact,
              },
            },
          };
    };
    return made;
  }

  async function ask({ parts }: OperatorLab, from: string, to: string, kind = 'doctor') {
    const updates: NetProbeUpdate['body'][] = [];
    for await (const { body } of netProbe(parts, { kind, from, to }, new AbortController().signal)) updates.push(body);
    const diagnoses = updates.flatMap((body) => (body?.$case === 'diagnosis' ? [body.value] : []));
    return { updates, diagnoses };
  }

  it('that are all good name nothing', async () => {
    const { diagnoses } = await ask(await lab(() => [{}]), 'web.1', 'db.2:5432');
    expect(diagnoses).toEqual([{ path: 'demo/web.1 → demo/db.2:5432', ok: true, broken: undefined }]);
  });

  it('name the first broken hop, on its node', async () => {
    const made = await lab((kind) => {
      if (kind === 'reach') return [{ hop: 'reach', verdict: 'broken', says: 'no answer' }];
      return kind === 'way' ? [{ hop: 'mtu', verdict: 'broken', says: 'only 1300 pass', remedy: 'widen it' }] : [{}];
    });
    const { diagnoses } = await ask(made, 'web.1', 'db.2:5432');
    expect(diagnoses[0]).toMatchObject({
      ok: false,
      broken: { hop: 'mtu', says: 'only 1300 pass', remedy: 'widen it' },
    });
  });

  it('that do not come name the node whose agent is silent', async () => {
    const made = await lab(() => [{}]);
    made.answer = undefined;
    const { diagnoses } = await ask(made, 'web.1', 'db.2:5432');
    expect(diagnoses[0]?.broken).toMatchObject({
      hop: 'node',
      says: expect.stringContaining('the agent of h1 does not answer'),
    });
  });

  it('are not waited for where an agent hangs, and it is asked but once', async () => {
    const made = await lab(() => [{}]);
    let asked = 0;
    const hung = () => {
      asked++;
      return new Promise<never>(() => {});
    };
    const parts = { ...made.parts, relays: { open: hung } };
    const { diagnoses } = await ask({ ...made, parts }, 'h1', 'h1');
    expect(diagnoses[0]?.broken).toMatchObject({ hop: 'node', says: expect.stringContaining('within 2 s') });
    expect(asked).toBe(1);
  });

  it('have the nodes watch only where the packet does not get there', async () => {
    const asked = (made: OperatorLab) =>
      made.asked.flatMap(({ request }) =>
        request.$case === 'probe' ? request.value.probes.map(({ ask }) => ask?.$case) : [],
      );
    const good = await lab(() => [{}]);
    await ask(good, 'web.1', 'db.2:5432');
    expect(asked(good)).not.toContain('watch');
    const bad = await lab((kind) =>
      kind === 'reach'
        ? [{ hop: 'reach', verdict: 'broken' }]
        : kind === 'watch'
          ? [{ hop: 'watch' }, { hop: 'firewall', verdict: 'broken', says: 'dropped' }]
          : [{}],
    );
    const { diagnoses } = await ask(bad, 'web.1', 'db.2:5432');
    expect(asked(bad).filter((kind) => kind === 'watch')).toHaveLength(2);
    expect(diagnoses[0]?.broken).toMatchObject({ hop: 'firewall' });
  });

  it('to a trace are steps in their order, and refused without an end', async () => {
    const made = await lab((kind) => [{ says: kind }]);
    const { updates } = await ask(made, 'web.1', 'db.2:5432', 'trace');
    const says = updates.flatMap((body) =>
      body?.$case === 'finding' && body.value.node !== '' ? [body.value.says] : [],
    );
    expect(says[0]).toBe('steps');
    expect(says.at(-1)).toBe('reach');
    await expect(ask(made, 'web.1', '', 'trace')).rejects.toMatchObject({ code: 'invalid' });
  });

  it('to a show are of the node that was named', async () => {
    const made = await lab((kind) => [{ says: kind, subject: 'gantry0' }]);
    await ask(made, 'h2', '', 'show');
    expect(made.asked.map(({ node }) => node)).toEqual([h2.id]);
    await expect(ask(made, 'h9', '', 'show')).rejects.toMatchObject({ code: 'not-found' });
  });
});
