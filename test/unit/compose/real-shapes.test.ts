/** Shapes that Compose files of public projects have: what they come to. */
import { expect, it } from 'vitest';
import { errorLines, resolveFiles, specsOf } from '#test/support/compose.ts';

it('a common part as an anchor, with its maps merged into, and services of profiles left out', () => {
  const text = `
---
x-common: &common
  image: \${IMAGE_NAME:-flow:|version|}
  environment: &common-env
    EXECUTOR: Celery
    SECRET: ''
    EXTRA: \${EXTRA:-}
  volumes:
    - \${PROJ_DIR:-/srv}/dags:/opt/dags
  user: "\${UID_HERE:-50000}:0"
  depends_on: &common-depends-on
    redis:
      condition: service_healthy
services:
  redis:
    image: redis:7
    expose: [6379]
    healthcheck: { test: ["CMD", "redis-cli", "ping"], interval: 10s, retries: 50 }
  init:
    <<: *common
    entrypoint: /bin/bash
    command:
      - -c
      - |
        if [[ $$(id -u) == 0 ]]; then echo "$\${HOME} is $5"; fi
    user: "0:0"
  worker:
    <<: *common
    command: celery worker
    environment:
      <<: *common-env
      DUMB_INIT_SETSID: "0"
    depends_on:
      <<: *common-depends-on
      init:
        condition: service_completed_successfully
  cli:
    <<: *common
    profiles: [debug]
`;
  const [, init, worker, ...others] = specsOf(resolveFiles({ 'compose.yaml': text.replace('|version|', '2') }));
  expect(others).toEqual([]);
  expect(init!.template.container).toMatchObject({
    image: 'flow:2',
    user: '0:0',
    entrypoint: ['/bin/bash'],
    command: ['-c', 'if [[ $(id -u) == 0 ]]; then echo "${HOME} is $5"; fi\n'],
  });
  expect(worker!.template.container).toMatchObject({
    env: ['EXECUTOR=Celery', 'SECRET=', 'EXTRA=', 'DUMB_INIT_SETSID=0'],
    mounts: [{ source: '/srv/dags' }],
    user: '50000:0',
  });
});

it('values of .env in numbers and durations, lists of variables that are passed on, an empty platform', () => {
  const text = `
x-defaults: &defaults { restart: unless-stopped, platform: "\${PLATFORM:-}" }
services:
  cache:
    <<: *defaults
    image: memcached:1
    command: ["-I", "\${MAX:-1M}"]
    healthcheck: { interval: "$INTERVAL", timeout: "$INTERVAL", retries: $RETRIES, test: echo stats | nc 127.0.0.1 11211 }
    environment: [PASSED_ON, "SET=1", NOT_SET]
    ulimits: { nofile: { soft: 4096, hard: 4096 }, memlock: -1 }
`;
  const variables = new Map([['PASSED_ON', 'x']]);
  const [cache] = specsOf(
    resolveFiles({ 'compose.yaml': text, '.env': 'INTERVAL=1m30s\nRETRIES=10\n' }, { variables }),
  );
  expect(cache!.template.container).toMatchObject({
    env: ['PASSED_ON=x', 'SET=1'],
    healthCheck: { intervalMs: 90_000, retries: 10, test: ['CMD-SHELL', 'echo stats | nc 127.0.0.1 11211'] },
    command: ['-I', '1M'],
    ulimits: [
      { name: 'nofile', soft: 4096 },
      { name: 'memlock', soft: -1 },
    ],
  });
  expect(cache!.placement.platforms).toEqual([]);
});

it('a proxy that looks at labels, with a socket of its node, and what it stands before', () => {
  const text = `
version: "3.9"
services:
  proxy:
    image: traefik:v3
    container_name: proxy
    command: --providers.docker=true --entrypoints.web.address=":80"
    ports: ["80:80", 443:443/tcp, 443:443/udp]
    volumes: [/var/run/docker.sock:/var/run/docker.sock:ro, "certs:/certs:Z"]
    extra_hosts: ["host.docker.internal:host-gateway"]
    networks: [proxy, default]
  app:
    image: app
    labels:
      - traefik.http.routers.app.rule=Host(\`app.example.com\`) && PathPrefix(\`/a\`)
      - "traefik.enable=true"
    networks: { proxy: { aliases: [shop] } }
    deploy: { resources: { limits: { cpus: '0.50', memory: 512M } } }
volumes: { certs: }
networks: { proxy: { external: true, name: edge } }
`;
  const [proxy, app] = specsOf(resolveFiles({ 'compose.yaml': text }));
  expect(proxy!.template.container.command).toEqual(['--providers.docker=true', '--entrypoints.web.address=:80']);
  expect(proxy!.ports.map(({ published, protocol }) => `${published}/${protocol}`)).toEqual([
    '80/tcp',
    '443/tcp',
    '443/udp',
  ]);
  expect(app!.template.container.labels).toEqual({
    'traefik.http.routers.app.rule': 'Host(`app.example.com`) && PathPrefix(`/a`)',
    'traefik.enable': 'true',
  });
  expect(app!.template.networks).toMatchObject([{ network: 'edge', aliases: ['shop'] }]);
  expect(app!.template.limits).toMatchObject({ cpuMillis: 500, memoryBytes: 512 * 1024 ** 2 });
});

it('a file for one machine: what a cluster cannot mean is said, all of it, with what to do', () => {
  const text = `
services:
  web:
    build: .
    ports: ["127.0.0.1:8000:80"]
    volumes: ["./conf/nginx.conf:/etc/nginx/nginx.conf:ro"]
    network_mode: container:vpn
`;
  expect(errorLines(resolveFiles({ 'compose.yaml': text }))).toEqual([
    'compose.yaml:4:12 services.web.build: images are not built by Gantry yet → build and push it, and name it by image: too',
    'compose.yaml:5:13 services.web.ports[0]: "127.0.0.1:8000": publishing on one host address is not supported → remove the address: a port is published on every node; mode: host limits it to the nodes of the tasks',
    'compose.yaml:6:15 services.web.volumes[0]: "./conf/nginx.conf" is a relative path, and the service may run on any node → write an absolute path, use a named volume, configs: for files, or add the constraint node.hostname == NODE',
    'compose.yaml:7:19 services.web.network_mode: a container is not known beforehand → write network_mode: service:NAME',
  ]);
});
