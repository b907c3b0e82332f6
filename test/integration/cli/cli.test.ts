/** The command line as a process, against an operator service in memory behind a real unix socket. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { serveSocket } from '#control-plane/servers.ts';
import { ApplyResponse, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { Scope } from '#proto/kernel/scope.ts';
import { containerSpec, emptyMount } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { unary } from '#proto/rpc.ts';
import { aNode, aRevision, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';
import { type CliPlace, startCli } from '#test/support/cli.ts';
import { type CliLab, startCliLab } from '#test/support/cli-lab.ts';
import { eventually } from '#test/support/eventually.ts';
import type { OperatorLab } from '#test/support/operator.ts';
import { testSeal } from '#test/support/test-seal.ts';

let scope: Scope;
let lab: OperatorLab;
let place: CliPlace;
let gantry: CliLab['gantry'];
let write: CliLab['write'];

beforeEach(async () => {
  ({ scope, lab, place, gantry, write } = await startCliLab());
});
afterEach(() => scope.close());

const compose = 'name: demo\nservices:\n  web:\n    image: nginx:${TAG:-1}\n    ports: ["8080:80"]\n';

/** Plays the controllers and agents: whatever service there is gets its tasks, running. */
function playCluster(fields: Partial<Task> = {}): void {
  const stop = lab.store.subscribe(({ changes }) => {
    for (const change of changes) {
      if (change.table !== 'service' || !change.after) continue;
      const service = change.after;
      const tasks = Array.from({ length: service.spec.replicas }, (_, index) =>
        aTask(`${service.spec.name}r${service.revision}n${index + 1}`, {
          serviceId: service.id,
          serviceName: service.spec.name,
          slot: index + 1,
          nodeId: aNode('h1').id,
          nodeName: 'h1',
          revision: service.revision,
          createdAtMs: Date.now(),
          stateAtMs: Date.now(),
          ...fields,
        }),
      );
      const old = [...lab.store.snapshot.tasksOfService(service.id)]
        .filter((task) => task.revision !== service.revision)
        .map((task): Task => ({ ...task, wanted: 'shutdown', state: 'shutdown' }));
      setImmediate(async () => {
        await lab.put('task', ...old, ...tasks);
        if (service.rollout.state === 'updating')
          await lab.put('service', { ...service, rollout: { ...service.rollout, state: 'completed' } });
      });
    }
  });
  scope.defer(stop);
}

