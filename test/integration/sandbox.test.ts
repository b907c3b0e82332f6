/** The sandbox as a lab: hosts that are hosts, and a `down` that leaves nothing whatever happened before. Bare: it needs nothing of Gantry above it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { hierarchiesIn, machineHierarchies, processesIn } from '#node-agent/sandbox/cgroups.ts';
import { pushArchive } from '#node-agent/sandbox/push-archive.ts';
import { buildSampleImage, pushSampleImage } from '#node-agent/sandbox/sample-image.ts';
import { listSandboxes, openSandbox } from '#node-agent/sandbox/sandbox.ts';
import { outside } from '#node-agent/sandbox/topology.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { eventually } from '#test/support/eventually.ts';
import { machineState } from '#test/support/machine-state.ts';

const root = mkdtempSync(join(tmpdir(), 'gsbx-'));
const newName = () => `t${newId(systemRandom).slice(0, 8)}`;
const main = join(import.meta.dirname, '../../node-agent/sandbox/main.ts');

afterAll(async () => {
  for (const name of listSandboxes(root).filter((one) => one.startsWith('t'))) {
    if (existsSync(join(root, name))) await openSandbox(name, { root }).down();
  }
  rmSync(root, { recursive: true, force: true });
});

/** The command line, as a user starts it: a process of its own that may be killed. */
function command(name: string, args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [main, '--name', name, ...args], {
    env: { ...process.env, GANTRY_SANDBOX_ROOT: root },
    stdio: 'ignore',
  });
}

const ends = (child: ChildProcess) =>
  new Promise<number | null>((resolve) => {
    child.on('close', (code) => resolve(code));
  });

