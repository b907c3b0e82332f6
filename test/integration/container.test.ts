/** What a Compose file says of a container, seen by the process in it; and limits that change under running tasks. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

const shell = async (task: string, script: string) => {
  const { code, stdout, stderr } = await cluster.gantry('exec', task, 'sh', '-c', script);
  if (code !== 0) throw new Error(`${stderr}${stdout}`);
  return stdout.trim();
};

/** Burns a processor and holds 40 MB. */
const burner = (limits: string, more = '') => `
name: burner
services:
  burner:
    image: registry:5000/hello:1
    entrypoint: ["/bin/busybox", "sh", "-c", "/bin/busybox dd if=/dev/zero of=/dev/shm/held bs=1M count=40; while :; do :; done"]
    stop_grace_period: 0s
    ${more}
    deploy:
      update_config: { monitor: 500ms }
      resources: ${limits}
`;
const share = async () => {
  const { tasks } = await cluster.json<{ tasks: { cpuPercent: number; memoryLimitBytes: string }[] }>(
    'stats',
    'burner',
  );
  return tasks[0]!;
};
const theTask = async () => (await cluster.settled('burner', 1))[0]!;

test('a container is what its file and the files beside it say, and is found by its container_name', async () => {
  const path = cluster.compose(
    'keys.yaml',
    `
name: keys
services:
  web:
    image: registry:5000/hello:1
    container_name: my-web
    hostname: web
    domainname: example.com
    shm_size: 8m
    group_add: ["4321"]
    oom_score_adj: 400
    label_file: web.labels
    annotations: { com.example.token: "do-not-show" }
    devices: ["/dev/null:/dev/nothing:rw"]
    tmpfs: ["/scratch:size=1m,uid=1234,mode=700,exec"]
    cpuset: "0"
    cpu_shares: 512
    memswap_limit: 96m
    mem_limit: 64m
    security_opt: ["seccomp:profile.json"]
    volumes: ["data:/data"]
  side:
    image: registry:5000/hello:1
    entrypoint: ["/bin/busybox", "sleep", "1000"]
    stop_signal: SIGKILL
    network_mode: service:web
    pid: service:web
    volumes_from: ["web:ro"]
  client: { image: "registry:5000/hello:1" }
volumes: { data: }
`,
  );
  const beside = (name: string, text: string) => writeFileSync(join(dirname(path), name), text);
  beside('web.labels', 'team=shop\n');
  const errno = { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 };
  beside('profile.json', JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [errno] }));
  const applied = await cluster.gantry('apply', '-f', path);
  expect(applied.stderr).toContain('keys.yaml:14:5 warning: it uses /dev/null of its host, past Gantry');
  expect(applied.code, applied.stderr + applied.stdout).toBe(0);

  const script = `cat /proc/sys/kernel/domainname; /bin/busybox id -G; cat /proc/1/oom_score_adj; /bin/busybox df -k /dev/shm | /bin/busybox tail -1 | /bin/busybox awk '{print $2}';
    /bin/busybox stat -c '%u %a' /scratch; test -c /dev/nothing && echo device; /bin/busybox mkdir /tmp/x 2>/dev/null || echo filtered; echo kept > /data/file`;
  expect((await shell('web.1', script)).split('\n')).toEqual([
    'example.com',
    expect.stringContaining('4321'),
    '400',
    '8192',
    '1234 700',
    'device',
    'filtered',
  ]);
  expect(await shell('client.1', 'wget -qO- http://my-web:8080/')).toContain('version 1');
  expect(await shell('side.1', 'cat /data/file; /bin/busybox touch /data/x 2>/dev/null || echo read-only')).toBe(
    'kept\nread-only',
  );
  expect(Number(await shell('side.1', 'ls /proc | /bin/busybox grep -c "^[0-9]"'))).toBeGreaterThan(2);

  const changed = cluster.compose(
    'keys.yaml',
    `name: keys\nservices: { client: { image: "registry:5000/hello:1", annotations: { a: secret } } }`,
  );
  const plan = await cluster.gantry('plan', '-f', changed);
  expect(plan.stdout).toContain('annotations: a added');
  expect(plan.stdout).not.toContain('secret');
  expect((await cluster.gantry('rm', 'web', 'side', 'client')).code).toBe(0);
});