describe('gantry apply', () => {
  it('reads the file and what it asks for, and waits until it runs', async () => {
    playCluster();
    await write('compose.yaml', compose);
    await write('.env', 'TAG=7\n');
    const first = await gantry('apply');
    expect(first.stderr).toBe('');
    expect(first.stdout).toMatch(
      /^\+ create network demo_default\n\+ create demo\/web\n(… demo\/web .*\n)*✓ demo\/web {2}1\/1 running\n$/,
    );
    expect(first.code).toBe(0);
    expect(lab.store.snapshot.serviceNamed('demo', 'web')!.spec.template.container.image).toBe('nginx:7');

    const again = await gantry('apply', '-f', 'compose.yaml');
    expect(again.stdout).toBe('= unchanged demo/web\n✓ demo/web  1/1 running\n');
    const other = await startCli(place, ['apply'], { env: { TAG: '8' } }).end;
    expect(other.stdout).toMatch(
      /^~ update demo\/web\n {4}image: nginx:7 → nginx:8\n[\s\S]*✓ demo\/web {2}1\/1 running\n$/,
    );
    expect(other.code).toBe(0);
  });

  it('says what is wrong with the file and where, and ends with 2', async () => {
    await write('compose.yaml', `${compose}    envirnoment: {}\n`);
    const { code, stdout, stderr } = await gantry('apply');
    expect(stderr).toBe(
      'compose.yaml:6:5 services.web.envirnoment: unknown key "envirnoment" (did you mean "environment"?)\ngantry: one error; nothing was changed\n',
    );
    expect(stdout).toBe('');
    expect(code).toBe(2);
    expect((await gantry('apply', '-f', 'nowhere.yaml')).stderr).toBe(
      'gantry: nowhere.yaml is not there\n  → name a Compose file with -f\n',
    );
  });

  it('ends with 1 and the reason when tasks keep failing', async () => {
    await write('compose.yaml', `${compose}    restart: "no"\n`);
    playCluster({ state: 'rejected', error: 'there is no image nginx:1 at registry.local' });
    const { code, stdout } = await gantry('apply');
    expect(stdout).toContain('✗ demo/web  0/1 web.1 failed 1 time: there is no image nginx:1 at registry.local\n');
    expect(code).toBe(1);
  });

  it('tells a control plane nothing that the files do not name', async () => {
    const pry = async (needs: Partial<ApplyResponse>) => {
      const prying = join(place.directory, 'prying.sock');
      const scope = new Scope();
      const apply = unary(async () => ApplyResponse.create(needs));
      await serveSocket(scope, prying, [{ definition: OperatorService, handlers: { ...lab.service, apply } }]);
      const { code, stderr } = await startCli({ ...place, socket: prying }, ['apply', '-f', '-'], { input: compose })
        .end;
      await scope.close();
      expect(code).toBe(1);
      return stderr;
    };
    expect(await pry({ needsVariables: ['AWS_SECRET_ACCESS_KEY'] })).toContain('asks for the variable AWS_SECRET');
    expect(await pry({ needsFiles: ['/etc/shadow'] })).toContain('asks for the file /etc/shadow');
    expect(await pry({ needsFiles: ['../../etc/passwd'] })).toContain('asks for the file ../../etc/passwd');
  });

  it('takes a file from standard input', async () => {
    const { code } = await startCli(place, ['apply', '-d', '-f', '-'], { input: compose }).end;
    expect(code).toBe(0);
    expect(lab.store.snapshot.serviceNamed('demo', 'web')).toBeDefined();
  });

  it('redraws its lines on a terminal', async () => {
    playCluster();
    await write('compose.yaml', compose);
    const { stdout } = await startCli(place, ['apply'], { terminal: true }).end;
    expect(stdout).toContain('\x1b[2K');
    expect(stdout).toContain('\x1b[32m');
  });

  it('plans without changing anything', async () => {
    await write('compose.yaml', compose);
    const { code, stdout } = await gantry('plan');
    expect(stdout).toBe(
      '+ create network demo_default\n+ create demo/web\n    start demo/web.1 on h1  least loaded\n1 of 1 services would change. Nothing was changed.\n',
    );
    expect(code).toBe(0);
    expect(lab.store.snapshot.count('service')).toBe(0);
  });
});

