/** What is refused, with its exact place, words and remedy. */
import { describe, expect, it } from 'vitest';
import { bad, errorsOf } from '#test/support/compose.ts';

describe('bad input is refused at its place', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['envirnoment: {}', '4:5 services.web.envirnoment: unknown key "envirnoment" → did you mean "environment"?'],
    [
      'use_api_socket: true',
      '4:5 services.web.use_api_socket: "use_api_socket" is not supported by Gantry yet → give it an operator certificate, and the address of the control plane',
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
      '4:21 services.web.deploy.mode: "globl" is not one of replicated, global, replicated-job, global-job → did you mean "global"?',
    ],
    [
      'deploy: { mode: global, replicas: 2 }',
      '4:39 services.web.deploy.replicas: a global service has one task on each node, not replicas → remove replicas, or use mode: replicated',
    ],
    [
      'x-volume-loss: forget',
      '4:20 services.web.x-volume-loss: "forget" is not one of wait, recreate → write one of wait, recreate',
    ],
    [
      'deploy: { mode: global }\nx-volume-loss: recreate',
      '5:20 services.web.x-volume-loss: a global service has a volume of its own on each node: none moves → remove x-volume-loss',
    ],
    [
      'x-failover: quick',
      '4:17 services.web.x-failover: "quick" is not one of prompt, singleton → write one of prompt, singleton',
    ],
    [
      'x-failover: singleton\ndeploy: { replicas: 2 }',
      '5:25 services.web.deploy.replicas: a singleton has one task, not 2 → use 1, or x-failover: prompt',
    ],
    [
      'x-failover: singleton\ndeploy: { mode: global }',
      '4:5 services.web.x-failover: a singleton is one task that goes on, not mode global → use mode: replicated, or prompt',
    ],
    [
      'x-failover: singleton\ndeploy: { update_config: { order: start-first } }',
      '5:5 services.web.deploy: a singleton is never started before the one before has ended → use order: stop-first, or x-failover: prompt',
    ],
    [
      'x-failover: singleton\npid: host',
      '5:5 services.web.pid: with pid: host processes of a singleton may outlive it → remove pid:, or use x-failover: prompt',
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
    ['user: "${1}"', '4:11 services.web.user: "${" must be followed by a variable name → write $$ for a dollar sign'],
    [
      'restart: sometimes',
      '4:14 services.web.restart: "sometimes" is not a restart policy → write no, always, on-failure[:N] or unless-stopped',
    ],
    [
      'security_opt: ["aparmor:x"]',
      '4:20 services.web.security_opt[0]: security option "aparmor:x" is not supported by Gantry → use no-new-privileges, seccomp:FILE, apparmor:PROFILE, label:disable or systempaths=unconfined',
    ],
    [
      'healthcheck: { test: [curl] }',
      '4:26 services.web.healthcheck.test: this is not a test → write ["CMD", program, arguments…], ["CMD-SHELL", line] or ["NONE"]',
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

  it('but what a broken line makes of the lines after it is left out', () => {
    const broken = errorsOf(
      'services:\n  db:\n    environment: {A: ${B:?set it}}\n    restart: always\n    tty: true\n',
    );
    expect(broken.map((line) => line.split(' ')[0])).toEqual(['compose.yaml:3:23']);
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
    ['networks: [a]\nservices: { web: { image: a } }', /compose.yaml:1:11 networks: networks must be a map/],
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

  it('an alias bomb in maps included, before anybody waits for it', () => {
    const lines = ['x-a0: &a0 {k: v}'];
    for (let level = 1; level < 30; level++) {
      const nine = Array.from({ length: 9 }, (_, key) => `k${key}: *a${level - 1}`).join(', ');
      lines.push(`x-a${level}: &a${level} {${nine}}`);
    }
    const began = process.cpuUsage();
    const text = `${lines.join('\n')}\nservices:\n  web:\n    image: a\n    labels: *a29\n`;
    expect(errorsOf(text)[0]).toMatch(/more than 200000 values/);
    // One event loop serves all nodes: after a second of silence they look for another leader. Microseconds of the processor's.
    const { user, system } = process.cpuUsage(began);
    expect(user + system).toBeLessThan(2_000_000);
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
