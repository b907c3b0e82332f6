/** The kernel forwards by itself: an agent that is killed, and one that comes, cost no packet. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { startProgram } from '#test/support/lab-program.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let hosts: LabHost[];
let near: Awaited<ReturnType<LabHost['attach']>>;
let far: typeof near;
const vip = '10.224.0.2';

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  for (const host of hosts) await host.apply(hosts);
  near = await lab.host(1).attach(2);
  far = await lab.host(2).attach(2);
  await apply();
});
afterAll(() => lab?.stop());

async function apply() {
  const web = endpoint('web', { vip, backends: [backend(far.address)] });
  await lab.host(1).apply(hosts, { endpoints: [web], attachments: [near] });
  await lab.host(2).apply(hosts, { endpoints: [web], attachments: [far] });
}

/** Sends numbered bytes as fast as they are taken, for as long as it is not told to stop; the other end checks and counts them. */
const source = `const s = require('net').connect(7000, '${vip}'); const block = Buffer.alloc(65536, 7); let sent = 0, over = false;
  const more = () => { while (!over) { sent += block.length; if (!s.write(block)) return; } s.end(); };
  s.on('connect', () => { console.log('connected'); more(); }); s.on('drain', more);
  s.on('error', (e) => console.log('failed ' + e.code)); s.on('close', () => { console.log('sent ' + sent); process.exit(); });
  process.stdin.on('data', () => { over = true; });`;
const sink = `require('net').createServer((s) => { let got = 0;
  s.on('data', (d) => { got += d.length; }); s.on('close', () => { console.log('got ' + got); process.exit(); });
  s.on('error', (e) => console.log('failed ' + e.code)); }).listen(7000, () => console.log('listening'));`;

it('F29: no echo and no byte is lost while the agents of both hosts are killed and started, three times', async () => {
  const sinking = startProgram(far.netns, sink);
  await eventually(() => sinking.output().includes('listening'));
  const sending = startProgram(near.netns, source);
  await eventually(() => sending.output().includes('connected'));
  let pings = '';
  const pinging = lab
    .inside(near.netns, 'ping', '-q', '-i', '0.002', '-w', '50', '-c', '2000', far.address)
    .then((text) => {
      pings = text;
    });
  for (let round = 0; round < 3; round++) {
    for (const host of hosts) await host.killAgent();
    for (const host of hosts) host.startAgent();
    await apply();
  }
  await pinging;
  sending.say('stop');
  const sent = /sent (\d+)/.exec(await sending.ended)?.[1];
  const got = /got (\d+)/.exec(await sinking.ended)?.[1];
  expect(pings).toContain('2000 packets transmitted, 2000 received, 0% packet loss');
  expect(sending.output() + sinking.output()).not.toContain('failed');
  expect(got).toBe(sent);
  expect(Number(got)).toBeGreaterThan(10_000_000);
});

it('forgets no connection to a task that is new to an agent that has just come, and known to it a moment later', async () => {
  const [h1, h2] = [lab.host(1), lab.host(2)];
  const newer = await h2.attach(3);
  await lab.serveTalk(newer.netns, 7000, 'newer');
  const wantedOf = (host: LabHost, own: typeof near, backends: readonly (typeof near)[]) => {
    const web = endpoint('web', { vip, backends: backends.map(({ address }) => backend(address)) });
    return host.wanted(hosts, { endpoints: [web], attachments: own === near ? [near] : [far, newer] });
  };
  await h2.call('apply', wantedOf(h2, far, [newer]));
  await h1.call('apply', wantedOf(h1, near, [newer]));
  const talking = startProgram(
    near.netns,
    `const s = require('net').connect(7000, '${vip}'); s.on('connect', () => console.log('connected'));
     s.on('data', (d) => { console.log(String(d)); process.exit(); }); s.on('error', (e) => { console.log('failed ' + e.code); process.exit(); });
     process.stdin.on('data', () => s.write('?'));`,
  );
  await eventually(() => talking.output().includes('connected'));
  await h1.killAgent();
  h1.startAgent();
  // What its journal says is older than what its kernel has led since.
  await h1.call('applyInTurn', [wantedOf(h1, near, [far]), wantedOf(h1, near, [far, newer])]);
  // It has looked for strangers, and begun to answer again.
  await eventually(async () => (await h1.call<[string, number][]>('connections', [near.address])).length === 1);
  talking.say('go on');
  expect(await talking.ended).toContain('newer');
});
