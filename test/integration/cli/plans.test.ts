/** What would be: plans kept for later, and suppositions, from the command line. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { planTasks } from '#control-plane/controllers/plan.ts';
import { aNode, aRevision, aService, aTask } from '#test/support/builders.ts';
import { type CliLab, startCliLab } from '#test/support/cli-lab.ts';

let made: CliLab;
let lab: CliLab['lab'];
let gantry: CliLab['gantry'];
let write: CliLab['write'];

beforeEach(async () => {
  made = await startCliLab({ plan: planTasks });
  ({ lab, gantry, write } = made);
});
afterEach(() => made.scope.close());

const compose = 'name: demo\nservices:\n  web:\n    image: nginx:1\n    ports: ["8080:80"]\n';

describe('a plan', () => {
  it('does what a plan says, from anywhere, or nothing and says in what it would differ', async () => {
    await write('compose.yaml', compose);
    expect((await gantry('plan', '--out', 'plan.json')).code).toBe(0);
    await write('compose.yaml', compose.replace('8080', '8081'));
    const refused = await gantry('apply', '--plan', 'plan.json');
    expect(refused).toMatchObject({ code: 1, stdout: 'the files say something else than the plan\n' });
    expect(refused.stderr).toContain('nothing was changed');
    expect(lab.store.snapshot.count('service')).toBe(0);
    await write('compose.yaml', compose);
    expect((await gantry('apply', '--detach', '--plan', 'plan.json')).code).toBe(0);
    expect(lab.store.snapshot.count('service')).toBe(1);
    expect(await gantry('apply', '--plan', 'plan.json', '-f', 'compose.yaml')).toMatchObject({ code: 2 });
    expect(await gantry('apply', '--plan', 'compose.yaml')).toMatchObject({ code: 2 });
  });
});

describe('a plan of a service whose tasks are on their way', () => {
  it('says so, and where it is refused what to wait for', async () => {
    await write('compose.yaml', compose);
    expect((await gantry('apply', '--detach', '-f', 'compose.yaml')).code).toBe(0);
    await write('compose.yaml', compose.replace('nginx:1', 'nginx:2'));
    const planned = await gantry('plan', '--out', 'plan.json');
    expect(planned.stdout).toContain('! not settled yet: demo/web: 0/1, waiting for 1 task to be made');
    expect(planned.stdout).toContain('plan again when it has settled');
    await lab.put('node', aNode('h1'));
    const refused = await gantry('apply', '--plan', 'plan.json');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('not settled when it was planned: demo/web: 0/1');
    expect(refused.stderr).toContain('not settled yet: demo/web: 0/1, waiting for 1 task to be made');
    expect(refused.stderr).toContain('wait until it has settled (gantry rollout status demo/web), then plan again');
  });
});

describe('gantry whatif', () => {
  it('tells where tasks would be and how full nodes', async () => {
    await lab.put('node', aNode('h1'), aNode('h2'));
    const web = aService('web', { replicas: 1 });
    await lab.put('service', web);
    await lab.put('revision', aRevision(web));
    await lab.put('task', aTask('t1', { nodeId: aNode('h1').id, nodeName: 'h1', address: '10.192.0.2' }));
    const { code, stdout } = await gantry('whatif', '--kill', 'h1');
    expect(code).toBe(0);
    expect(stdout).toContain('demo/web\n    move demo/web.1 from h1 to h2');
    expect(stdout).toMatch(/h1 +down +1 → 0/);
    expect(stdout).toMatch(/h2 +ready +0 → 1/);
    expect((await gantry('whatif')).stderr).toContain('nothing is supposed');
    expect(await gantry('whatif', '--kill', 'h9')).toMatchObject({ code: 2 });
  });
});
