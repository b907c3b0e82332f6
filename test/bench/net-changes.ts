/** How long a task's attachment, a change of an endpoint and a full rebuild take, and whether anybody is led to who has been removed. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Endpoint } from '#proto/model/assignment.ts';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';
import type { Figure } from './figure.ts';
import { median, percentile } from './measure.ts';

const section = 'net';
const execute = promisify(execFile);
const sizes = [10, 1_000, 10_000] as const;
const changesOfEach = 300;
const attachments = 60;
const removals = 24;
const connectionsOfEach = 60;

/** Service `number` of three backends; the last one's address ends in `last`. */
function service(number: number, last: number): Endpoint {
  return endpoint(`s${number}`, {
    vip: `10.225.${number >> 8}.${number & 255}`,
    backends: [2, 3, last].map((byte, slot) => backend(`10.192.${1 + slot}.${byte}`, { slot: slot + 1 })),
  });
}

const services = (count: number) => Array.from({ length: count }, (_, number) => service(number, 4));

export async function changes(): Promise<Figure[]> {
  const lab = await NetLab.start(3);
  try {
    const hosts = [lab.host(1), lab.host(2), lab.host(3)] as const;
    for (const host of hosts) await host.apply(hosts);
    return [
      ...(await attaching(hosts)),
      ...(await changing(hosts)),
      ...(await rebuilding(hosts)),
      ...(await removing(lab, hosts)),
    ];
  } finally {
    await lab.stop();
  }
}

/** From nothing to a task with namespace, link, address, in the rules and in DNS, beside 1,000 services. */
async function attaching(hosts: readonly LabHost[]): Promise<Figure[]> {
  const host = hosts[0] as LabHost;
  const wanted = host.wanted(hosts, { endpoints: services(1_000) });
  const samples = await host.call<number[]>('timeAttach', { wanted, count: attachments });
  await host.apply(hosts);
  const name = 'attach of a task, all of it';
  return [
    {
      section,
      name: `${name}, p50`,
      value: median(samples),
      unit: 'ms',
      target: { bound: 'at most', value: 4 },
      samples,
    },
    { section, name: `${name}, p99`, value: percentile(samples, 0.99), unit: 'ms' },
  ];
}

/** Until all three nodes have acknowledged: of each change the slowest node's time. */
async function changing(hosts: readonly LabHost[]): Promise<Figure[]> {
  const medians: number[] = [];
  const figures: Figure[] = [];
  for (const count of sizes) {
    const endpoints = Array.from({ length: changesOfEach }, (_, round) =>
      service((round * 7) % count, 5 + (round % 200)),
    );
    await Promise.all(hosts.map((host) => host.call('hold', host.wanted(hosts, { endpoints: services(count) }))));
    const slowest: number[] = [];
    for (const changed of endpoints) {
      slowest.push(Math.max(...(await Promise.all(hosts.map((host) => host.call<number>('change', changed))))));
    }
    const name = `endpoint change in every kernel, ${count.toLocaleString('en-US')} services`;
    medians.push(median(slowest));
    figures.push(
      { section, name: `${name}, p50`, value: median(slowest), unit: 'ms' },
      {
        section,
        name: `${name}, p99`,
        value: percentile(slowest, 0.99),
        unit: 'ms',
        target: { bound: 'at most', value: 20 },
        samples: slowest,
      },
    );
  }
  const [few, , many] = medians as [number, number, number];
  figures.push({
    section,
    name: 'endpoint change: 10,000 services to 10, p50',
    value: many / few,
    unit: 'x',
    target: { bound: 'at most', value: 1.5 },
  });
  return figures;
}

/** A kernel that has nothing of it, and an agent that has just started; beside `nft -f` of the very table. */
async function rebuilding(hosts: readonly LabHost[]): Promise<Figure[]> {
  const host = hosts[0] as LabHost;
  const wanted = host.wanted(hosts, { endpoints: services(10_000) });
  const own: number[] = [];
  const byNft: number[] = [];
  const file = join(host.runDir, 'table.nft');
  for (let round = 0; round < 5; round++) {
    await host.killAgent();
    await host.run('nft', 'delete', 'table', 'ip', 'gantry');
    host.startAgent();
    own.push(await host.call<number>('timeApply', wanted));
    if (round === 0) {
      const list = ['nsenter', `--net=${host.netns}`, 'nft', 'list', 'table', 'ip', 'gantry'];
      const { stdout } = await execute(list[0] as string, list.slice(1), { maxBuffer: 1 << 28 });
      writeFileSync(file, stdout);
    }
    await host.killAgent();
    await host.run('nft', 'delete', 'table', 'ip', 'gantry');
    const began = performance.now();
    await host.run('nft', '-f', file);
    byNft.push(performance.now() - began);
    host.startAgent();
  }
  await host.apply(hosts);
  return [
    {
      section,
      name: 'full rebuild, 10,000 services of 3',
      value: median(own),
      unit: 'ms',
      beside: { what: 'nft -f', value: median(byNft) },
      target: { bound: 'at most', value: 1_000 },
      samples: own,
    },
  ];
}

/** Connections by the VIP and by a published port, from a task and from outside, made after every node has acknowledged a removal. */
async function removing(lab: NetLab, hosts: readonly LabHost[]): Promise<Figure[]> {
  const tasks: Awaited<ReturnType<LabHost['attach']>>[] = [];
  for (const [index, host] of hosts.entries()) {
    const task = await host.attach(20);
    await lab.serve(task.netns, 80, `t${index}`);
    tasks.push(task);
  }
  const client = await (hosts[0] as LabHost).attach(21);
  const vip = '10.224.0.9';
  const port = { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' } as const;
  const apply = async (addresses: readonly string[]) => {
    const web = endpoint('removing', { vip, ports: [port], backends: addresses.map((one) => backend(one)) });
    await Promise.all(
      hosts.map((host, index) =>
        host.apply(hosts, {
          endpoints: [web],
          attachments: index === 0 ? [...tasks.slice(0, 1), client] : tasks.slice(index, index + 1),
        }),
      ),
    );
  };
  let wrong = 0;
  let made = 0;
  for (let round = 0; round < removals; round++) {
    const removed = round % tasks.length;
    await apply(tasks.map((task) => task.address));
    await apply(tasks.filter((_, index) => index !== removed).map((task) => task.address));
    const answers = await Promise.all([
      lab.program(client.netns, connections(vip, 80)),
      lab.program(lab.world, connections((hosts[round % hosts.length] as LabHost).address, 8080)),
    ]);
    for (const name of answers.join('\n').split('\n')) {
      if (name === '') continue;
      made++;
      if (!name.startsWith('t') || name === `t${removed}`) wrong++;
    }
  }
  if (made !== removals * connectionsOfEach * 2) throw new Error(`only ${made} connections were made`);
  return [
    {
      section,
      name: `of ${made.toLocaleString('en-US')} connections after a removal, to the removed or failed`,
      value: wrong,
      unit: '',
      target: { bound: 'at most', value: 0 },
    },
  ];
}

/** Prints the first word that each of many connections is answered. */
function connections(address: string, port: number): string {
  return `(async () => { for (let i = 0; i < ${connectionsOfEach}; i++) await new Promise((done) => {
    const s = require('net').connect(${port}, '${address}'); let text = '';
    s.on('data', (d) => { text += d; }); s.on('error', () => {});
    s.on('close', () => { console.log(text.split(' ')[0] || 'failed'); done(); }); }); })();`;
}
