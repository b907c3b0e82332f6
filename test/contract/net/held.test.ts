/** Services without a task: the first packets of connections to them wait in the agent, and go on when there is a task, or are refused in the end. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetworkWanted } from '#net/network.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { backend, endpoint, network } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { startProgram } from '#test/support/lab-program.ts';
import { type LabHost, NetLab, worldAddress } from '#test/support/net-lab.ts';

let lab: NetLab;
let hosts: [LabHost, LabHost];
let near: Awaited<ReturnType<LabHost['attach']>>;
let far: typeof near;
let stranger: typeof near;
const vip = '10.224.0.2';
const ports = (['tcp', 'udp'] as const).map(
  (protocol) => ({ target: 7000, published: 8080, protocol, mode: 'ingress' }) as const,
);
const front = network('front', 1);
const back = network('back', 2, { ipv6: true });
const on = (name: string) => ({ networks: [name], serviceId: endpoint(name).serviceId });

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  for (const host of hosts) await host.apply(hosts, { networks: [front, back] });
  near = await hosts[0].attach(2, on('front'));
  stranger = await hosts[0].attach(3, on('back'));
  far = await hosts[1].attach(2, on('front'));
  await lab.serveTalk(far.netns, 7000, 'here');
  await sleep();
});
afterAll(() => lab?.stop());

async function apply(over: Partial<Endpoint>) {
  const web = endpoint('web', { vip, ports, networks: [{ network: 'front', aliases: [] }], holdMs: 30_000, ...over });
  const common: Partial<NetworkWanted> = { endpoints: [web], networks: [front, back] };
  await hosts[0].apply(hosts, { ...common, attachments: [near, stranger] });
  await hosts[1].apply(hosts, { ...common, attachments: [far] });
}
const sleep = (holdMs = 30_000) => apply({ holdMs });
const wake = () => apply({ backends: [backend(far.address)] });
const called = (host = hosts[0]) => host.call<string[]>('called');

/** Connects and says something; tells the answer, or what became of it, with the time since the begin. */
const talk = (netns: string, address: string, port: number) =>
  startProgram(
    netns,
    `const begin = performance.now(); const ms = () => Math.round(performance.now() - begin);
     const s = require('net').connect(${port}, '${address}', () => s.write('?'));
     s.on('data', (d) => { console.log(String(d).trim() + ' after ' + ms()); process.exit(); });
     s.on('error', (e) => { console.log(e.code + ' after ' + ms()); process.exit(); });
     console.log('calls')`,
  );
const talkUdp = (netns: string, address: string, port: number) =>
  startProgram(
    netns,
    `const s = require('dgram').createSocket('udp4');
     s.on('message', (d) => { console.log(String(d).trim() + ' after 0'); process.exit(); });
     s.send('?', ${port}, '${address}'); console.log('calls')`,
  );
const msOf = (output: string) => Number(/after (\d+)/.exec(output)?.[1]);

describe('a request to a service that has no task', () => {
  it.each([
    ['a task, by its VIP', () => talk(near.netns, vip, 7000), () => near.address],
    ['outside, by a published port', () => talk(lab.world, '10.90.0.1', 8080), () => '10.90.0.254'],
    ['the host itself, by the VIP', () => talk(hosts[0].netns, vip, 7000), () => '10.192.1.1'],
    ['a task, by a datagram', () => talkUdp(near.netns, vip, 7000), () => near.address],
    ['outside, by a datagram', () => talkUdp(lab.world, '10.90.0.1', 8080), () => ''],
  ])('from %s, waits for one, and is answered sooner than it would be sent again', async (_who, call, address) => {
    await sleep();
    await called();
    const calling = call();
    await eventually(async () => (await called()).length > 0);
    expect(calling.output().trim()).toBe('calls');
    await wake();
    const output = await calling.ended;
    expect(output).toContain(`here ${address()}`);
    expect(msOf(output)).toBeLessThan(900);
  });

  it('goes on by what is there then: others of the same time, too', async () => {
    await sleep();
    const calling = Array.from({ length: 20 }, () => talk(near.netns, vip, 7000));
    await eventually(() => calling.every((one) => one.output().includes('calls')));
    await eventually(async () => (await called()).length > 0);
    await wake();
    for (const one of calling) expect(await one.ended).toContain(`here ${near.address}`);
  });

  it('is told of once, and again every second', async () => {
    await sleep();
    await called();
    const calling = [talk(near.netns, vip, 7000), talk(near.netns, vip, 7001)];
    await eventually(async () => (await called()).length > 0);
    const since = performance.now();
    const again: string[] = [];
    await eventually(async () => {
      again.push(...(await called()));
      return again.length > 1;
    });
    expect(performance.now() - since).toBeGreaterThan(1_000);
    expect(new Set(again)).toEqual(new Set(['service-web']));
    await wake();
    expect(await calling[0]!.ended).toContain('here');
    // Nobody listens there: the task itself says so.
    expect(await calling[1]!.ended).toContain('ECONNREFUSED');
  });

  it.each([
    ['a task', () => talk(near.netns, vip, 7000)],
    ['outside', () => talk(lab.world, '10.90.0.1', 8080)],
  ])('from %s, is refused when nobody has come in time', async (_who, call) => {
    await sleep(600);
    const output = await call().ended;
    expect(output).toContain('ECONNREFUSED');
    expect(msOf(output)).toBeGreaterThanOrEqual(500);
    expect(msOf(output)).toBeLessThan(3_000);
  });

  it('of who may not call it is refused at once, and wakes nobody', async () => {
    await sleep();
    await called();
    const output = await talk(stranger.netns, vip, 7000).ended;
    expect(output).toMatch(/ECONNREFUSED|EHOSTUNREACH|EACCES/);
    expect(msOf(output)).toBeLessThan(900);
    expect(await called()).toEqual([]);
  });

  it('waits through a restart of the agent', async () => {
    await sleep();
    await hosts[0].killAgent();
    const calling = talk(near.netns, vip, 7000);
    await eventually(() => calling.output().includes('calls'));
    hosts[0].startAgent();
    await sleep();
    await eventually(async () => (await called()).length > 0);
    expect(calling.output().trim()).toBe('calls');
    await wake();
    expect(await calling.ended).toContain(`here ${near.address}`);
  });

  it('is refused at once by a service that does not wait for anybody', async () => {
    await apply({ holdMs: 0 });
    const output = await talk(near.netns, vip, 7000).ended;
    expect(output).toContain('ECONNREFUSED');
    expect(msOf(output)).toBeLessThan(900);
  });
});

it('what somebody takes away of the rules that hold is put back', async () => {
  await sleep();
  await hosts[0].run('nft', 'delete', 'element', 'ip', 'gantry', 'services', `{ ${vip} }`);
  await eventually(async () =>
    (await hosts[0].run('nft', 'list', 'map', 'ip', 'gantry', 'services')).includes('goto k0'),
  );
  await called();
  const calling = talk(near.netns, vip, 7000);
  await eventually(async () => (await called()).length > 0);
  await wake();
  expect(await calling.ended).toContain('here');
});

it('the addresses of clients from further away are kept', async () => {
  await sleep();
  const calling = startProgram(
    lab.world,
    `const s = require('net').connect({ host: '10.90.0.1', port: 8080, localAddress: '${worldAddress}' }, () => s.write('?'));
     s.on('data', (d) => { console.log(String(d).trim()); process.exit(); }); s.on('error', (e) => { console.log(e.code); process.exit(); })`,
  );
  await eventually(async () => (await called()).length > 0);
  await wake();
  expect(await calling.ended).toContain(`here ${worldAddress}`);
});
