/** `gantry net doctor` names what is broken, where, and what to do: each fault is made by hand, found, and taken away again. */
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

interface Diagnosis {
  readonly path: string;
  readonly ok: boolean;
  readonly broken?: { readonly hop: string; readonly node: string; readonly says: string; readonly remedy: string };
}

let cluster: Cluster;
/** A caller on h1, one it calls on h2. */
let web: TaskRow;
let db: TaskRow;

beforeAll(async () => {
  cluster = await startCluster();
  const service = (name: string, more = '') =>
    `  ${name}:\n    image: registry:5000/hello:1\n    stop_grace_period: 1s\n    deploy: { mode: global }\n${more}`;
  const listens = '    expose: ["8080"]\n';
  const mute = '    entrypoint: ["sleep", "100000"]\n    expose: ["8080"]\n';
  const published = '    ports: ["18172:8080"]\n';
  await cluster.apply(
    `name: shop\nservices:\n${service('web', published)}${service('db', listens)}${service('mute', mute)}`,
  );
  await cluster.apply(`name: other\nservices:\n${service('thing', listens)}`);
  const on = async (name: string, node: string) =>
    (await cluster.settled(name, 3)).find((task) => task.node === node) as TaskRow;
  web = await on('shop/web', 'h1');
  db = await on('shop/db', 'h2');
  await cluster.settled('other/thing', 3);
});
afterAll(() => cluster?.close());

/** Its input is a socket, for which bash would read root's own .bashrc, whatever that does. */
const bash = ['bash', '--norc', '-c'] as const;
const shell = (host: string, command: string) => cluster.sandbox.run(host, [...bash, command]);

/** What the doctor says of the paths; its exit code must fit. */
async function doctor(...places: string[]): Promise<readonly Diagnosis[]> {
  const { code, stdout, stderr } = await cluster.gantry('net', 'doctor', ...places, '--json');
  if (stdout === '') throw new Error(stderr);
  const { ok, diagnoses } = JSON.parse(stdout) as { ok: boolean; diagnoses: Diagnosis[] };
  expect(code).toBe(ok ? 0 : 1);
  return diagnoses;
}

/** A somebody who does `command` again and again, faster than the agent repairs; returns what ends it. */
function stubbornly(host: string, command: string): () => Promise<void> {
  const [program, ...args] = cluster.sandbox.execLine(host, [
    ...bash,
    // More than 128: nothing came in time. A line that comes in that moment may be lost, the end of all lines is not.
    `while read -t 0.03 _; [ $? -gt 128 ]; do ${command}; done >/dev/null 2>&1`,
  ]);
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'ignore'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return async () => {
    child.stdin.end();
    await ended;
  };
}

/** Waits until the first of the paths is broken at that hop, in such words. */
function found(places: readonly string[], hop: string, says: RegExp): Promise<NonNullable<Diagnosis['broken']>> {
  return eventually(
    async () => {
      const [diagnosis] = await doctor(...places);
      const broken = diagnosis?.broken;
      if (broken?.hop !== hop || !says.test(broken.says)) throw new Error(JSON.stringify(diagnosis));
      return broken;
    },
    { everyMs: 200 },
  );
}

async function encapsulate(how: string): Promise<void> {
  expect(await cluster.gantry('cluster', 'set', `encapsulation=${how}`)).toMatchObject({ code: 0 });
}

type Undo = () => Promise<unknown>;
interface Story {
  readonly name: string;
  readonly hop: string;
  readonly node: string;
  readonly says: RegExp;
  readonly remedy: RegExp;
  readonly break: () => Promise<Undo> | Undo;
  readonly ask?: () => readonly string[];
}

