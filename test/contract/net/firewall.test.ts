/** What the host's operator forbids for a published port stays forbidden, wherever and with whatever it is said, and whatever the agent does. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let ingress: LabHost;
let hosts: LabHost[];
let task: Awaited<ReturnType<LabHost['attach']>>;
const ports = [8080, 8081].map((published) => ({ target: 80, published, protocol: 'tcp', mode: 'ingress' }) as const);

beforeAll(async () => {
  lab = await NetLab.start(2);
  ingress = lab.host(1);
  hosts = [ingress, lab.host(2)];
  for (const host of hosts) await host.apply(hosts);
  task = await lab.host(2).attach(2);
  await lab.serve(task.netns, 80, 'web');
  await publish(ports);
});
afterAll(() => lab?.stop());

async function publish(wanted: typeof ports) {
  const web = endpoint('web', { vip: '10.224.0.2', ports: wanted, backends: [backend(task.address)] });
  await ingress.apply(hosts, { endpoints: [web] });
  await lab.host(2).apply(hosts, { endpoints: [web], attachments: [task] });
}

const reached = (port: number) =>
  lab.inside(lab.world, 'busybox', 'nc', '-w', '1', ingress.address, String(port)).then(
    (text) => text.startsWith('web '),
    () => false,
  );
/** 8080 is forbidden, and 8081 is not. */
async function holds() {
  await eventually(async () => !(await reached(8080)));
  expect(await reached(8081)).toBe(true);
}

beforeEach(() => eventually(() => reached(8080)));
afterEach(async () => {
  for (const table of ['inet mine', 'ip filter', 'ip raw', 'ip mangle'])
    await ingress.run('nft', 'delete', 'table', ...table.split(' ')).catch(() => {});
});

const chain = (hook: string, priority: number, rule: string, policy = 'accept') =>
  [
    'nft',
    `table inet mine { chain c { type filter hook ${hook} priority ${priority}; policy ${policy}; ${rule}; }; }`,
  ] as const;
const originally = 'meta l4proto tcp ct original proto-dst 8080 drop';

describe.each([
  ['at input', chain('input', 0, 'tcp dport 8080 drop')],
  ['at input, late', chain('input', 300, 'tcp dport 8080 drop')],
  [
    'at input, as all that is not allowed',
    chain('input', 0, 'ct state established,related accept; tcp dport { 22, 8081 } accept', 'drop'),
  ],
  ['at input, with a counter and a reject', chain('input', -10, 'tcp dport 8080 counter reject with tcp reset')],
  [
    'at input, of the clients of one network',
    chain('input', 0, 'ip saddr 10.90.0.0/24 iifname "eth0" tcp dport 8080 drop'),
  ],
  ['before routing, first of all', chain('prerouting', -400, 'tcp dport 8080 drop')],
  ['before routing', chain('prerouting', -150, 'tcp dport 8080 drop')],
  ['before routing, behind the translation', chain('prerouting', 0, originally)],
  ['at forward, early', chain('forward', -200, originally)],
  ['at forward', chain('forward', 0, originally)],
  ['at forward, late', chain('forward', 300, originally)],
  ['by iptables at INPUT', ['iptables-nft', '-A', 'INPUT', '-p', 'tcp', '--dport', '8080', '-j', 'DROP']],
  [
    'by iptables at FORWARD',
    ['iptables-nft', '-I', 'FORWARD', '-p', 'tcp', '-m', 'conntrack', '--ctorigdstport', '8080', '-j', 'DROP'],
  ],
  [
    'by iptables in the table raw',
    ['iptables-nft', '-t', 'raw', '-A', 'PREROUTING', '-p', 'tcp', '--dport', '8080', '-j', 'DROP'],
  ],
] as const)('what is dropped %s', (_where, command) => {
  it('is dropped, also while the agent is away and when it comes back; and no longer when the rule is gone', async () => {
    await ingress.run(...command);
    await holds();
    const text = () => ingress.run('nft', '-s', 'list', 'ruleset');
    const foreign = async () =>
      (await text()).split(/^(?=table )/m).filter((table) => !/^table \S+ gantry/.test(table));
    const before = await foreign();
    await ingress.killAgent();
    await holds();
    ingress.startAgent();
    await publish(ports);
    await holds();
    await ingress.run('nft', 'delete', 'table', 'ip', 'gantry');
    await eventually(async () => (await ingress.run('nft', 'list', 'tables')).includes('table ip gantry\n'));
    await holds();
    expect(await foreign()).toEqual(before);
  });
});

describe('the host firewall', () => {
  it('is followed through chains, sets and maps of its own, and as it changes', async () => {
    await ingress.run(
      'nft',
      `table inet mine {
        set closed { type inet_service; elements = { 8080 }; }
        map what { type inet_service : verdict; elements = { 8080 : jump strict }; }
        chain strict { ip saddr @friends accept; tcp dport @closed drop; }
        set friends { type ipv4_addr; }
        chain c { type filter hook input priority 0; tcp dport vmap @what; }
      }`,
    );
    await holds();
    await ingress.run('nft', 'add element inet mine friends { 10.90.0.254 }');
    await eventually(() => reached(8080));
    await ingress.run('nft', 'flush set inet mine friends');
    await holds();
    await ingress.run('nft', 'flush ruleset');
    await eventually(() => reached(8080));
    expect(await ingress.run('nft', 'list', 'tables')).not.toContain('gantry-of-');
  });

  it('does not hold while its table is dormant', async () => {
    await ingress.run(...chain('input', 0, 'tcp dport 8080 drop'));
    await holds();
    await ingress.run('nft', 'add table inet mine { flags dormant; }');
    await eventually(() => reached(8080));
    await ingress.run('nft', 'add table inet mine');
    await holds();
  });

  it('holds for a port that is published later, from its first packet', async () => {
    await publish([]);
    await ingress.run(...chain('input', 0, 'tcp dport 8080 drop'));
    await eventually(async () => (await ingress.run('nft', 'list', 'tables')).includes('gantry-of-mine'));
    await publish(ports);
    expect(await reached(8080)).toBe(false);
    expect(await reached(8081)).toBe(true);
  });

  it('does not concern who is inside: a VIP, and what tasks are answered', async () => {
    await ingress.run(...chain('input', 0, 'ct state established,related accept', 'drop'));
    await holds8081Too();
    const local = await ingress.attach(5);
    await lab.serve(lab.world, 8100, 'world');
    expect(await lab.get(local.netns, '10.224.0.2', 80)).toMatch(/^web /);
    expect(await lab.get(local.netns, '198.51.100.1', 8100)).toMatch(/^world /);
    await ingress.call('detach', local.taskId);
  });

  it('says what it cannot follow, with the remedy, and goes on', async () => {
    await ingress.run('iptables-nft', '-A', 'INPUT', '-p', 'tcp', '--dport', '8080', '-j', 'DROP');
    const unheard = ['-p', 'tcp', '--dport', '8081', '-m', 'string', '--string', 'abc', '--algo', 'bm', '-j', 'DROP'];
    await ingress.run('iptables-nft', '-A', 'INPUT', ...unheard);
    await eventually(() => ingress.log.includes('not all that table ip filter says'));
    expect(ingress.log).toContain('hook prerouting priority -110');
    await holds();
  });
});

async function holds8081Too() {
  await eventually(async () => !(await reached(8081)));
}
