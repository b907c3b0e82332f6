import { describe, expect, it } from 'vitest';
import { type Resolution, type ResolveInput, resolve } from '#control-plane/compose/resolve.ts';
import type { ServiceSpec } from '#proto/model/service.ts';

function input(text: string, more: Partial<ResolveInput> = {}): ResolveInput {
  return {
    files: [{ path: 'compose.yaml', text }],
    supplied: new Map(),
    variables: new Map(),
    project: '',
    directory: 'shop',
    root: '/srv/shop',
    answered: true,
    ...more,
  };
}

function specsOf(resolution: Resolution): readonly ServiceSpec[] {
  if (resolution.kind !== 'specs') throw new Error(JSON.stringify(resolution, null, 1));
  return resolution.services.map((service) => service.spec);
}

/** The one service `web` with these lines. */
function web(lines: string, more: Partial<ResolveInput> = {}): ServiceSpec {
  const text = `services:\n  web:\n    image: nginx\n${lines.replace(/^(?=.)/gm, '    ')}\n`;
  return specsOf(resolve(input(text, more)))[0]!;
}

function errorsOf(text: string, more: Partial<ResolveInput> = {}): string[] {
  const resolution = resolve(input(text, more));
  if (resolution.kind !== 'errors') throw new Error(`accepted: ${JSON.stringify(resolution)}`);
  return resolution.errors.map(
    ({ file, line, column, path, message, remedy }) => `${file}:${line}:${column} ${path}: ${message} → ${remedy}`,
  );
}

const bad = (lines: string) => errorsOf(`services:\n  web:\n    image: nginx\n${lines.replace(/^(?=.)/gm, '    ')}\n`);