describe('lists', () => {
  const web = aService('web', { replicas: 2 });
  beforeEach(async () => {
    await lab.put('node', aNode('h1', { labels: { zone: 'a' } }), aNode('h2', { state: 'down' }));
    await lab.put('service', web);
    await lab.put('revision', aRevision(web));
    const now = Date.now();
    await lab.put(
      'task',
      aTask('one', {
        slot: 1,
        nodeId: aNode('h1').id,
        nodeName: 'h1',
        address: '10.192.1.2',
        stateAtMs: now - 180_000,
      }),
      aTask('two', { slot: 2, state: 'pending', message: 'no node is ready', stateAtMs: now - 5_000 }),
      aTask('three', {
        slot: 2,
        state: 'failed',
        wanted: 'shutdown',
        nodeName: 'h2',
        exitCode: 3,
        finishedAtMs: 5,
        error: 'exit code 3',
      }),
    );
  });

  it('are aligned tables with human times', async () => {
    expect((await gantry('ps')).stdout).toMatch(
      /^TASK {4}STATE {5}NODE {3}ADDRESS {6}SINCE {11}REASON\nweb\.1 {3}running {3}h1 {5}10\.192\.1\.2 {3}3 minutes ago\nweb\.2 {3}pending {23}\d seconds ago {3}no node is ready\n$/,
    );
    expect((await gantry('ps', '-a', 'web')).stdout).toContain('failed (3)');
    expect((await gantry('services')).stdout).toMatch(/demo\/web {3}replicated {3}1\/2 {7}web:1/);
    const nodes = (await gantry('nodes')).stdout;
    expect(nodes).toMatch(/h1 {5}ready .*zone=a/);
    expect(nodes).toMatch(/h2 {5}down/);
  });

  it('are JSON where asked', async () => {
    const tasks = JSON.parse((await gantry('ps', '--json')).stdout);
    expect(tasks[0]).toMatchObject({ name: 'web.1', node: 'h1', state: 'running', slot: 1 });
    expect(JSON.parse((await gantry('services', '--json')).stdout)[0]).toMatchObject({
      running: 1,
      wanted: 2,
      spec: { name: 'web' },
    });
    expect(JSON.parse((await gantry('nodes', '--json')).stdout)[0]).toMatchObject({ name: 'h1', tasks: 1 });
    expect(JSON.parse((await gantry('inspect', 'web.1')).stdout)).toMatchObject({
      kind: 'task',
      state: 'running',
      template: { container: { image: 'web:1' } },
    });
    expect(JSON.parse((await gantry('version', '--json')).stdout)).toMatchObject({ controlPlane: '0.0.0-test' });
  });

  it('explain where a task is', async () => {
    const { stdout } = await gantry('why', 'web.2');
    expect(stdout).toContain('web.2 is pending: no node is ready');
    expect(stdout).toMatch(/NODE .*READY/);
    expect(stdout).toMatch(/h2 +✗ is down/);
    expect(stdout).toContain('HISTORY');
  });

  it('refuse unknown names with a guess and code 2', async () => {
    const { code, stderr } = await gantry('ps', 'wbe');
    expect(stderr).toBe('gantry: there is no service "wbe"\n  → did you mean web?\n');
    expect(code).toBe(2);
  });
});

