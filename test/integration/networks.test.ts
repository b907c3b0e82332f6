/** Who reaches whom: projects apart and joined, two networks, fixed addresses, no way out, who may call, and other networks than one’s own. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

vi.setConfig({ testTimeout: 90_000 });
let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

interface NetworkRow {
  readonly name: string;
  readonly number: number;
  readonly services: readonly string[];
  readonly members: readonly { readonly task: string; readonly address: string; readonly networkAddress: string }[];
}

const image = 'image: "registry:5000/hello:1", stop_grace_period: 1s';

/** What the task hears from there, or why it hears nothing. */
async function ask(task: string, target: string): Promise<{ readonly heard?: string; readonly why: string }> {
  const url = target.includes('/') ? target : `http://${target}:8080/`;
  // busybox's own time limit (-T) is no use: the static program dies of it.
  const line = `wget -q -O - ${url} & p=$!; (sleep 2; kill $p) >/dev/null 2>&1 & wait $p || { echo "ended $?" >&2; exit 1; }`;
  const { code, stdout, stderr } = await cluster.gantry('exec', task, 'sh', '-c', line);
  return code === 0 ? { heard: stdout, why: '' } : { why: stderr.trim() };
}

const hears = (task: string, target: string, words = 'hello from') =>
  eventually(async () => {
    const { heard, why } = await ask(task, target);
    if (!heard?.includes(words)) throw new Error(`${task} hears "${heard ?? why}" from ${target}`);
    return true;
  });

/** Because it is refused, not because of a slip in the story. */
const hearsNothing = (task: string, target: string) =>
  eventually(async () => {
    const { heard, why } = await ask(task, target);
    if (heard !== undefined) throw new Error(`${task} hears ${heard} from ${target}`);
    if (!/refused|no route|unreachable|ended 143|prohibited|bad address/i.test(why))
      throw new Error(`${task} to ${target}: ${why}`);
    return true;
  });

const networks = () => cluster.json<NetworkRow[]>('network', 'ls');
const network = (name: string) => cluster.json<NetworkRow>('network', 'inspect', name);
const one = async (service: string): Promise<TaskRow> => (await cluster.settled(service, 1))[0]!;

async function vipOf(service: string): Promise<string> {
  const { vip } = await cluster.json<{ vip: string }>('inspect', service);
  if (vip === '') throw new Error(`${service} has no address`);
  return vip;
}

describe('two projects', () => {
  test('do not reach each other, by name, by address or by service address; tasks of one do, on every host', async () => {
    await cluster.apply(`name: one\nservices: { a: { ${image}, deploy: { replicas: 3 } }, b: { ${image} } }`);
    await cluster.apply(`name: two\nservices: { c: { ${image}, deploy: { replicas: 3 } } }`);
    const own = await cluster.settled('one/a', 3);
    const foreign = await cluster.settled('two/c', 3);
    await one('one/b');
    for (const { slot, address } of own) {
      await hears('one/b.1', address);
      await hears(`one/a.${slot}`, 'b');
      await hears(`two/c.${slot}`, 'c');
      await hearsNothing(`two/c.${slot}`, await vipOf('one/a'));
    }
    for (const { address } of foreign) await hearsNothing('one/b.1', address);
    await hearsNothing('one/b.1', 'c.two');
    expect((await networks()).map(({ name, services }) => [name, services])).toEqual([
      ['one_default', ['one/a', 'one/b']],
      ['two_default', ['two/c']],
    ]);
  });

  test('are joined by a network made by hand, which goes only when nobody is on it', async () => {
    expect((await cluster.gantry('network', 'create', 'shared', '--label', 'team=a')).code).toBe(0);
    const outer = (network: string) => `networks: { ${network}: { external: true } }`;
    await cluster.apply(`name: one
services:
  a: { ${image}, deploy: { replicas: 3 } }
  b: { ${image}, networks: [default, shared] }
${outer('shared')}`);
    await cluster.apply(
      `name: two\nservices: { c: { ${image}, networks: [shared], deploy: { replicas: 3 } } }\n${outer('shared')}`,
    );
    await one('one/b');
    const tasks = await cluster.settled('two/c', 3);
    for (const { address } of tasks) await hears('one/b.1', address);
    await hears('one/b.1', await vipOf('two/c'));
    await hears('two/c.1', 'b.one');
    await hears('one/b.1', 'a');
    // Only through b: who is not on it stays apart.
    await hearsNothing('one/a.1', await vipOf('two/c'));
    const refused = await cluster.gantry('network', 'rm', 'shared');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('network shared is in use by one/b, two/c');
    // What no service is on any more goes by itself, once no rollback comes back to it.
    expect((await networks()).map(({ name }) => name)).toEqual(['one_default', 'shared', 'two_default']);
    for (const service of ['one/a', 'one/b', 'two/c']) expect((await cluster.gantry('rm', service)).code).toBe(0);
    await eventually(async () => {
      const names = (await networks()).map(({ name }) => name);
      if (names.join() !== 'shared') throw new Error(names.join());
      return true;
    });
    expect((await cluster.gantry('network', 'rm', 'shared')).code).toBe(0);
    expect(await networks()).toEqual([]);
  });
});