test('limits change while the process goes on: it slows down, plan says so before, and a rollback gives it back', async () => {
  await cluster.apply(burner('{ limits: { cpus: "0.5" } }'));
  const before = await theTask();
  await eventually(async () => {
    const { cpuPercent } = await share();
    return cpuPercent > 25 && cpuPercent < 70;
  });
  const path = cluster.compose('burner.yaml', burner('{ limits: { cpus: "0.2", memory: 64M } }'));
  const plan = await cluster.gantry('plan', '-f', path);
  expect(plan.stdout).toContain(
    `change burner/burner.1 on ${before.node}  revision 2 has other limits: its process goes on`,
  );
  expect(plan.stdout).not.toMatch(/start|stop/);
  await cluster.apply(burner('{ limits: { cpus: "0.2", memory: 64M } }'));
  await eventually(async () => {
    const { cpuPercent, memoryLimitBytes } = await share();
    return cpuPercent < 24 && Number(memoryLimitBytes) === 64 << 20;
  });
  const after = await theTask();
  expect(after).toMatchObject({ id: before.id, pid: before.pid, revision: 2 });
  expect((await cluster.gantry('rollback', 'burner')).code).toBe(0);
  await eventually(async () => (await share()).cpuPercent > 25);
  expect(await theTask()).toMatchObject({ id: before.id, pid: before.pid, revision: 1 });
});

test('bandwidth changes while connections go on', async () => {
  const before = await theTask();
  const rates = async () => cluster.sandbox.run(before.node, ['tc', 'qdisc', 'show']);
  for (const rate of ['10', '20']) {
    await cluster.apply(burner('{ limits: { cpus: "0.5" } }', `x-bandwidth: { ingress: ${rate}mbit }`));
    await eventually(async () => (await rates()).includes(`rate ${rate}Mbit`));
  }
  expect(await theTask()).toMatchObject({ id: before.id, pid: before.pid });
});

test('less memory than is in use is no end: the task says so, and goes on, and the update stops', async () => {
  const before = await theTask();
  const path = cluster.compose('burner.yaml', burner('{ limits: { cpus: "0.5", memory: 20M } }'));
  const applied = await cluster.gantry('apply', '-f', path);
  expect([applied.code, applied.stdout + applied.stderr]).toEqual([
    1,
    expect.stringMatching(/the rollout stopped: .*limits not changed/),
  ]);
  await eventually(async () =>
    (await theTask()).error.match(
      /^limits not changed: \d+ bytes of memory are in use, more than the new limit of 20971520/,
    ),
  );
  expect(await theTask()).toMatchObject({ id: before.id, pid: before.pid, state: 'running' });
  await cluster.apply(burner('{ limits: { cpus: "0.5", memory: 100M } }'));
  await eventually(
    async () => (await theTask()).error === '' && Number((await share()).memoryLimitBytes) === 100 << 20,
  );
  expect((await theTask()).pid).toBe(before.pid);
});

test('a reservation that no node has room for stops nothing: what would take the place waits, as plan says', async () => {
  const text = burner('{ limits: { cpus: "0.5" }, reservations: { memory: 900G } }');
  const plan = await cluster.gantry('plan', '-f', cluster.compose('burner.yaml', text));
  expect(plan.stdout).toMatch(/waits burner\/burner\.1 +no node fits .*without room for 900 GiB of memory/);
  expect(plan.stdout).not.toContain('lose');
});

test('a device that its node has not rejects the task in words', async () => {
  const path = cluster.compose('burner.yaml', burner('{}', 'devices: ["/dev/no-such-device"]'));
  await cluster.gantry('apply', '-d', '-f', path);
  await eventually(async () => {
    const tasks = await cluster.tasks('burner', '--all');
    return tasks.some(({ error }) => error.includes('device /dev/no-such-device is not there on this node'));
  });
});
