/** What the kernel says of the connections that a task answers: all that others have with it, whatever way they came. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let h1: LabHost;
let h2: LabHost;
let a: Awaited<ReturnType<LabHost['attach']>>;
let b: typeof a;
let c: typeof a;
const vip = '10.224.0.2';
const ports = [{ target: 7000, published: 8080, protocol: 'tcp', mode: 'ingress' }] as const;

beforeAll(async () => {
  lab = await NetLab.start(2);
  [h1, h2] = [lab.host(1), lab.host(2)];
  for (const host of [h1, h2]) await host.apply([h1, h2]);
  [a, b, c] = [await h1.attach(2), await h1.attach(3), await h2.attach(2)];
  await lab.serveTalk(a.netns, 7000, 'a');
  const web = endpoint('web', { vip, ports, backends: [backend(a.address)] });
  await h1.apply([h1, h2], { endpoints: [web], attachments: [a, b] });
  await h2.apply([h1, h2], { endpoints: [web], attachments: [c] });
});
afterAll(() => lab?.stop());

const counted = async (...addresses: string[]) =>
  Object.fromEntries(await h1.call<[string, number][]>('connections', addresses));

/** Connects `count` times, says something each time, and stays until `seconds` have passed. */
const talk = (netns: string, address: string, port: number, count: number, seconds: number) =>
  lab.program(
    netns,
    `for (let i = 0; i < ${count}; i++) require('net').connect(${port}, '${address}').on('error', () => {}).write('?');
     setTimeout(() => process.exit(), ${seconds * 1000});`,
  );

it('is nothing for a task that nobody talks to', async () => {
  expect(await counted(a.address, b.address)).toEqual({ [a.address]: 0, [b.address]: 0 });
  expect(await counted()).toEqual({});
});

it('counts those by its address, its VIP and its published port, from this host, another and outside, until they are closed', async () => {
  const talks = [
    talk(b.netns, a.address, 7000, 1, 3),
    talk(b.netns, vip, 7000, 2, 3),
    talk(c.netns, vip, 7000, 3, 3),
    talk(lab.world, h1.address, 8080, 4, 3),
    talk(lab.world, h2.address, 8080, 5, 3),
  ];
  await eventually(async () => {
    expect(await counted(a.address, b.address)).toEqual({ [a.address]: 15, [b.address]: 0 });
    return true;
  });
  await Promise.all(talks);
  await eventually(async () => (await counted(a.address))[a.address] === 0);
});

it('leaves out what a task has with itself, and what it began', async () => {
  await lab.serveTalk(lab.world, 7100, 'world');
  const talks = [talk(a.netns, vip, 7000, 2, 2), talk(a.netns, '10.90.0.254', 7100, 3, 2)];
  await eventually(async () => (await h1.run('cat', '/proc/net/nf_conntrack')).split('ESTABLISHED').length >= 6);
  expect(await counted(a.address)).toEqual({ [a.address]: 0 });
  await Promise.all(talks);
});