describe('wishes', () => {
  beforeEach(async () => {
    await lab.put('node', aNode('h1'));
    const web = aService('web', { replicas: 1 });
    await lab.put('service', web);
    await lab.put('revision', aRevision(web));
  });

  it('scale, restart and remove', async () => {
    playCluster();
    const scaled = await gantry('scale', 'web=3');
    expect(scaled).toMatchObject({ code: 0, stderr: '' });
    expect(scaled.stdout).toMatch(/^scaled demo\/web\n[\s\S]*✓ demo\/web {2}3\/3 running\n$/);
    expect((await gantry('restart', '-d', 'web')).stdout).toBe('restarting demo/web\n');
    expect((await gantry('rollback', '-d', 'web')).stderr).toContain('there is nothing to go back to');
    expect((await gantry('rm', '-d', 'web')).code).toBe(0);
    expect(lab.store.snapshot.serviceNamed('demo', 'web')!.removing).toBe(true);
  });

  it('drain, activate and label nodes', async () => {
    expect((await gantry('drain', 'h1')).stdout).toBe('draining h1\nh1 is empty\n');
    expect(lab.store.snapshot.node(aNode('h1').id)!.availability).toBe('drain');
    const mounts = [emptyMount('volume', 'demo_data', '/data')];
    const db = aService('db', { template: aTemplate({ container: { ...containerSpec('db:1'), mounts } }) });
    await lab.put('service', db);
    await lab.put('volume', { name: 'demo_data', nodeId: aNode('h1').id, nodeName: 'h1', createdAtMs: 1 });
    await lab.put(
      'task',
      aTask('t9', { serviceId: db.id, serviceName: 'db', slot: 2, state: 'pending', nodeId: '', nodeName: '' }),
    );
    expect((await gantry('drain', 'h1')).stdout).toBe(
      'draining h1\nh1 is empty\ndemo/db.2 stays pending: its volume demo_data is on h1\n→ what is pending runs again when h1 takes tasks: gantry activate h1\n',
    );
    // Its order is start-first: it is not stopped, and the command does not wait for what cannot be.
    await lab.put(
      'task',
      aTask('t8', { serviceId: db.id, serviceName: 'db', slot: 2, nodeId: aNode('h1').id, nodeName: 'h1' }),
    );
    expect(await gantry('drain', 'h1')).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(
        /^draining h1\n1 task left\ndemo\/db\.2 runs on here: its successor is to start first, and can nowhere: its volume demo_data is on h1\n/,
      ),
    });
    expect((await gantry('activate', 'h1')).code).toBe(0);
    await gantry('node', 'label', 'h1', 'zone=a', 'old-');
    expect(lab.store.snapshot.node(aNode('h1').id)!.labels).toEqual({ zone: 'a' });
    expect((await gantry('node', 'rm', 'h1')).code).toBe(1);
    expect((await gantry('node', 'rm', 'h1', '--force')).code).toBe(0);
  });

  it('make and revoke tokens', async () => {
    const { stdout } = await gantry('token', 'create', '--for', '2h', '--uses', '3');
    expect(stdout).toMatch(/^GANTRY-1\.[\w-]{43}\.[a-z0-9]{25}\.[\w-]+\n$/);
    const id = stdout.split('.')[2]!;
    expect((await gantry('token', 'ls')).stdout).toContain(id);
    expect((await gantry('token', 'revoke', id.slice(0, 8))).code).toBe(0);
    expect(lab.store.snapshot.count('token')).toBe(0);
  });

  it('keep logins, the password from standard input', async () => {
    const { code } = await startCli(place, ['login', 'registry.local:5000', '-u', 'me', '--password-stdin'], {
      input: 'secret\n',
    }).end;
    expect(code).toBe(0);
    expect(lab.store.snapshot.get('credential', 'registry.local:5000')!.value).toEqual({
      registry: 'registry.local:5000',
      username: 'me',
      password: 'secret',
    });
    expect((await gantry('logout', 'registry.local:5000')).code).toBe(0);
    expect(lab.store.snapshot.count('credential')).toBe(0);
    expect((await gantry('logout', 'registry.local:5000')).code).toBe(2);
  });

  it('keep configs and secrets, from files or standard input, and show configs alone', async () => {
    await write('motd', 'hello\n');
    expect((await gantry('config', 'create', 'motd', 'motd')).stdout).toBe('created config motd\n');
    expect((await gantry('config', 'show', 'motd')).stdout).toBe('hello\n');
    const secret = startCli(place, ['secret', 'create', 'db', '-', '--label', 'team=a'], { input: 'hunter2' });
    expect((await secret.end).stdout).toBe('created secret db\n');
    const listed = await gantry('secret', 'ls');
    expect(listed.stdout).toMatch(/^SECRET +PROJECT +SIZE +VERSION +CHANGED +USED BY\ndb +by hand +7 B/);
    const inspected = await gantry('secret', 'inspect', 'db');
    expect(inspected.stdout).toMatch(/Label +team=a\nVersion .*the current one\nUsed by +nobody\n$/);
    expect((await gantry('secret', 'show', 'db')).code).toBe(2);
    expect(`${listed.stdout}${inspected.stdout}`).not.toContain('hunter2');
    expect((await gantry('secret', 'create', 'none', 'none')).stderr).toContain('none is not there');
    expect((await gantry('secret', 'rm', 'db')).stdout).toBe('db\n');
    expect((await gantry('secret', 'rm', 'db')).stderr).toContain('there is no secret db');
  });

  it('read the files of configs and secrets that a Compose file names, whatever bytes they hold', async () => {
    playCluster();
    await writeFile(join(place.directory, 'key'), Buffer.from([0, 255, 1]));
    await write(
      'compose.yaml',
      'name: demo\nservices: { web: { image: a, secrets: [key] } }\nsecrets: { key: { file: ./key } }\n',
    );
    const plan = await gantry('plan');
    expect(plan.stdout).toContain('+ create secret demo_key\n');
    expect((await gantry('apply')).code).toBe(0);
    const [content] = lab.store.snapshot.all('content');
    expect([...testSeal.open(content!).reveal()]).toEqual([0, 255, 1]);
    await writeFile(join(place.directory, 'key'), Buffer.alloc(600_000));
    const { code, stderr } = await gantry('apply');
    expect(stderr).toContain('compose.yaml:3:25 secrets.key.file: this secret has 600000 bytes (at most 524288 fit');
    expect(code).toBe(2);
  });

  it('bring back what was removed, and ask before they remove what is protected', async () => {
    playCluster();
    const guarded = compose.replace('    image', '    x-protected: true\n    image');
    await write('compose.yaml', guarded);
    expect((await gantry('apply')).code).toBe(0);
    const refused = await gantry('rm', 'web');
    expect(refused.stderr).toContain('service demo/web is protected');
    expect(refused.stderr).toContain('→ add --yes-remove-protected demo/web');
    expect(lab.store.snapshot.serviceNamed('demo', 'web')!.removing).toBe(false);
    const typed = startCli(place, ['rm', '-d', 'web'], { terminal: true });
    await eventually(() => typed.stdout().includes('Type its name to remove it: '));
    typed.child.stdin!.write('demo/web\n');
    expect((await typed.end).stdout).toContain('removing demo/web');
    const listed = await gantry('trash', 'ls');
    expect(listed.stdout).toMatch(/^REMOVAL +KIND +NAME .*\n\w{8} +service +demo\/web +.* in 23 hours\n$/);
    expect((await gantry('undo', '-d')).stdout).toBe('brought back service demo/web\n');
    expect((await gantry('undo')).stderr).toContain('the trash is empty');
    expect((await gantry('rm', '-d', 'web', '--yes-remove-protected', 'web')).code).toBe(0);
    expect((await gantry('trash', 'empty')).stdout).toBe('gone for good: service demo/web\n');
  });

  it('make context files that only their owner may read', async () => {
    expect((await gantry('context', 'create', 'me')).stdout).toContain('wrote me.gantry.json');
    expect((await stat(join(place.directory, 'me.gantry.json'))).mode & 0o777).toBe(0o600);
  });
});