const stories: readonly Story[] = [
  {
    name: 'a route that somebody removes again and again',
    hop: 'route',
    node: 'h1',
    says: /again and again by somebody/,
    remedy: /ip monitor route/,
    break: async () => stubbornly('h1', `ip route del $(ip route show proto 71 | grep 'via 10.90.0.2' | head -1)`),
  },
  {
    name: 'a link with a smaller MTU than the others',
    hop: 'mtu',
    node: 'h1',
    says: /promises 1500 bytes to h2, but only 130\d pass/,
    remedy: /mtu 130\d/,
    break: async () => {
      await shell('h2', 'ip link set eth0 mtu 1300');
      return () => shell('h2', 'ip link set eth0 mtu 1500');
    },
  },
  {
    name: 'a rule of the host that drops what is forwarded to the port',
    hop: 'firewall',
    node: 'h2',
    says: /dropped by the rule "tcp dport 8080 drop" of chain c in table inet mine/,
    remedy: /nft delete rule inet mine c handle \d+/,
    break: async () => {
      await shell(
        'h2',
        `nft 'table inet mine { chain c { type filter hook forward priority 10; tcp dport 8080 drop; }; }'`,
      );
      return () => shell('h2', 'nft delete table inet mine');
    },
  },
  {
    name: 'a rule of the host that drops a published port',
    hop: 'firewall',
    node: 'h1',
    says: /:18172 is dropped by the rule "tcp dport 18172 drop"/,
    remedy: /nft delete rule/,
    ask: () => ['outside', 'h1:18172'],
    break: async () => {
      await shell(
        'h1',
        `nft 'table inet mine { chain c { type filter hook prerouting priority -200; tcp dport 18172 drop; }; }'`,
      );
      return () => shell('h1', 'nft delete table inet mine');
    },
  },
  {
    name: 'a VIP that somebody leads elsewhere',
    hop: 'vip',
    node: 'h1',
    says: /shop\/db: backends \S+ \. 0 leads to 10\.9\.9\.9, not /,
    remedy: /nft monitor/,
    ask: () => ['web.h1', 'shop/db'],
    break: async () => {
      const vip = (await cluster.json<{ vip: string }>('inspect', 'shop/db')).vip;
      const wrong = `delete element ip gantry backends { ${vip} . 0 }; add element ip gantry backends { ${vip} . 0 : 10.9.9.9 }`;
      return stubbornly('h1', `nft '${wrong}'`);
    },
  },
  {
    name: 'a name server that tasks do not reach',
    hop: 'dns',
    node: 'h1',
    says: /does not answer shop\/web\.h1/,
    remedy: /port 53/,
    ask: () => ['web.h1', 'shop/db'],
    break: async () => {
      await shell(
        'h1',
        `nft 'table inet mine { chain c { type filter hook input priority 0; iifname gantry0 udp dport 53 drop; }; }'`,
      );
      return () => shell('h1', 'nft delete table inet mine');
    },
  },
  {
    name: 'an address that two have',
    hop: 'conflict',
    node: 'h2',
    says: /answers for \S+ of shop\/db\.h2 too/,
    remedy: /take the address \S+ off it/,
    break: async () => {
      const make = [
        'ip netns add twin',
        'ip link add twin0 type veth peer name twin1 netns twin',
        'ip link set twin0 master gantry0 up',
        'ip -n twin link set twin1 up',
        `ip -n twin address add ${db.address}/24 dev twin1`,
      ];
      await shell('h2', make.join(' && '));
      return () => shell('h2', 'ip netns delete twin; ip link delete twin0 2>/dev/null; true');
    },
  },
  {
    name: 'a host that somebody keeps from forwarding',
    hop: 'forwarding',
    node: 'h1',
    says: /net\.ipv4\.ip_forward was 0, not 1/,
    remedy: /sysctl/,
    break: async () => stubbornly('h1', 'echo 0 > /proc/sys/net/ipv4/ip_forward'),
  },
];

