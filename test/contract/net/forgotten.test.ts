/** Connections of an address that is gone are forgotten, and no other: not the one that a client began by the same port while the kernel's table was read. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabProgram, startProgram } from '#test/support/lab-program.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

const conntrack = join(import.meta.dirname, '../../../net/host/conntrack.ts');
const ports = [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }] as const;
/** The kernel gives a new entry the old one's place, and with it the old one's number, often, not always. */
const connections = 40;
let lab: NetLab;
let h1: LabHost;
let a: Awaited<ReturnType<LabHost['attach']>>;
let b: typeof a;
const programs: LabProgram[] = [];

beforeAll(async () => {
  lab = await NetLab.start(1);
  h1 = lab.host(1);
  await h1.apply([h1]);
  [a, b] = [await h1.attach(2), await h1.attach(3)];
});
afterAll(async () => {
  for (const program of programs) program.kill();
  await lab?.stop();
});

async function start(netns: string, text: string): Promise<LabProgram> {
  const program = startProgram(netns, text);
  programs.push(program);
  await eventually(() => program.output().includes('ready'));
  return program;
}

/** Where clients are led to; `draining`: finishes what it does. */
const serving = (one: string, draining: readonly string[] = []) =>
  h1.apply([h1], {
    endpoints: [
      endpoint('web', { ports, backends: [backend(one), ...draining.map((ip) => backend(ip, { serving: false }))] }),
    ],
    attachments: [a, b],
  });

it('leaves alone what has begun by an old connection’s port since the table was read', async () => {
  const listens = `.listen(80, '0.0.0.0', () => console.log('ready'))`;
  // The first one closes first, so that its client may use the port again at once.
  await start(
    a.netns,
    `require('net').createServer((s) => s.on('error', () => {}).on('data', () => s.end('a')))${listens}`,
  );
  await start(
    b.netns,
    `require('net').createServer((s) => s.on('error', () => {}).on('data', () => s.write('b')))${listens}`,
  );
  await serving(a.address);
  const client = await start(
    lab.world,
    `const all = [];
    const begin = (each) => {
      for (let i = 0; i < ${connections}; i++) {
        all[i] = require('net').connect({ host: '${h1.address}', port: 8080, localPort: 30000 + i }, () => all[i].write('?'));
        all[i].on('error', (error) => console.log('failed ' + error.code));
        each(all[i]);
      }
    };
    process.stdin.on('data', (line) => {
      if (String(line) === 'begin\\n') begin((s) => s.resume().on('close', () => console.log('closed')));
      else if (String(line) === 'again\\n') begin((s) => s.on('data', (data) => console.log('answered by ' + data)));
      else for (const s of all) s.write('?');
    });
    console.log('ready');`,
  );
  const counts = (text: string, count: number) =>
    eventually(() => {
      expect(client.output().match(/failed .*/)).toBeNull();
      return client.output().split(text).length - 1 === count;
    });
  client.say('begin');
  await counts('closed', connections);
  await serving(b.address, [a.address]);

  const forgetting = await start(
    h1.netns,
    `import('${conntrack}').then(async ({ Conntrack }) => {
      const conntrack = new Conntrack(async (entries) => {
        console.log('ready: ' + entries.length);
        await new Promise((resolve) => process.stdin.once('data', resolve));
      });
      await conntrack.forget('${a.address}', 'all');
      await conntrack.close();
      process.exit();
    });`,
  );
  // Nobody waits for its answers: those who might would have their sockets ended.
  expect(forgetting.output()).toContain('ready: 0');
  client.say('again');
  await counts('answered by b', connections);
  forgetting.say('go on');
  await forgetting.ended;
  client.say('more');
  await counts('answered by b', 2 * connections);
});

it('forgets what an address answered, and what it began', async () => {
  await serving(b.address);
  const entries = () => h1.run('cat', '/proc/net/nf_conntrack');
  await start(lab.world, `require('net').createServer().listen(7100, '0.0.0.0', () => console.log('ready'))`);
  await start(b.netns, `require('net').connect(7100, '10.90.0.254', () => console.log('ready')).on('error', () => {})`);
  await start(
    lab.world,
    `require('net').connect(8080, '${h1.address}', () => console.log('ready')).on('error', () => {})`,
  );
  expect(await entries()).toMatch(new RegExp(`ESTABLISHED src=${b.address} dst=10\\.90\\.0\\.254`));
  expect(await entries()).toMatch(new RegExp(`dst=${h1.address} .*dport=8080 src=${b.address} `));
  await h1.apply([h1], { attachments: [a] });
  await eventually(async () => !(await entries()).includes(b.address));
});