describe('a Compose file', () => {
  it('becomes specs with the defaults where it is silent', () => {
    const spec = web('');
    expect(spec).toMatchObject({ project: 'shop', name: 'web', mode: 'replicated', replicas: 1, endpointMode: 'vip' });
    expect(spec.restart).toEqual({ condition: 'any', delayMs: 0, maxAttempts: 0, windowMs: 0 });
    expect(spec.template.container.stopGracePeriodMs).toBe(10_000);
    expect(spec.template.runtime).toBe('runc');
  });

  it('takes its project from the request, the environment, name: and the directory, in this order', () => {
    const text = 'name: named\nservices: { web: { image: nginx } }\n';
    const project = (more: Partial<ResolveInput>, file = text) => specsOf(resolve(input(file, more)))[0]!.project;
    const variables = new Map([['COMPOSE_PROJECT_NAME', 'env']]);
    expect(project({ project: 'asked', variables })).toBe('asked');
    expect(project({ variables })).toBe('env');
    expect(project({})).toBe('named');
    expect(project({ directory: 'My Shop!' }, 'services: { web: { image: nginx } }')).toBe('myshop');
  });

  it('spreads anchors and merge keys, a service’s own keys first', () => {
    const [web, api] = specsOf(
      resolve(
        input(`
x-base: &base
  image: base
  environment: { A: "1" }
  labels: { from: base }
services:
  web:
    <<: *base
    image: web
  api:
    <<: [*base]
    environment: { B: "2" }
`),
      ),
    );
    expect(web!.template.container).toMatchObject({ image: 'web', env: ['A=1'], labels: { from: 'base' } });
    expect(api!.template.container).toMatchObject({ image: 'base', env: ['B=2'] });
  });

  it('splits command strings as a shell would, without expanding them', () => {
    expect(web(`command: sh -c "echo 'a b' c" d\\ e`).template.container.command).toEqual([
      'sh',
      '-c',
      "echo 'a b' c",
      'd e',
    ]);
    expect(web('command: ["a b", c]').template.container.command).toEqual(['a b', 'c']);
    expect(web('entrypoint: []').template.container.entrypoint).toEqual(['']);
  });

  it('keeps numbers in text as they were written', () => {
    expect(web('environment:\n  VERSION: 1.10\n  MODE: 0440\n  ON: true').template.container.env).toEqual([
      'VERSION=1.10',
      'MODE=0440',
      'ON=true',
    ]);
  });

  it('reads both port syntaxes, ranges included', () => {
    expect(web('ports: ["8080:80", "53:53/udp", "9000-9001:90-91"]').ports).toEqual([
      { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' },
      { target: 53, published: 53, protocol: 'udp', mode: 'ingress' },
      { target: 90, published: 9000, protocol: 'tcp', mode: 'ingress' },
      { target: 91, published: 9001, protocol: 'tcp', mode: 'ingress' },
    ]);
    expect(web('ports:\n- target: 80\n  published: "8080"\n  mode: host').ports).toEqual([
      { target: 80, published: 8080, protocol: 'tcp', mode: 'host' },
    ]);
  });

  it('reads all kinds of mounts, modes as octal', () => {
    const text = `
services:
  web:
    image: nginx
    volumes:
      - data:/data:ro
      - /etc/ssl:/ssl:ro,rslave
      - /anonymous
      - { type: tmpfs, target: /tmp, tmpfs: { size: 64M, mode: 0770 } }
      - { type: volume, source: data, target: /sub, volume: { nocopy: true, subpath: a/b } }
    tmpfs: /run:size=1m,mode=1777
volumes:
  data:
`;
    const mounts = specsOf(resolve(input(text)))[0]!.template.container.mounts;
    expect(mounts).toMatchObject([
      { type: 'volume', source: 'shop_data', target: '/data', readOnly: true },
      { type: 'bind', source: '/etc/ssl', target: '/ssl', readOnly: true, propagation: 'rslave', createHostPath: true },
      { type: 'volume', source: '', target: '/anonymous' },
      { type: 'tmpfs', target: '/tmp', tmpfsSizeBytes: 64 * 1024 ** 2, tmpfsMode: 0o770 },
      { type: 'volume', source: 'shop_data', target: '/sub', noCopy: true, subpath: 'a/b' },
      { type: 'tmpfs', target: '/run', tmpfsSizeBytes: 1024 ** 2, tmpfsMode: 0o1777 },
    ]);
  });

  it('lets a relative bind source through only where the service is tied to one node', () => {
    const spec = web('volumes: ["./html:/html"]\ndeploy: { placement: { constraints: [node.hostname == h1] } }');
    expect(spec.template.container.mounts[0]!.source).toBe('/srv/shop/html');
    expect(bad('volumes: ["./html:/html"]')[0]).toMatch(
      /compose.yaml:4:15 services.web.volumes\[0\]: "\.\/html" is a relative path/,
    );
  });

  it('reads deploy in full', () => {
    const spec = web(`deploy:
  replicas: 3
  labels: { a: b }
  endpoint_mode: dnsrr
  resources:
    limits: { cpus: "0.5", memory: 64M, pids: 100 }
    reservations: { cpus: 0.25, memory: 32m }
  restart_policy: { condition: on-failure, delay: 5s, max_attempts: 3, window: 2m }
  update_config: { parallelism: 2, delay: 10s, order: start-first, monitor: 1s, failure_action: rollback, max_failure_ratio: 0.2 }
  placement:
    constraints: [node.labels.zone == a]
    preferences: [{ spread: node.labels.zone }]
    max_replicas_per_node: 2`);
    expect(spec).toMatchObject({
      replicas: 3,
      labels: { a: 'b' },
      endpointMode: 'dnsrr',
      restart: { condition: 'on-failure', delayMs: 5_000, maxAttempts: 3, windowMs: 120_000 },
      update: {
        parallelism: 2,
        delayMs: 10_000,
        order: 'start-first',
        monitorMs: 1_000,
        failureAction: 'rollback',
        maxFailureRatio: 0.2,
      },
      placement: { constraints: ['node.labels.zone == a'], spread: ['node.labels.zone'], maxReplicasPerNode: 2 },
      template: {
        limits: { cpuMillis: 500, memoryBytes: 64 * 1024 ** 2, pids: 100 },
        reservations: { cpuMillis: 250, memoryBytes: 32 * 1024 ** 2, pids: 0 },
      },
    });
  });

  it('maps restart: where deploy.restart_policy is absent', () => {
    expect(web('restart: "no"').restart.condition).toBe('none');
    expect(web('restart: no').restart.condition).toBe('none');
    expect(web('restart: on-failure:4').restart).toMatchObject({ condition: 'on-failure', maxAttempts: 4 });
    expect(web('restart: always\ndeploy: { restart_policy: { condition: none } }').restart.condition).toBe('none');
  });

  it('reads what is left of a container', () => {
    const { container, ...template } = web(`hostname: "web-{{.Task.Slot}}"
user: "1000:1000"
working_dir: /srv
read_only: true
init: true
tty: true
stdin_open: true
cap_add: [net_admin]
cap_drop: [ALL]
sysctls: { net.core.somaxconn: 1024 }
ulimits: { nofile: { soft: 1024, hard: 2048 }, nproc: 10 }
stop_signal: int
stop_grace_period: 1m30s
extra_hosts: ["db:10.0.0.5", "v6=::1"]
dns: 10.0.0.1
dns_search: [example.com]
dns_opt: [ndots:2]
expose: ["3000", "4000-4001/tcp"]
security_opt: ["no-new-privileges:false", "seccomp:unconfined"]
platform: linux/amd64
runtime: crun
pull_policy: always
mem_limit: 128m
cpus: 1.5
pids_limit: 50
healthcheck: { test: "curl -f localhost", interval: 5s, retries: 2 }`).template;
    expect(container).toMatchObject({
      hostname: 'web-{{.Task.Slot}}',
      user: '1000:1000',
      workingDir: '/srv',
      readOnly: true,
      init: true,
      tty: true,
      stdinOpen: true,
      capAdd: ['NET_ADMIN'],
      capDrop: ['ALL'],
      sysctls: { 'net.core.somaxconn': '1024' },
      ulimits: [
        { name: 'nofile', soft: 1024, hard: 2048 },
        { name: 'nproc', soft: 10, hard: 10 },
      ],
      stopSignal: 'SIGINT',
      stopGracePeriodMs: 90_000,
      extraHosts: { db: '10.0.0.5', v6: '::1' },
      dns: ['10.0.0.1'],
      dnsSearch: ['example.com'],
      dnsOptions: ['ndots:2'],
      expose: [3000, 4000, 4001],
      newPrivileges: true,
      seccompUnconfined: true,
      pullPolicy: 'always',
      healthCheck: { test: ['CMD-SHELL', 'curl -f localhost'], intervalMs: 5_000, retries: 2, timeoutMs: 30_000 },
    });
    expect(template).toMatchObject({
      runtime: 'crun',
      limits: { cpuMillis: 1500, memoryBytes: 128 * 1024 ** 2, pids: 50 },
    });
    expect(web('healthcheck: { disable: true }').template.container.healthCheck!.test).toEqual(['NONE']);
  });

  it('ignores x- keys wherever they stand', () => {
    expect(web('x-note: [1, 2]\ndeploy: { x-more: 1 }').name).toBe('web');
  });
});

describe('what the client has to tell', () => {
  const text = `
services:
  web:
    image: "web:\${TAG:-\${FALLBACK}}"
    environment: [HOME_TOWN, "B=$B"]
    env_file: web.env
`;
  it('is asked for at once, as far as can be seen', () => {
    expect(resolve(input(text, { answered: false }))).toEqual({
      kind: 'needs',
      files: ['.env', 'web.env'],
      variables: ['B', 'COMPOSE_PROJECT_NAME', 'FALLBACK', 'HOME_TOWN', 'TAG'],
    });
  });

  it('is asked for again only where the answers bring new questions', () => {
    const supplied = new Map([
      ['.env', undefined],
      ['web.env', 'C=${FROM_FILE}\nD="$B"'],
    ]);
    const variables = new Map<string, string | undefined>(
      ['B', 'COMPOSE_PROJECT_NAME', 'FALLBACK', 'HOME_TOWN', 'TAG'].map((name) => [name, undefined]),
    );
    variables.set('B', 'b');
    expect(resolve(input(text, { answered: false, supplied, variables }))).toEqual({
      kind: 'needs',
      files: [],
      variables: ['FROM_FILE'],
    });
    variables.set('FROM_FILE', 'c').set('FALLBACK', '2');
    const [spec] = specsOf(resolve(input(text, { answered: false, supplied, variables })));
    expect(spec!.template.container).toMatchObject({ image: 'web:2', env: ['C=c', 'D=b', 'B=b'] });
  });

  it('prefers the client’s environment to .env, and the service’s environment to its env files', () => {
    const supplied = new Map([
      ['.env', "TAG=dotenv\nB='single $quoted'\n# comment\nexport FALLBACK=x # trailing"],
      ['web.env', 'B=file\nE=file'],
    ]);
    const [spec] = specsOf(resolve(input(text, { supplied, variables: new Map([['TAG', 'client']]) })));
    expect(spec!.template.container).toMatchObject({ image: 'web:client', env: ['B=single $quoted', 'E=file'] });
  });

  it('is refused with its place where it is required and missing', () => {
    expect(errorsOf(text, { variables: new Map([['FALLBACK', '1']]) })).toEqual([
      'compose.yaml:6:15 services.web.env_file: env_file web.env is not there → create it, or add required: false',
    ]);
    expect(errorsOf('services:\n  web:\n    image: ${IMAGE?say which}\n')).toEqual([
      'compose.yaml:3:12 services.web.image: required variable IMAGE is not set: say which → set it in the environment or in .env',
    ]);
  });

  it('keeps raw env files as they are', () => {
    const spec = web('env_file: { path: raw.env, format: raw }'.replace('env_file: {', 'env_file:\n- {'), {
      supplied: new Map([['raw.env', 'A="$B" # c']]),
    });
    expect(spec.template.container.env).toEqual(['A="$B" # c']);
  });

  it('warns of variables that are not set', () => {
    const resolution = resolve(input('services:\n  web:\n    image: nginx\n    user: "${USER_ID}"\n'));
    expect(resolution.kind === 'specs' && resolution.warnings[0]).toMatchObject({
      line: 4,
      column: 11,
      message: 'variable USER_ID is not set: it is empty here',
    });
  });
});

describe('bad input is refused at its place', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['envirnoment: {}', '4:5 services.web.envirnoment: unknown key "envirnoment" → did you mean "environment"?'],
    [
      'depends_on: [db]',
      '4:5 services.web.depends_on: "depends_on" is not supported by Gantry yet → remove it, and let the service wait for what it needs',
    ],
    [
      'deploy:\n  update_config: { parallelism: 1, ordr: start-first }',
      '5:40 services.web.deploy.update_config.ordr: unknown key "ordr" → did you mean "order"?',
    ],
    [
      'deploy: { replicas: two }',
      '4:25 services.web.deploy.replicas: "two" is not a whole number from 0 to 10000 → write a whole number from 0 to 10000',
    ],
    [
      'deploy: { replicas: 10001 }',
      '4:25 services.web.deploy.replicas: 10001 is not a whole number from 0 to 10000 → write a whole number from 0 to 10000',
    ],
    [
      'deploy: { mode: globl }',
      '4:21 services.web.deploy.mode: "globl" is not one of replicated, global → did you mean "global"?',
    ],
    [
      'deploy: { mode: global, replicas: 2 }',
      '4:39 services.web.deploy.replicas: a global service has one task on each node, not replicas → remove replicas, or use mode: replicated',
    ],
    [
      'scale: 2\ndeploy: { replicas: 3 }',
      '5:25 services.web.deploy.replicas: this contradicts services.web.scale → keep one of the two',
    ],
    [
      'mem_limit: 64X',
      '4:16 services.web.mem_limit: "64X" is not a size such as 64M or 1g → write a size such as 64M or 1g',
    ],
    [
      'stop_grace_period: 10',
      '4:24 services.web.stop_grace_period: 10 is not a duration such as 10s or 1m30s → write a duration such as 10s or 1m30s',
    ],
    [
      'ports: ["127.0.0.1:80:80"]',
      '4:13 services.web.ports[0]: "127.0.0.1:80": publishing on one host address is not supported → remove the address: a port is published on every node; mode: host limits it to the nodes of the tasks',
    ],
    [
      'ports: ["80:abc"]',
      '4:13 services.web.ports[0]: "80:abc" is not a port → write "PUBLISHED:TARGET", such as "8080:80" or "53:53/udp"',
    ],
    [
      'ports: ["8000-8002:80-81"]',
      '4:13 services.web.ports[0]: "8000-8002:80-81": the two ranges differ in length → give both sides as many ports',
    ],
    [
      'ports: ["70000:80"]',
      '4:13 services.web.ports[0]: "70000:80" is not a port → write "PUBLISHED:TARGET", such as "8080:80" or "53:53/udp"',
    ],
    [
      'ports: ["80:80", "80:81"]',
      '4:22 services.web.ports[1]: port 80/tcp is already published by services.web → publish another port',
    ],
    [
      'volumes: ["dta:/data"]',
      '4:15 services.web.volumes[0]: volume "dta" is not declared → add it under the top-level volumes:, or write ./dta for a directory',
    ],
    [
      'volumes: [{ type: tmpfs, target: /t, tmpfs: { mode: 999 } }]',
      '4:57 services.web.volumes[0].tmpfs.mode: "999" is not a file mode → write octal digits such as 0755',
    ],
    [
      'volumes: ["/a:relative"]',
      '4:15 services.web.volumes[0]: "relative" is not a place to mount at → write an absolute path in the container, other than /',
    ],
    [
      'environment: 3',
      '4:18 services.web.environment: 3 is not a map, or a list of NAME=VALUE → write a map, or a list of NAME=VALUE',
    ],
    [
      'cap_add: [NET_ADMINISTRATOR]',
      '4:15 services.web.cap_add[0]: "NET_ADMINISTRATOR" is not a capability → see capabilities(7); write NET_ADMIN or ALL',
    ],
    [
      'sysctls: { vm.swappiness: 1 }',
      '4:31 services.web.sysctls.vm.swappiness: sysctl vm.swappiness belongs to the whole host → use net.*, kernel.shm*, kernel.msg*, kernel.sem or fs.mqueue.*',
    ],
    [
      'ulimits: { nofiles: 1 }',
      '4:16 services.web.ulimits.nofiles: "nofiles" is not a ulimit → use as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack',
    ],
    [
      'hostname: "{{.Task.Foo}}"',
      '4:15 services.web.hostname: "{{.Task.Foo}}" has a template that is not known → use {{.Task.Slot}}, {{.Service.Name}} or {{.Node.Hostname}}',
    ],
    [
      "command: 'sh -c \"x'",
      '4:14 services.web.command: this command leaves a quote or backslash open → close it, or write a list',
    ],
    [
      'user: $1',
      '4:11 services.web.user: a single "$" must be followed by a variable name → write $$ for a dollar sign',
    ],
    [
      'restart: sometimes',
      '4:14 services.web.restart: "sometimes" is not a restart policy → write no, always, on-failure[:N] or unless-stopped',
    ],
    [
      'security_opt: ["apparmor:x"]',
      '4:20 services.web.security_opt[0]: security option "apparmor:x" is not supported by Gantry yet → use no-new-privileges[:false] or seccomp:unconfined',
    ],
    [
      'healthcheck: { test: [curl] }',
      '4:26 services.web.healthcheck.test: this is not a test → write ["CMD", program, arguments…], ["CMD-SHELL", line] or ["NONE"]',
    ],
    [
      'extra_hosts: ["db:host-gateway"]',
      '4:19 services.web.extra_hosts[0]: host-gateway is not supported by Gantry yet → write the address',
    ],
    [
      'dns: [resolver]',
      '4:11 services.web.dns[0]: "resolver" is not an IP address → write the address of a DNS server',
    ],
    ['tty: perhaps', '4:10 services.web.tty: "perhaps" is not true or false → write true or false'],
    ['env_file: [{ required: false }]', '4:16 services.web.env_file[0]: this env_file has no path → add path:'],
    ['platform: amd64', '4:15 services.web.platform: "amd64" is not a platform → write os/arch, such as linux/amd64'],
  ];
  it.each(cases)('%s', (lines, expected) => {
    expect(bad(lines)).toEqual([`compose.yaml:${expected}`]);
  });

  it('with all of it reported together, in the order of the file', () => {
    expect(bad('tty: 7\nread_only: 8').map((line) => line.split(' ')[0])).toEqual([
      'compose.yaml:4:10',
      'compose.yaml:5:16',
    ]);
  });

  it.each([
    ['a: [', /compose.yaml:1:\d+ :/],
    ['services: {}\nservices: {}', /compose.yaml:2:1 : this key is there twice/],
    ['services: 3', /compose.yaml:1:11 services: services must be a map/],
    ['- a', /compose.yaml:1:1 : a Compose file is a map/],
    ['', /the file is empty/],
    ['services: { web: }', /compose.yaml:1:13 services.web: service web is empty/],
    ['services: { web: { tty: true } }', /compose.yaml:1:13 services.web: service web has no image/],
    ['services: { Web: { image: a } }', /compose.yaml:1:13 services.web: service name "Web" is not allowed/i],
    ['services: { web: { image: "a b" } }', /compose.yaml:1:27 services.web.image: "a b" is not an image reference/],
    ['name: A B\nservices: { web: { image: a } }', /compose.yaml:1:7 name: "A B" cannot name a project/],
    ['networks: {}\nservices: { web: { image: a } }', /compose.yaml:1:1 networks: "networks" is not supported/],
    ['servces: { web: { image: a } }', /compose.yaml:1:1 servces: unknown key "servces" → did you mean "services"/],
    ['services: { web: *nothing }', /compose.yaml:1:18/],
    ['services: { web: { image: !!binary x } }', /./],
    [
      'services: { a: { image: a, ports: ["80:80"] }, b: { image: b, ports: ["80:80"] } }',
      /compose.yaml:1:71 services.b.ports\[0\]: port 80\/tcp is already published by services.a/,
    ],
  ])('%s', (text, expected) => {
    expect(errorsOf(text)[0]).toMatch(expected);
  });

  it('an alias bomb included', () => {
    let text = 'x0: &a0 [x,x,x,x,x,x,x,x,x]\n';
    for (let i = 1; i < 9; i++)
      text += `x${i}: &a${i} [${Array(9)
        .fill(`*a${i - 1}`)
        .join(',')}]\n`;
    expect(errorsOf(text)[0]).toMatch(/more than 200000 values/);
  });
});