describe('a sandbox of two hosts', () => {
  const sandbox = openSandbox(newName(), { root });
  const bootId = (host: string) => sandbox.run(host, ['cat', '/proc/sys/kernel/random/boot_id']);
  const reaches = (from: string, address: string) =>
    sandbox.run(from, ['ping', '-c1', '-W1', address]).then(
      () => true,
      () => false,
    );

  beforeAll(async () => {
    await sandbox.up({ hosts: 2, bare: true });
  });
  afterAll(() => sandbox.down());

  test('has hosts with names, addresses, process trees and cgroups of their own', async () => {
    expect((await sandbox.run('h1', ['hostname'])).trim()).toBe('h1');
    expect(await sandbox.run('h2', ['ip', '-4', '-o', 'addr', 'show', 'eth0'])).toContain('10.90.0.2/24');
    expect(await sandbox.run('h1', ['cat', '/proc/1/comm'])).toBe('tini\n');
    expect((await sandbox.run('h1', ['cat', '/proc/self/cgroup'])).includes('gantry-sandbox')).toBe(false);
    expect(await bootId('h1')).not.toBe(await bootId('h2'));
    expect(await bootId('h1')).not.toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
  });

  test('connects them to each other and to a world that sees their addresses', async () => {
    expect(await reaches('h1', '10.90.0.2')).toBe(true);
    const seen = await sandbox.run('h2', ['curl', '--silent', '--max-time', '3', `http://${outside.address}/`]);
    expect(seen).toBe('10.90.0.2\n');
  });

  test('runs a containerd on each', async () => {
    const version = () => sandbox.run('h1', ['ctr', '--connect-timeout', '2s', 'version']);
    expect(await eventually(version)).toContain('Server:');
  });

  test('has a registry that takes the sample image, and hosts that run it', async () => {
    const built = await buildSampleImage('1');
    expect(await eventually(() => pushSampleImage(sandbox, 'hello:1'))).toBe('registry:5000/hello:1');
    expect(await sandbox.run('h1', ['ctr', 'images', 'pull', '--plain-http', 'registry:5000/hello:1'])).toContain(
      built.digest,
    );
    const run = (name: string) =>
      sandbox.run('h1', ['ctr', 'run', '--detach', '--net-host', 'registry:5000/hello:1', name]);
    await run('web');
    const answer = () => sandbox.run('h2', ['curl', '--silent', '--fail', '--max-time', '2', 'http://10.90.0.1:8080/']);
    expect(await eventually(answer)).toContain('hello from h1, version 1');
    await sandbox.run('h1', ['ctr', 'tasks', 'kill', 'web']);
    await eventually(async () => (await sandbox.run('h1', ['ctr', 'tasks', 'ls'])).includes('STOPPED'));
  });

  test.for(['docker-archive', 'oci-archive'])('takes an image from a %s', async (kind) => {
    const file = join(root, `${kind}.tar`);
    const hello = ['--src-tls-verify=false', 'docker://registry:5000/hello:1', `${kind}:${file}:mine:1`];
    await sandbox.run('m1', ['skopeo', 'copy', '--quiet', ...hello]);
    expect(await pushArchive(sandbox, 'registry:5000/shop/web:2', file)).toBe('registry:5000/shop/web:2');
    await sandbox.run('h1', ['ctr', 'images', 'pull', '--plain-http', 'registry:5000/shop/web:2']);
    await expect(pushArchive(sandbox, 'web:2', `${file}.gone`)).rejects.toThrow('is not there');
    await expect(pushArchive(sandbox, 'web:2', '/etc/passwd')).rejects.toThrow('is not a tar archive');
    await expect(pushArchive(sandbox, 'WEB:2', file)).rejects.toThrow('is not an image name');
  });

  test('started twice is the sandbox it was', async () => {
    const before = await bootId('h1');
    const status = await sandbox.up({ hosts: 2, bare: true });
    expect(status.hosts.map((host) => [host.name, host.power])).toEqual([
      ['m1', 'on'],
      ['h1', 'on'],
      ['h2', 'on'],
    ]);
    expect(await bootId('h1')).toBe(before);
  });

  test('loses a host whose cable is cut, and gets it back', async () => {
    expect((await sandbox.act('cut', 'h2')).hosts[2]).toMatchObject({ power: 'on', cable: 'cut' });
    expect(await reaches('h1', '10.90.0.2')).toBe(false);
    await sandbox.act('join', 'h2');
    await eventually(() => reaches('h1', '10.90.0.2'));
  });

  test.for(['kill', 'crash'] as const)(
    'ends every process of a host on %s, and boots it anew with its disk',
    async (op) => {
      await sandbox.run('h1', ['sh', '-c', 'echo kept > /var/lib/gantry/note; echo gone > /run/note']);
      const before = await bootId('h1');
      const hierarchies = machineHierarchies();
      const inside = () => processesIn(hierarchies, `gantry-sandbox/${sandbox.layout.name}/h1`).length;
      expect(inside()).toBeGreaterThan(2);
      expect((await sandbox.act(op, 'h1')).hosts[1]).toMatchObject({ power: 'off' });
      await eventually(() => inside() === 0);
      expect(() => sandbox.execLine('h1', ['true'])).toThrow('host h1 is off');
      await sandbox.act('start', 'h1');
      expect(await bootId('h1')).not.toBe(before);
      expect(await sandbox.run('h1', ['cat', '/var/lib/gantry/note'])).toBe('kept\n');
      await expect(sandbox.run('h1', ['cat', '/run/note'])).rejects.toThrow('No such file');
      await eventually(() => reaches('h2', '10.90.0.1'));
    },
  );

  test('takes one more host', async () => {
    const status = await sandbox.add();
    expect(status.hosts.at(-1)).toMatchObject({ name: 'h3', power: 'on' });
    await eventually(() => reaches('h3', '10.90.0.1'));
  });

  test('starts again a service that dies', async () => {
    const pid = async () => Number(await sandbox.run('h1', ['pidof', 'containerd']));
    const first = await eventually(pid);
    await sandbox.run('h1', ['kill', '-9', String(first)]);
    await eventually(async () => (await pid()) !== first);
  });

  test('refuses hosts it does not have', async () => {
    await expect(sandbox.act('kill', 'h9')).rejects.toThrow(/sandbox t\w+ has no host h9/);
    await expect(sandbox.act('kill', 'x')).rejects.toThrow('"x" is not a host');
  });
});

