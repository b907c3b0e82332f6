/** What Compose files become, and what the client is asked for them. */
import { describe, expect, it } from 'vitest';
import { type ResolveInput, resolve } from '#control-plane/compose/resolve.ts';
import { bad, errorsOf, resolveInput, specsOf, web } from '#test/support/compose.ts';

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
    const project = (more: Partial<ResolveInput>, file = text) =>
      specsOf(resolve(resolveInput(file, more)))[0]!.project;
    const variables = new Map([['COMPOSE_PROJECT_NAME', 'env']]);
    expect(project({ project: 'asked', variables })).toBe('asked');
    expect(project({ variables })).toBe('env');
    expect(project({})).toBe('named');
    expect(project({ directory: 'My Shop!' }, 'services: { web: { image: nginx } }')).toBe('myshop');
  });

  it('spreads anchors and merge keys, a service’s own keys first', () => {
    const [web, api] = specsOf(
      resolve(
        resolveInput(`
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
    const mounts = specsOf(resolve(resolveInput(text)))[0]!.template.container.mounts;
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

  it('hears what is to be done when the node of its volumes is lost: wait, unless it says recreate', () => {
    expect(web('').volumeLoss).toBe('wait');
    expect(web('x-volume-loss: recreate').volumeLoss).toBe('recreate');
  });

  it('hears how it fails over: promptly, unless it says singleton', () => {
    expect(web('').failover).toBe('prompt');
    expect(web('x-failover: singleton\ndeploy: { replicas: 1 }').failover).toBe('singleton');
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
  it('is asked for step by step: first what the files are made of, then what they name, then what that names', () => {
    const supplied = new Map<string, string | undefined>();
    const variables = new Map<string, string | undefined>();
    const resolved = () => resolve(resolveInput(text, { answered: false, supplied, variables }));
    expect(resolved()).toEqual({
      kind: 'needs',
      files: ['.env'],
      variables: ['B', 'COMPOSE_PROJECT_NAME', 'FALLBACK', 'TAG'],
    });
    supplied.set('.env', undefined);
    for (const name of ['B', 'COMPOSE_PROJECT_NAME', 'FALLBACK', 'TAG']) variables.set(name, undefined);
    expect(resolved()).toEqual({ kind: 'needs', files: ['web.env'], variables: ['HOME_TOWN'] });
    supplied.set('web.env', 'C=${FROM_FILE}\nD="$B"');
    variables.set('B', 'b').set('HOME_TOWN', undefined);
    expect(resolved()).toEqual({ kind: 'needs', files: [], variables: ['FROM_FILE'] });
    variables.set('FROM_FILE', 'c').set('FALLBACK', '2');
    expect(specsOf(resolved())[0]!.template.container).toMatchObject({ image: 'web:2', env: ['C=c', 'D=b', 'B=b'] });
  });

  it('prefers the client’s environment to .env, and the service’s environment to its env files', () => {
    const supplied = new Map([
      ['.env', "TAG=dotenv\nB='single $quoted'\n# comment\nexport FALLBACK=x # trailing"],
      ['web.env', 'B=file\nE=file'],
    ]);
    const [spec] = specsOf(resolve(resolveInput(text, { supplied, variables: new Map([['TAG', 'client']]) })));
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
    const resolution = resolve(resolveInput('services:\n  web:\n    image: nginx\n    user: "${USER_ID}"\n'));
    expect(resolution.kind === 'specs' && resolution.warnings[0]).toMatchObject({
      line: 4,
      column: 11,
      message: 'variable USER_ID is not set: it is empty here',
    });
  });
});