describe('several files', () => {
  const merged = (second: string) =>
    resolve(
      input('', {
        files: [
          {
            path: 'compose.yaml',
            text: `
services:
  web:
    image: a
    command: [one]
    environment: [A=1, B=1]
    ports: ["80:80"]
    volumes: ["data:/data"]
    labels: { x: "1" }
    dns: 10.0.0.1
volumes: { data: {}, other: {} }
`,
          },
          { path: 'more.yaml', text: second },
        ],
      }),
    );

  it('are laid over each other by the rules of the specification', () => {
    const [spec] = specsOf(
      merged(`
services:
  web:
    image: b
    command: [two]
    environment: { B: "2", C: "3" }
    ports: ["81:81", "80:80"]
    volumes: ["other:/data"]
    dns: [10.0.0.2]
`),
    );
    expect(spec!.template.container).toMatchObject({
      image: 'b',
      command: ['two'],
      env: ['A=1', 'B=2', 'C=3'],
      labels: { x: '1' },
      dns: ['10.0.0.1', '10.0.0.2'],
      mounts: [{ source: 'shop_other', target: '/data' }],
    });
    expect(spec!.ports.map((port) => port.published)).toEqual([80, 81]);
  });

  it('may reset and override', () => {
    const [spec] = specsOf(merged('services:\n  web:\n    labels: !reset null\n    ports: !override ["90:90"]\n'));
    expect(spec!.template.container.labels).toEqual({});
    expect(spec!.ports.map((port) => port.published)).toEqual([90]);
  });

  it('keep the place of each value', () => {
    const resolution = merged('services:\n  web:\n    tty: 5\n');
    expect(resolution.kind === 'errors' && resolution.errors[0]).toMatchObject({
      file: 'more.yaml',
      line: 3,
      column: 10,
    });
  });
});