describe('down', () => {
  const name = newName();
  const sandbox = openSandbox(name, { root });
  const marks = [`gantry-sandbox/${name}`, join(root, name), `left-${name}`];
  const state = () => machineState(marks);
  const clean = state();
  afterEach(() => sandbox.down());

  test('leaves no process, mount, namespace, link or cgroup behind', async () => {
    await sandbox.up({ hosts: 2, bare: true });
    await sandbox.run('h1', [
      'sh',
      '-c',
      'setsid sleep 1000 > /dev/null 2>&1 & ip netns add left-$0; mkdir /sys/fs/cgroup/pids/left || true',
      name,
    ]);
    expect(state()).not.toEqual(clean);
    await sandbox.down();
    expect(state()).toEqual(clean);
    expect(existsSync(sandbox.layout.dir)).toBe(false);
  });

  test('adds nothing to the network namespace of the machine while the sandbox runs', async () => {
    await sandbox.up({ hosts: 2, bare: true });
    const network = (lines: string[]) => lines.filter((line) => /^(mount|link|netns) /.test(line));
    expect(network(state())).toEqual(network(clean));
  });

  test.for([1, 3, 6, 10, 15])('cleans up after an up that was killed at its process number %i', async (wanted) => {
    const child = command(name, ['up', '--hosts', '3', '--bare']);
    const hierarchies = machineHierarchies();
    // How far it got is told by its processes, not by time.
    await eventually(() => processesIn(hierarchies, `gantry-sandbox/${name}`).length >= wanted, { everyMs: 1 });
    child.kill('SIGKILL');
    await sandbox.down();
    expect(state()).toEqual(clean);
  });

  test('cleans up after its keeper was killed, and up works again', async () => {
    await sandbox.up({ hosts: 1, bare: true });
    for (const pid of processesIn(machineHierarchies(), `gantry-sandbox/${name}/keeper`)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        // One before it may have taken it along.
        expect(error).toMatchObject({ code: 'ESRCH' });
      }
    }
    await eventually(() =>
      sandbox.status().then(
        () => false,
        () => true,
      ),
    );
    expect((await sandbox.up({ hosts: 1, bare: true })).hosts[1]).toMatchObject({ name: 'h1', power: 'on' });
    await sandbox.down();
    expect(state()).toEqual(clean);
  });

  test('ends a whole cluster with running containers, and leaves nothing of them', async () => {
    const status = await sandbox.up({ hosts: 2 });
    expect([...status.ready].sort()).toEqual(['h1', 'h2']);
    await pushSampleImage(sandbox, 'hello:1');
    const file = join(root, 'compose.yaml');
    writeFileSync(file, 'name: t\nservices:\n  web:\n    image: registry:5000/hello:1\n    deploy: { replicas: 4 }\n');
    const socket = join(sandbox.layout.dir, 'm1/run/gantry/control-plane.sock');
    const cli = join(import.meta.dirname, '../../control-plane/cli/main.ts');
    const apply = spawn(process.execPath, [cli, 'apply', '-f', file, '--socket', socket], { stdio: 'ignore' });
    expect(await ends(apply)).toBe(0);
    expect(state().filter((line) => /^process .*conmon/.test(line)).length).toBe(4);
    await sandbox.down();
    expect(state()).toEqual(clean);
  });

  test('may be said of a sandbox that is not there', async () => {
    await sandbox.down();
    await sandbox.down();
    expect(state()).toEqual(clean);
  });

  test('keeps the disks when asked', async () => {
    await sandbox.up({ hosts: 1, bare: true });
    await sandbox.run('h1', ['sh', '-c', 'echo kept > /var/lib/gantry/note']);
    await sandbox.down({ keep: true });
    expect(state()).toEqual(clean);
    await sandbox.up({ hosts: 1, bare: true });
    expect(await sandbox.run('h1', ['cat', '/var/lib/gantry/note'])).toBe('kept\n');
  });
});

describe('the command line', () => {
  async function said(...args: string[]) {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, GANTRY_SANDBOX_ROOT: root } });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
    }
    return { code: await ends(child), text };
  }

  test.for([
    [['nope'], /unknown command/],
    [['start'], /missing required argument/],
    [['up', '--hosts', 'many'], /"many" is not a number of hosts/],
    [['up', '--layout', 'ring'], /"ring" is no layout of a sandbox/],
    [['up', '--mtu', '1400'], /a flat sandbox has no router/],
    [['up', '--layout', 'routed', '--mtu', 'wide'], /cannot be the widest/],
    [['up', '--nat', 'm1'], /m1 cannot be behind NAT/],
    [['up', '--managers', '2'], /cannot have 2 managers: .*give --managers 1, 3 or 5/],

    [['up', '--set', 'h1:SUBNET=x'], /"h1:SUBNET=x" is no setting of a host/],
    [['up', '--set', 'x1:GANTRY_SUBNET=x'], /"x1" is not a host/],
  ] as const)('calls %s bad input', async ([args, text]) => {
    const { code, text: heard } = await said('--name', newName(), ...args);
    expect(heard).toMatch(text);
    expect(code).toBe(2);
  });

  test('says how to start the sandbox that it was asked for, before or after its subcommand', async () => {
    const name = newName();
    const told = { code: 1, text: expect.stringContaining(`gantry sandbox --name ${name} up`) };
    expect(await said('--name', name, 'status')).toMatchObject(told);
    expect(await said('status', '--name', name)).toMatchObject(told);
    expect(await said('status', '--sandbox', name)).toMatchObject(told);
    expect(await said('--sandbox', name, 'status')).toMatchObject(told);
  });

  test.for([['down'], ['push', 'hello:1'], ['logs', 'h1'], ['exec', 'h1', 'true'], ['kill', 'h1']])(
    'does not %s what is not there',
    async (args) => {
      const name = newName();
      expect(await said(...args.slice(0, 1), '--name', name, ...args.slice(1))).toMatchObject({
        code: 1,
        text: expect.stringContaining(`there is no sandbox ${name} (`),
      });
    },
  );

  test('knows its hosts, and prints JSON wherever --json stands', async () => {
    const sandbox = openSandbox(newName(), { root });
    const of = ['--name', sandbox.layout.name];
    try {
      await sandbox.up({ hosts: 1, bare: true });
      for (const args of [
        ['start', 'h9'],
        ['start', 'x9'],
        ['logs', 'h9'],
        ['logs', 'x9'],
        ['exec', 'h9', 'true'],
      ]) {
        expect(await said(...of, ...args)).toMatchObject({
          code: 2,
          text: expect.stringMatching(/has no host h9|"x9" is not a host/),
        });
      }
      for (const words of [
        ['echo', 'hi'],
        ['--', 'echo', 'hi'],
      ])
        expect(await said('exec', ...of, 'h1', ...words)).toEqual({ code: 0, text: 'hi\n' });
      for (const args of [
        ['--json', 'status'],
        ['status', '--json'],
      ]) {
        expect(JSON.parse((await said(...of, ...args)).text)).toMatchObject({ name: sandbox.layout.name, bare: true });
      }
    } finally {
      await sandbox.down();
    }
  });
});

