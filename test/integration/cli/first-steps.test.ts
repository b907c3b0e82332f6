/** What whoever is new types first, and gets wrong. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Fault } from '#proto/kernel/errors.ts';
import { aNode, aService, aTask } from '#test/support/builders.ts';
import { cliMain } from '#test/support/cli.ts';
import { type CliLab, startCliLab } from '#test/support/cli-lab.ts';

let cli: CliLab;
let lab: CliLab['lab'];
let place: CliLab['place'];
let gantry: CliLab['gantry'];

beforeEach(async () => {
  cli = await startCliLab();
  ({ lab, place, gantry } = cli);
});
afterEach(() => cli.scope.close());

describe('gantry', () => {
  it('takes the options of all commands before the command, and tells its version', async () => {
    await lab.put('service', aService('web'));
    expect((await gantry('--json', '--socket', place.socket, 'services')).stdout).toMatch(/^\[\n/);
    const elsewhere = await gantry('--socket', '/nowhere.sock', 'services');
    expect(elsewhere.stderr).toContain('/nowhere.sock does not answer');
    expect((await gantry('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('completes words and names in bash', async () => {
    await lab.put('service', aService('web'), aService('worker'));
    await lab.put('node', aNode('h1'));
    await lab.put('task', aTask('one', { nodeId: aNode('h1').id, nodeName: 'h1' }));
    const script = (await gantry('completion', 'bash')).stdout;
    const completed = async (...words: string[]) => {
      const quoted = words.map((word) => `'${word}'`).join(' ');
      const asks = `${script}gantry() { '${process.execPath}' '${cliMain}' "$@"; }
        COMP_WORDS=(gantry ${quoted}) COMP_CWORD=${words.length}; _gantry; printf '%s\\n' "\${COMPREPLY[@]}"`;
      const env = { ...process.env, GANTRY_SOCKET: place.socket, HOME: place.directory };
      return (await promisify(execFile)('bash', ['-c', asks], { env })).stdout.trim().split('\n');
    };
    expect(await completed('wh')).toEqual(['whatif', 'why']);
    expect(await completed('scale', 'w')).toEqual(['web', 'worker']);
    expect(await completed('why', '')).toEqual(['h1', 'web.', 'worker.']);
    expect(await completed('why', 'web.')).toEqual(['web.1']);
    expect(await completed('sandbox', 'up', '--h')).toEqual(['--help', '--hosts']);
    expect(await completed('sandbox', 'cr')).toEqual(['crash']);
    expect(await completed('sandbox', 'up', '--layout', '')).toEqual(['flat', 'routed']);
    expect(await completed('--socket', '/nowhere.sock', 'scale', 'w')).toEqual(['']);
  });

  it('stops watching where one has failed, and says that the others go on', async () => {
    const web = aService('web');
    const restart = { ...web.spec.restart, condition: 'none' } as const;
    await lab.put('service', { ...web, spec: { ...web.spec, restart } }, aService('slow'));
    const later = Date.now() + 60_000;
    const failed = {
      state: 'failed',
      error: 'exit code 3',
      exitCode: 3,
      createdAtMs: later,
      stateAtMs: later,
      finishedAtMs: later,
    } as const;
    await lab.put('task', aTask('one', { ...failed, serviceId: web.id }));
    const { code, stdout, stderr } = await gantry('scale', 'web=2', 'slow=2');
    expect(stdout).toMatch(/✗ demo\/web .*\n/);
    expect(stderr).toBe('no longer watching, as one has failed; the others go on: see gantry services\n');
    expect(code).toBe(1);
  });

  it('knows what the fingers of others type', async () => {
    const { code, stderr } = await gantry('stack', 'deploy', '-c', 'shop.yaml', 'shop');
    expect(stderr).toBe(
      'gantry: there is no command "stack" here\n  → gantry apply -f FILE, gantry services -p PROJECT, gantry rm -p PROJECT\n',
    );
    expect(code).toBe(2);
  });

  it('says that nothing can be changed where the manager that answers has lost the others', async () => {
    await lab.put('service', aService('web'));
    lab.store.commit = () => Promise.reject(new Fault('timeout', 'etcd did not tell whether the commit went through'));
    const unheard = await gantry('scale', 'web=4');
    expect(unheard.stderr).toContain('etcd did not tell');
    Object.assign(lab.parts, { asOfMs: () => Date.parse('2026-01-02T03:04:05Z') });
    const { code, stderr } = await gantry('scale', 'web=4');
    expect(stderr).toMatch(
      /^gantry: no quorum since 2026-01-0\d \d\d:\d\d:05: nothing can be changed\n {2}→ start the managers/,
    );
    expect(code).toBe(3);
  });

  it('removes all of a project with rm -p, and nothing of others', async () => {
    await lab.put(
      'service',
      aService('web', { project: 'shop' }),
      aService('db', { project: 'shop' }),
      aService('hello'),
    );
    expect((await gantry('rm')).stderr).toContain('gantry rm SERVICE …, or -p PROJECT');
    expect((await gantry('rm', '-p', 'shpo')).stderr).toContain('there are no services of project "shpo"');
    const { stdout, code } = await gantry('rm', '-d', '-p', 'shop');
    expect(stdout).toMatch(/^removing shop\/(web, shop\/db|db, shop\/web)\n$/);
    expect(code).toBe(0);
    const left = [...lab.store.snapshot.all('service')].filter(({ removing }) => !removing);
    expect(left.map(({ spec }) => spec.name)).toEqual(['hello']);
  });
});
