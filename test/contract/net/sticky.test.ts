/** A client that keeps its backend, in packets: by the VIP and by any ingress node, while others come and go. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Attachment } from '#net/network.ts';
import { backend, endpoint, network } from '#test/support/endpoint.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

type Task = Attachment & { readonly netns: string };
const vip = '10.224.0.2';
const networks = [network('shop', 1)];
const clients = Array.from({ length: 12 }, (_, index) => `10.90.0.${200 + index}`);

let lab: NetLab;
let hosts: LabHost[];
let tasks: Task[];

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  for (const host of hosts) await host.apply(hosts, { networks });
  tasks = [];
  for (const [index, host] of [...hosts, ...hosts].entries()) {
    tasks.push(await host.attach(2 + index, { networks: ['shop'] }));
  }
  for (const [index, task] of tasks.entries()) await lab.serve(task.netns, 80, `t${index}`);
  for (const client of clients) await lab.outside('ip', 'address', 'add', `${client}/32`, 'dev', 'lo');
});

afterAll(() => lab?.stop());

async function serve(...numbers: number[]) {
  const web = endpoint('web', {
    vip,
    sticky: 'client',
    networks: [{ network: 'shop', aliases: [] }],
    ports: [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }],
    backends: numbers.map((number) => backend(tasks[number]?.address as string)),
  });
  for (const host of hosts) {
    const prefix = host.subnet.replace('0/24', '');
    const attachments = tasks.filter((task) => task.address.startsWith(prefix));
    await host.apply(hosts, { endpoints: [web], networks, attachments });
  }
}

/** Which task answered each client, by that node. */
async function answers(host: LabHost): Promise<Map<string, string>> {
  const program = `const net = require('net'); let left = ${clients.length}; const said = {};
    for (const localAddress of ${JSON.stringify(clients)}) {
      const s = net.connect({ host: '${host.address}', port: 8080, localAddress });
      s.on('error', (e) => { said[localAddress] = e.code; if (--left === 0) console.log(JSON.stringify(said)); });
      s.once('data', (d) => { said[localAddress] = String(d).trim(); if (--left === 0) console.log(JSON.stringify(said)); });
    }`;
  const said = JSON.parse(await lab.program(lab.world, program)) as Record<string, string>;
  for (const [client, answer] of Object.entries(said)) expect(answer).toContain(` ${client}:`);
  return new Map(Object.entries(said).map(([client, answer]) => [client, answer.split(' ')[0] as string]));
}

it('is led to the same task by every node, and only the clients of a task that leaves to another', async () => {
  await serve(0, 1, 2, 3);
  const first = await answers(hosts[0] as LabHost);
  expect(await answers(hosts[0] as LabHost)).toEqual(first);
  expect(await answers(hosts[1] as LabHost)).toEqual(first);
  expect(new Set(first.values()).size).toBeGreaterThan(1);
  const gone = [...first.values()][0] as string;
  await serve(...[0, 1, 2, 3].filter((number) => `t${number}` !== gone));
  const second = await answers(hosts[1] as LabHost);
  for (const [client, task] of first) {
    if (task === gone) expect(second.get(client)).not.toBe(gone);
    else expect(second.get(client)).toBe(task);
  }
  await serve(0, 1, 2, 3);
  expect(await answers(hosts[0] as LabHost)).toEqual(first);
});

it('is led to the same task by the VIP', async () => {
  await serve(0, 1, 2, 3);
  for (const task of tasks) {
    const counts = await lab.spread(task.netns, vip, 80, 10);
    expect([...counts.values()]).toEqual([10]);
  }
});
