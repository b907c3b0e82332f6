/** Tables with flags, of others or ours, hinder nothing: nft 1.0.6 prints memory that is not initialised for them, each time other. */
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

/** So many that memory in which there happens to be JSON does not hide it. */
const looks = 50;
let lab: NetLab;
let host: LabHost;

beforeAll(async () => {
  lab = await NetLab.start(1);
  host = lab.host(1);
  await host.apply([host]);
});
afterEach(() => host.run('nft', 'delete table ip mine').catch(() => {}));
afterAll(() => lab?.stop());

const faultless = () => expect(host.log).not.toMatch(/bug in the network|could not be set up/);

it('foreign ones, asleep or with an owner, as often as we look', async () => {
  await host.run('nft', 'table ip mine { flags dormant; }');
  const owner = lab.background(
    host.netns,
    `require('child_process').spawn('nft', ['-i']).stdin.write('add table ip owned { flags owner; }\\n');`,
  );
  await eventually(async () => (await host.run('nft', 'list', 'tables')).includes('table ip owned'));
  for (let look = 0; look < looks; look++) {
    await host.repaired(() => host.run('nft', 'delete table ip gantry'), /^table ip gantry was missing/);
    faultless();
  }
  owner.stop();
}, 60_000);

it('our own, put to sleep by somebody: it is made anew', async () => {
  for (let look = 0; look < looks; look++) {
    await host.repaired(
      () => host.run('nft', 'add table ip gantry { flags dormant; }'),
      /of table ip gantry was missing/,
    );
    expect(await host.run('nft', '-t', 'list', 'table', 'ip', 'gantry')).not.toContain('flags dormant');
    faultless();
  }
}, 60_000);

it('one that would drop what is forwarded, once it is awake', async () => {
  const said = () => host.log.includes('chain c of table ip mine drops what is forwarded by default');
  const chain = 'chain c { type filter hook forward priority 0; policy drop; }';
  await host.run('nft', `table ip mine { flags dormant; ${chain}; }`);
  await host.repaired(() => host.run('nft', 'delete table ip gantry'), /^table ip gantry was missing/);
  expect(said()).toBe(false);
  await host.run('nft', 'add table ip mine');
  await eventually(said);
  faultless();
});

it('a reset finds ours among them', async () => {
  await host.run('nft', 'table ip mine { flags dormant; }');
  expect(await host.call<string[]>('reset')).toContain('table ip gantry');
  expect(await host.run('nft', 'list', 'tables')).toBe('table ip mine\n');
});