describe('streams', () => {
  beforeEach(async () => {
    await lab.put('node', aNode('h1'));
    await lab.put('service', aService('web'));
    await lab.put('task', aTask('one', { slot: 1, nodeId: aNode('h1').id, nodeName: 'h1' }));
  });
  const line = (slot: number, text: string, stream: 'stdout' | 'stderr' | 'gap' = 'stdout') => ({
    project: 'demo',
    service: 'web',
    slot,
    taskId: idOf(`t${slot}`),
    node: `h${slot}`,
    atUs: 1_700_000_000_000_000,
    stream,
    text: Buffer.from(text),
  });

  it('print logs with their tasks in front', async () => {
    lab.lines.push(line(1, 'hello'), line(2, 'wörld'), line(1, 'oops', 'stderr'));
    const { stdout, stderr } = await gantry('logs', 'web');
    expect(stdout).toBe('web.1@h1 | hello\nweb.2@h2 | wörld\n');
    expect(stderr).toBe('web.1@h1 | oops\n');
    expect((await gantry('logs', '-t', '--no-prefix', '-n', '1', 'web.2')).stdout).toBe(
      '2023-11-14T22:13:20.000Z wörld\n',
    );
    expect(JSON.parse((await gantry('logs', '--json', 'web.2')).stdout)).toMatchObject({
      task: 'web.2',
      text: 'wörld',
    });
  });

  it('follow until interrupted, which is no failure', async () => {
    lab.lines.push(line(1, 'first'));
    const run = startCli(place, ['logs', '-f', 'web']);
    await eventually(() => run.stdout().includes('first'));
    run.child.kill('SIGINT');
    expect((await run.end).code).toBe(0);
  });

  it('print events', async () => {
    lab.events.push({
      revision: 1,
      atMs: 1_700_000_000_000,
      kind: 'task',
      action: 'running',
      id: 'x',
      name: 'web.1',
      node: 'h1',
      message: 'started',
    });
    expect((await gantry('events')).stdout).toMatch(/ {2}task web\.1 running on h1: started\n$/);
  });

  it('run commands in tasks: input, both outputs and the exit code', async () => {
    lab.answer = async function* (request, input) {
      const command = request.$case === 'exec' ? request.value.command.join(' ') : '';
      yield { body: { $case: 'stderr', value: Buffer.from(`${command}\n`) } };
      for await (const { body } of input) {
        if (body?.$case === 'stdin') yield { body: { $case: 'stdout', value: body.value } };
        if (body?.$case === 'stdinClosed') break;
      }
      yield { body: { $case: 'exitCode', value: 42 } };
    };
    const end = await startCli(place, ['exec', '-i', 'web.1', 'sh', '-c', 'cat; exit 42'], { input: 'through\n' }).end;
    expect(end).toEqual({ code: 42, stdout: 'through\n', stderr: 'sh -c cat; exit 42\n' });
    expect(lab.asked[0]).toMatchObject({
      node: aNode('h1').id,
      request: { $case: 'exec', value: { taskId: idOf('one'), tty: false, stdin: true } },
    });
  });

  it('run commands on a terminal, with its size, until the detach keys', async () => {
    lab.answer = async function* (request, input) {
      const start = request.$case === 'exec' ? request.value : undefined;
      yield { body: { $case: 'stdout', value: Buffer.from(`tty ${start?.tty} ready`) } };
      for await (const { body } of input)
        if (body?.$case === 'detach') return;
        else if (body?.$case === 'stdin')
          yield { body: { $case: 'stdout', value: Buffer.from(`<${Buffer.from(body.value)}>`) } };
    };
    const run = startCli(place, ['exec', '-it', 'web.1', 'sh'], { terminal: true });
    await eventually(() => run.stdout().includes('tty true ready'));
    run.child.stdin!.write('a');
    await eventually(() => run.stdout().includes('<a>'));
    run.child.stdin!.write('\x10\x11');
    const { code, stdout } = await run.end;
    expect(stdout).toContain('detached');
    expect(code).toBe(0);
  });

  it('say which node is not connected', async () => {
    const { code, stderr } = await gantry('exec', 'web.1', 'true');
    expect(stderr).toMatch(/is not connected to the control plane/);
    expect(code).toBe(3);
  });

  it('show the figures of tasks as shares', async () => {
    let looks = 0;
    lab.answer = async function* () {
      looks++;
      yield {
        body: {
          $case: 'stats',
          value: {
            taskId: idOf('one'),
            atMs: looks * 1_000,
            cpuSeconds: looks * 0.5,
            memoryBytes: 64 * 2 ** 20,
            memoryLimitBytes: 0,
            pids: 3,
            networkReceivedBytes: 0,
            networkSentBytes: 1024,
          },
        },
      };
    };
    expect((await gantry('stats')).stdout).toMatch(/web\.1 {3}h1 {5}50\.0 % {3}64 MiB {3}3 {6}0 B {8}1 KiB\n$/);
  });
});