describe('the doctor', () => {
  test('finds nothing broken in a cluster that works', async () => {
    expect((await eventually(async () => allGood(await doctor()))).length).toBeGreaterThan(5);
    expect(await doctor('web.h1', 'db.h2')).toEqual([expect.objectContaining({ ok: true })]);
    expect(await doctor('web.h1', 'shop/db')).toEqual([expect.objectContaining({ ok: true })]);
  });

  for (const story of stories) {
    test(`names ${story.name}`, async () => {
      const places = story.ask?.() ?? ['web.h1', 'db.h2'];
      const undo = await story.break();
      try {
        const broken = await found(places, story.hop, story.says);
        expect(broken.node).toBe(story.node);
        expect(broken.remedy).toMatch(story.remedy);
      } finally {
        await undo();
      }
    });
  }

  test('names a program that does not listen', async () => {
    const broken = await found(['web.h1', 'mute.h2'], 'listener', /nothing in shop\/mute\.h2 listens on 8080\/tcp/);
    expect(broken).toMatchObject({ node: 'h2', remedy: expect.stringContaining('gantry logs') });
  });

  test('says between which nodes a packet is lost that no rule of theirs stops', async () => {
    await shell(
      'switch',
      `nft 'table bridge mine { chain c { type filter hook forward priority 0; tcp dport 8080 drop; }; }'`,
    );
    try {
      const broken = await found(['web.h1', 'db.h2'], 'link', /the packet leaves h1 and does not come to h2/);
      expect(broken.remedy).toContain('security groups');
    } finally {
      await shell('switch', 'nft delete table bridge mine');
    }
  });

  test('says on which node a packet is lost by what nftables does not show', async () => {
    await shell('h2', 'iptables-legacy -I FORWARD -p tcp --dport 8080 -j DROP');
    try {
      const broken = await found(
        ['web.h1', 'db.h2'],
        'firewall',
        /the packet comes to h2, no rule of nftables drops it/,
      );
      expect(broken.remedy).toContain('iptables-legacy -S');
    } finally {
      await shell('h2', 'iptables-legacy -D FORWARD -p tcp --dport 8080 -j DROP');
    }
  });

  test('names two who share no network', async () => {
    const broken = await found(['web.h1', 'thing.h2'], 'isolation', /share no network/);
    expect(broken.remedy).toContain('networks: [other_default]');
  });

  test('names a tunnel whose port is dropped, and the rule that drops it', async () => {
    await encapsulate('always');
    try {
      await eventually(async () => allGood(await doctor('web.h1', 'db.h2')));
      expect((await cluster.gantry('net', 'show', 'h1')).stdout).toMatch(/way to h2 +tunnel: encapsulation is always/);
      const rule = 'udp dport 4790 drop';
      await shell('h2', `nft 'table inet mine { chain c { type filter hook input priority 0; ${rule}; }; }'`);
      const broken = await found(
        ['web.h1', 'db.h2'],
        'tunnel',
        /UDP 4790\) is dropped by the rule "udp dport 4790 drop"/,
      );
      expect(broken).toMatchObject({ node: 'h2', remedy: expect.stringContaining('nft delete rule inet mine c') });
      const between = await found(
        ['h1', 'h2'],
        'tunnel',
        /h2 \(10\.90\.0\.2\) answers, but nothing comes back through VXLAN/,
      );
      expect(between).toMatchObject({ node: 'h1', remedy: expect.stringContaining('UDP port 4790') });
    } finally {
      await shell('h2', 'nft delete table inet mine; true');
      await encapsulate('auto');
    }
  });

  test('leaves nothing behind', async () => {
    for (const host of ['h1', 'h2', 'h3']) expect(await shell(host, 'nft list tables')).not.toContain('trace');
  });
});

function allGood(diagnoses: readonly Diagnosis[]): readonly Diagnosis[] {
  const broken = diagnoses.filter(({ ok }) => !ok);
  if (broken.length > 0) throw new Error(JSON.stringify(broken));
  return diagnoses;
}

test('shows what a node should have and has', async () => {
  const { stdout } = await cluster.gantry('net', 'show', web.node);
  expect(stdout).toMatch(/✓ {3}route 10\.192\.\d+\.0\/24/);
  expect(stdout).toMatch(/✓ {3}shop\/db/);
});

test('walks a packet, rule by rule', async () => {
  const { code, stdout } = await cluster.gantry('net', 'trace', 'web.h1', 'shop/db:8080');
  expect(code).toBe(0);
  expect(stdout).toMatch(/goto k3 by the rule "ip daddr vmap @services" of chain prerouting in table ip gantry/);
  expect(stdout).toMatch(/connects to shop\/db/);
});