describe('named sandboxes', () => {
  test('run beside each other, and one ends without the other', async () => {
    const [one, two] = [openSandbox(newName(), { root }), openSandbox(newName(), { root })];
    try {
      await Promise.all([one.up({ hosts: 1, bare: true }), two.up({ hosts: 1, bare: true })]);
      await one.run('h1', ['sh', '-c', 'echo one > /var/lib/gantry/note']);
      await expect(two.run('h1', ['cat', '/var/lib/gantry/note'])).rejects.toThrow('No such file');
      await one.down();
      expect((await two.status()).hosts[1]).toMatchObject({ name: 'h1', power: 'on' });
      await expect(one.status()).rejects.toThrow(/sandbox t\w+ is not running/);
    } finally {
      await Promise.all([one.down(), two.down()]);
    }
  });

  test('started by two commands at once are one sandbox', async () => {
    const sandbox = openSandbox(newName(), { root });
    try {
      const up = ['up', '--hosts', '1', '--bare'];
      const codes = await Promise.all([ends(command(sandbox.layout.name, up)), ends(command(sandbox.layout.name, up))]);
      expect(codes).toEqual([0, 0]);
      expect((await sandbox.status()).hosts.map((host) => host.power)).toEqual(['on', 'on']);
    } finally {
      await sandbox.down();
    }
  });

  test('of one name under two roots are refused, for they would end together; and none ends those of another root', async () => {
    const name = newName();
    const sandbox = openSandbox(name, { root });
    try {
      await sandbox.up({ hosts: 1, bare: true });
      const other = openSandbox(name, { root: join(root, 'other') });
      await expect(other.up({ hosts: 1, bare: true })).rejects.toThrow('from another directory');
      const elsewhere = (...args: string[]) => {
        const env = { ...process.env, GANTRY_SANDBOX_ROOT: join(root, 'none') };
        const { status, stderr } = spawnSync(process.execPath, [main, ...args], { env, encoding: 'utf8' });
        return { status, stderr };
      };
      const stays = `sandbox ${name} is kept under ${root}: it stays`;
      const refused = elsewhere('down', '--name', name);
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining(stays) });
      expect(refused.stderr).toContain(`GANTRY_SANDBOX_ROOT=${root} gantry sandbox --name ${name} down`);
      expect(elsewhere('down', '--all')).toMatchObject({ status: 0, stderr: expect.stringContaining(stays) });
      expect((await sandbox.status()).hosts[1]).toMatchObject({ name: 'h1', power: 'on' });
    } finally {
      await sandbox.down();
    }
  });

  test('have names that stay in their directory', () => {
    expect(() => openSandbox('../x', { root })).toThrow('cannot name a sandbox');
  });
});

test('the trees of cgroups are read from hybrid and unified machines alike', () => {
  const line = (point: string, type: string, options: string) => `30 25 0:26 / ${point} rw - ${type} cgroup ${options}`;
  expect(
    hierarchiesIn(
      [
        line('/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'rw,cpu,cpuacct'),
        line('/sys/fs/cgroup/systemd', 'cgroup', 'rw,xattr,name=systemd'),
        line('/sys/fs/cgroup/unified', 'cgroup2', 'rw,nsdelegate'),
        line('/elsewhere', 'cgroup', 'rw,cpu,cpuacct'),
      ].join('\n'),
    ),
  ).toEqual([
    { version: 1, mountPoint: '/sys/fs/cgroup/cpu,cpuacct', options: 'cpu,cpuacct' },
    { version: 1, mountPoint: '/sys/fs/cgroup/systemd', options: 'none,name=systemd' },
    { version: 2, mountPoint: '/sys/fs/cgroup/unified', options: '' },
  ]);
});