describe('gantry', () => {
  it('says where it looked when nobody answers, with code 3', async () => {
    const { code, stderr } = await gantry('ps', '--socket', '/nowhere.sock');
    expect(stderr).toMatch(/^gantry: the control plane at \/nowhere\.sock does not answer\n {2}→ start one/);
    expect(code).toBe(3);
  });

  it('ends with 2 for a command it does not know', async () => {
    const { code, stderr } = await gantry('aply');
    expect(stderr).toContain('Did you mean apply?');
    expect(code).toBe(2);
  });

  it('uses a context once it was added, and the local socket again when told', async () => {
    const pem = '-----BEGIN CERTIFICATE-----\n';
    await write('ctx.json', JSON.stringify({ addresses: ['127.0.0.1:1'], ca: pem, certificate: pem, key: pem }));
    const run = (...args: string[]) => startCli(place, args, { env: { GANTRY_SOCKET: '' } }).end;
    expect((await run('context', 'add', 'far', '--file', 'ctx.json')).code).toBe(0);
    expect((await run('context', 'ls')).stdout).toMatch(/\* {3}far/);
    expect((await run('context', 'use', 'local')).code).toBe(0);
    expect((await run('context', 'ls')).stdout).toMatch(/\* {3}local/);
    expect((await run('context', 'rm', 'far')).code).toBe(0);
  });
});
