/** Calls of services that are counted, as this kernel counts them: by VIP and by published port, their first packets alone. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let host: LabHost;
let server: Awaited<ReturnType<LabHost['attach']>>;
let client: Awaited<ReturnType<LabHost['attach']>>;
const vip = '10.224.0.2';
const ports = (['tcp', 'udp'] as const).map(
  (protocol) => ({ target: 7000, published: 8080, protocol, mode: 'ingress' }) as const,
);

beforeAll(async () => {
  lab = await NetLab.start(1);
  host = lab.host(1);
  await host.apply([host]);
  server = await host.attach(2);
  client = await host.attach(3);
  await lab.serveTalk(server.netns, 7000, 'here');
  await serve(true);
  // What was counted before anybody asked is of before.
  await traffic();
});

afterAll(() => lab?.stop());

async function serve(counted: boolean, backends = [backend('10.192.1.2')]) {
  const web = endpoint('web', { vip, ports, backends, counted });
  const quiet = endpoint('quiet', { vip: '10.224.0.3', backends });
  await host.apply([host], { endpoints: [web, quiet], attachments: [server, client] });
}

const traffic = async () => Object.fromEntries(await host.call<[string, number][]>('traffic'));

/** Connects `times` times, one after the other, and says something several times on each. */
const call = (netns: string, address: string, times: number, port = 7000) =>
  lab.program(
    netns,
    `const net = require('net'); let left = ${times};
     (function next() {
       if (left-- === 0) return console.log('done');
       const s = net.connect(${port}, '${address}', () => s.write('?')); let said = 0;
       s.on('data', () => ++said < 5 ? s.write('?') : s.end()); s.on('close', next);
     })();
     setTimeout(() => { console.log('nothing'); process.exit(); }, 5000).unref()`,
  );

it('are counted once for each connection, from tasks, from outside and from the host itself', async () => {
  expect(await call(client.netns, vip, 7)).toContain('done');
  expect(await call(lab.world, '10.90.0.1', 5, 8080)).toContain('done');
  expect(await call(host.netns, vip, 3)).toContain('done');
  expect(await traffic()).toEqual({ 'service-web': 15 });
  expect(await traffic()).toEqual({});
});

it('are told on when the rules were made anew, and not told of services that are not counted', async () => {
  expect(await call(client.netns, vip, 2)).toContain('done');
  await traffic();
  await host.run('nft', 'delete', 'table', 'ip', 'gantry');
  await eventually(async () => (await host.run('nft', 'list', 'tables')).includes('table ip gantry'));
  expect(await call(client.netns, vip, 4)).toContain('done');
  expect(await call(client.netns, '10.224.0.3', 4)).toContain('done');
  expect(await traffic()).toEqual({ 'service-web': 4 });
});

it('are looked for no more when nobody counts', async () => {
  await serve(false);
  expect(await call(client.netns, vip, 2)).toContain('done');
  expect(await traffic()).toEqual({});
  await serve(true);
  expect(await call(client.netns, vip, 2)).toContain('done');
  expect(await traffic()).toEqual({ 'service-web': 2 });
});
