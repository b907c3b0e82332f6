/** `pre_start`: steps before a service's tasks, as jobs that it waits for. */
import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import { errorsOf as bad, resolveInput, specsOf } from '#test/support/compose.ts';

const file = (lines: string) => `name: shop
services:
  db: { image: db:1, healthcheck: { test: ls } }
  app:
    image: app:1
    entrypoint: [/entry]
    command: serve
    user: "7"
    environment: { A: "1", B: "2" }
    volumes: ["data:/data"]
    ports: ["8080:80"]
    healthcheck: { test: ls }
    post_start: [{ command: ls }]
    depends_on: { db: { condition: service_healthy, restart: true } }
    networks: { default: { aliases: [shop] } }
    deploy:
      replicas: 3
      placement: { constraints: [node.hostname == h1], max_replicas_per_node: 1 }
      resources: { limits: { memory: 64m } }
    pre_start:
${lines.replace(/^/gm, '      ')}
volumes: { data: }
`;
const specs = (lines: string) => new Map(specsOf(resolve(resolveInput(file(lines)))).map((spec) => [spec.name, spec]));

describe('a step of pre_start', () => {
  it('is a job that has what its service has, but for what it says, and waits for what that waits for', () => {
    const found = specs(
      '- { command: ./migrate up, environment: { B: "3", C: "4" } }\n- { image: busybox, user: root, privileged: true, command: [chown, "7", /data], working_dir: /data, per_replica: false }',
    );
    expect([...found.keys()]).toEqual(['db', 'app', 'app-pre-start-1', 'app-pre-start-2']);
    const [first, second, app] = ['app-pre-start-1', 'app-pre-start-2', 'app'].map((name) => found.get(name)!);
    expect(first).toMatchObject({
      mode: 'replicated-job',
      replicas: 1,
      preStartOf: 'app',
      ports: [],
      restart: { condition: 'none' },
      placement: { constraints: ['node.hostname == h1'], maxReplicasPerNode: 0 },
      allowFrom: { services: [] },
      dependsOn: [{ service: 'db', condition: 'service_healthy', restart: false, required: true }],
    });
    expect(first!.template.limits.memoryBytes).toBe(64 * 2 ** 20);
    expect(first!.template.networks).toMatchObject([{ aliases: [], ipv4Address: '' }]);
    expect(first!.template.container).toMatchObject({
      image: 'app:1',
      entrypoint: ['/entry'],
      command: ['./migrate', 'up'],
      user: '7',
      env: ['A=1', 'B=3', 'C=4'],
      mounts: app!.template.container.mounts,
      healthCheck: undefined,
      postStart: [],
    });
    expect(second!.template.container).toMatchObject({
      image: 'busybox',
      command: ['chown', '7', '/data'],
      user: 'root',
      privileged: true,
      workingDir: '/data',
      env: ['A=1', 'B=2'],
    });
    const completed = (service: string) => ({
      service,
      condition: 'service_completed_successfully',
      restart: false,
      required: true,
    });
    expect(second!.dependsOn).toEqual([...first!.dependsOn, completed('app-pre-start-1')]);
    expect(app!.dependsOn).toEqual([
      { service: 'db', condition: 'service_healthy', restart: true, required: true },
      completed('app-pre-start-1'),
      completed('app-pre-start-2'),
    ]);
    expect(app!.preStartOf).toBe('');
  });

  it.each([
    ['- command: ls\n  per_replica: true', '22:22 services.app.pre_start[0].per_replica: a step runs once'],
    ['- command: ls\n  ports: ["80"]', '22:9 services.app.pre_start[0].ports: unknown key "ports"'],
    ['- user: root', 'services.app.pre_start[0]: this step does nothing of its own → add command:'],
    ['- command: "ls \'a"', 'services.app.pre_start[0].command: this command leaves a quote or backslash open'],
    ['command: ls', 'steps are a list'],
  ])('is refused as %s', (lines, message) => {
    expect(bad(file(lines)).join('\n')).toContain(message);
  });

  it('is refused where a service has its name, and what is wrong with its service is said once', () => {
    const taken = `${file('- command: ls')}`.replace('services:', 'services:\n  app-pre-start-1: { image: x }');
    expect(bad(taken).join('\n')).toContain('this step is called app-pre-start-1, and so is a service');
    const wrong = file('- command: ls').replace('memory: 64m', 'memory: much');
    expect(bad(wrong)).toHaveLength(1);
  });
});