describe('a network of a project', () => {
  test('is apart from the others; a service on two is reached on both, by its fixed address too', async () => {
    await cluster.apply(`
name: shop
services:
  web: { ${image}, networks: [front] }
  api: { ${image}, networks: { front: { aliases: [backend] }, back: { ipv4_address: 172.28.0.50 } } }
  db: { ${image}, networks: [back] }
networks:
  front:
  back: { ipam: { config: [{ subnet: 172.28.0.0/24 }] } }
`);
    const [, , db] = [await one('web'), await one('api'), await one('db')];
    await hears('web.1', 'api');
    await hears('web.1', 'backend');
    await hears('db.1', 'api');
    await hears('api.1', 'db');
    await hearsNothing('web.1', db.address);
    await hearsNothing('web.1', await vipOf('db'));
    await hearsNothing('db.1', 'web');
    const back = await network('shop_back');
    expect(back.members.map(({ task, networkAddress }) => [task, networkAddress])).toEqual([
      ['shop/api.1', '172.28.0.50'],
      ['shop/db.1', '172.28.0.2'],
    ]);
    await hears('db.1', '172.28.0.50');
    await hears('api.1', '172.28.0.2');
    expect((await cluster.gantry('rm', 'web', 'api', 'db')).code).toBe(0);
  });

  test('that is internal has no way out; the others have', async () => {
    await cluster.apply(`
name: quiet
services:
  in: { ${image}, networks: [dark] }
  peer: { ${image}, networks: [dark] }
  out: { ${image} }
networks: { dark: { internal: true } }
`);
    for (const service of ['in', 'peer', 'out']) await one(service);
    const outside = 'http://203.0.113.1/';
    await hears('out.1', outside, '');
    await hearsNothing('in.1', outside);
    await hears('in.1', 'peer');
    expect((await cluster.gantry('rm', 'in', 'peer', 'out')).code).toBe(0);
  });

  test('has room for a service that only some may call', async () => {
    await cluster.apply(`
name: bank
services:
  vault: { ${image}, x-allow-from: [clerk], deploy: { replicas: 2 } }
  clerk: { ${image} }
  guest: { ${image} }
`);
    const vault = await cluster.settled('vault', 2);
    await one('clerk');
    await one('guest');
    await hears('clerk.1', 'vault');
    for (const { address } of vault) {
      await hears('clerk.1', address);
      await hearsNothing('guest.1', address);
    }
    await hearsNothing('guest.1', await vipOf('vault'));
    await hears('guest.1', 'clerk');
    // The tasks themselves are asked for nothing by this: the rule changes, no task is replaced.
    await cluster.apply(`
name: bank
services:
  vault: { ${image}, deploy: { replicas: 2 } }
  clerk: { ${image} }
  guest: { ${image} }
`);
    await hears('guest.1', 'vault');
    expect((await cluster.settled('vault', 2)).map(({ id }) => id).sort()).toEqual(vault.map(({ id }) => id).sort());
    expect((await cluster.gantry('rm', 'vault', 'clerk', 'guest')).code).toBe(0);
  });
});

test('a task has its host’s network, none, or that of the task of its slot', async () => {
  await cluster.apply(`
name: modes
services:
  main: { ${image}, deploy: { replicas: 2 } }
  side:
    { image: "registry:5000/hello:1", network_mode: "service:main", entrypoint: [sleep, "1000"], stop_grace_period: 1s, deploy: { replicas: 2 } }
  alone: { image: "registry:5000/hello:1", network_mode: none, entrypoint: [sleep, "1000"], stop_grace_period: 1s }
  host: { ${image}, network_mode: host, ports: ["8080:8080"] }
`);
  const main = await cluster.settled('main', 2);
  const side = await cluster.settled('side', 2);
  const places = (tasks: readonly TaskRow[]) => tasks.map(({ slot, node, address }) => [slot, node, address]).sort();
  expect(places(side)).toEqual(places(main));
  for (const { slot } of side) await hears(`side.${slot}`, '127.0.0.1');
  expect((await one('alone')).address).toBe('');
  const { stdout } = await cluster.gantry('exec', 'alone.1', 'ip', '-o', 'link');
  expect(stdout.trim().split('\n')).toHaveLength(1);
  const host = await one('host');
  expect(host.address).toBe(`10.90.0.${host.node.slice(1)}`);
  expect(await eventually(() => cluster.http(`http://${host.address}:8080/`))).toContain('hello from');
  // Another one cannot have that port of the hosts: said before anything is stopped.
  const other = cluster.compose('other.yaml', `name: other\nservices: { x: { ${image}, ports: ["8080:8080"] } }`);
  const refused = await cluster.gantry('plan', '-f', other);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain('port 8080/tcp is published by service modes/host');
  // Its task goes when the one whose network it has goes.
  expect((await cluster.gantry('restart', 'main')).code).toBe(0);
  await eventually(
    async () => {
      const [now, beside] = [await cluster.running('main'), await cluster.running('side')];
      const fresh = beside.every(({ id }) => !side.some((old) => old.id === id));
      if (!fresh || beside.length !== 2 || JSON.stringify(places(now)) !== JSON.stringify(places(beside)))
        throw new Error(JSON.stringify([places(now), places(beside)]));
      return true;
    },
    { timeoutMs: 40_000, everyMs: 200 },
  );
});
