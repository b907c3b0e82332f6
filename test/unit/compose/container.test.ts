/** Keys that say what a container is to its host: what they become, and what of them is refused. */
import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import { noControls } from '#proto/model/controls.ts';
import { bad, errorsOf, resolveInput, specsOf, web } from '#test/support/compose.ts';

const container = (lines: string) => web(lines).template.container;
const warningsOf = (lines: string) => {
  const resolution = resolve(
    resolveInput(`services:\n  web:\n    image: nginx\n${lines.replace(/^(?=.)/gm, '    ')}\n`),
  );
  if (resolution.kind !== 'specs') throw new Error(JSON.stringify(resolution));
  return resolution.warnings.map(({ line, path, message }) => `${line} ${path}: ${message}`);
};

describe('a container', () => {
  it('has annotations, groups, a domain, shared memory and a place among victims', () => {
    expect(
      container(`annotations: { com.example.team: shop }
group_add: [audio, 1000]
domainname: example.com
shm_size: 128m
oom_score_adj: -500`),
    ).toMatchObject({
      annotations: { 'com.example.team': 'shop' },
      groupAdd: ['audio', '1000'],
      domainname: 'example.com',
      shmBytes: 128 << 20,
      oomScoreAdj: -500,
    });
    expect(container('annotations: [a=1, b]').annotations).toEqual({ a: '1', b: '' });
  });

  it('has devices in both syntaxes, and rules for them', () => {
    expect(
      container(`devices:
  - /dev/fuse
  - /dev/sda:/dev/xvda:r
  - /dev/snd:rw
  - { source: /dev/kvm, target: /dev/vm, permissions: rw }
device_cgroup_rules: ["c 189:* rmw", "a *:* r"]`),
    ).toMatchObject({
      devices: [
        { source: '/dev/fuse', target: '/dev/fuse', permissions: 'rwm' },
        { source: '/dev/sda', target: '/dev/xvda', permissions: 'r' },
        { source: '/dev/snd', target: '/dev/snd', permissions: 'rw' },
        { source: '/dev/kvm', target: '/dev/vm', permissions: 'rw' },
      ],
      deviceRules: [
        { type: 'c', major: 189, minor: -1, permissions: 'rmw' },
        { type: 'a', major: -1, minor: -1, permissions: 'r' },
      ],
    });
  });

  it('shares namespaces of its host', () => {
    expect(
      container('pid: host\nipc: host\nuts: host\ncgroup: host\nuserns_mode: host\nisolation: default'),
    ).toMatchObject({ pid: 'host', ipc: 'host', uts: 'host', cgroup: 'host' });
    expect(container('ipc: shareable\ncgroup: private')).toMatchObject({ ipc: '', cgroup: '' });
  });

  it('sees the processes of the service whose network it has', () => {
    const specs = specsOf(
      resolve(
        resolveInput('services: { a: { image: x }, b: { image: x, pid: "service:a", network_mode: "service:a" } }'),
      ),
    );
    expect(specs[1]!.template.container.pid).toBe('service:a');
  });

  it('is called by its container_name on all its networks', () => {
    const { template } = web('container_name: my-web\nnetworks: { default: { aliases: [www] } }');
    expect(template.networks).toEqual([{ network: 'shop_default', aliases: ['www', 'my-web'], ipv4Address: '' }]);
    expect(template.container.containerName).toBe('my-web');
  });

  it('has the options of its tmpfs, and none of those that are not its own', () => {
    const [mount] = container('tmpfs: ["/t:size=1m,uid=5,gid=6,mode=700,exec,nr_inodes=1k"]').mounts;
    expect(mount).toMatchObject({
      tmpfsSizeBytes: 1 << 20,
      tmpfsMode: 0o700,
      tmpfsOptions: ['uid=5', 'gid=6', 'exec', 'nr_inodes=1k'],
    });
    expect(bad('tmpfs: /t:huge=always')[0]).toContain('"huge=always" is not an option of tmpfs here');
    expect(bad('volumes: [{ type: npipe, target: /x }]')[0]).toContain('named pipes are those of Windows');
    expect(bad('volumes: [{ type: image, source: x, target: /x }]')[0]).toContain('copy its files into the image');
    expect(bad('volumes: [{ type: cluster, target: /x }]')[0]).toContain('no storage of CSI is attached');
  });

  it('drops the command of its image where an empty one is said, and keeps it for null', () => {
    expect(container('command: []').command).toEqual(['']);
    expect(container('command: ""').command).toEqual(['']);
    expect(container('command:').command).toEqual([]);
    expect(container('ulimits: { nofile: 5 }').ulimits).toEqual([{ name: 'nofile', soft: 5, hard: 5 }]);
  });

  it('resolves its tag anew as often as its pull policy says', () => {
    expect(container('pull_policy: daily')).toMatchObject({ pullPolicy: 'missing', pullMaxAgeMs: 86_400_000 });
    expect(container('pull_policy: weekly').pullMaxAgeMs).toBe(7 * 86_400_000);
    expect(container('pull_policy: every_12h').pullMaxAgeMs).toBe(12 * 3_600_000);
    expect(container('pull_policy: every_1w2d').pullMaxAgeMs).toBe(9 * 86_400_000);
    expect(container('pull_policy: refresh\npull_refresh_after: 30m').pullMaxAgeMs).toBe(1_800_000);
  });

  it('is logged by our own ways, whatever driver of files is said, or not at all', () => {
    expect(container('logging: { driver: json-file, options: { max-size: 10m, max-file: "2" } }').logging).toEqual({
      driver: '',
      maxSizeBytes: 10 << 20,
    });
    expect(container('logging: { driver: none }').logging.driver).toBe('none');
  });

  it('is fenced as its security options say', () => {
    expect(
      container('security_opt: [no-new-privileges, label=disable, apparmor=mine, systempaths=unconfined]'),
    ).toMatchObject({ newPrivileges: false, apparmorProfile: 'mine', systemPathsUnconfined: true });
    expect(container('security_opt: [apparmor=unconfined, seccomp=builtin]')).toMatchObject({
      apparmorProfile: '',
      seccompProfile: '',
      seccompUnconfined: false,
    });
  });
});

describe('files beside the Compose file', () => {
  const text = `services:
  web:
    image: nginx
    label_file: [a.labels, b.labels]
    labels: { own: "1" }
    security_opt: ["seccomp:./profile.json"]
`;
  const supplied = (fields: Record<string, string | undefined>) => ({ supplied: new Map(Object.entries(fields)) });

  it('are asked for', () => {
    expect(
      resolve(
        resolveInput(text, {
          answered: false,
          variables: new Map([['COMPOSE_PROJECT_NAME', undefined]]),
          ...supplied({ '.env': undefined }),
        }),
      ),
    ).toEqual({
      kind: 'needs',
      files: ['a.labels', 'b.labels', './profile.json'],
      variables: [],
    });
  });

  it('become labels, the service’s own before them, and its seccomp profile', () => {
    const [spec] = specsOf(
      resolve(
        resolveInput(
          text,
          supplied({
            'a.labels': 'team=shop\nown=0\nx=a',
            'b.labels': 'x=b',
            './profile.json': '{ "defaultAction": "SCMP_ACT_ALLOW" }',
          }),
        ),
      ),
    );
    expect(spec!.template.container.labels).toEqual({ team: 'shop', own: '1', x: 'b' });
    expect(spec!.template.container.seccompProfile).toBe('{"defaultAction":"SCMP_ACT_ALLOW"}');
  });

  it('are refused where they are not there, or no profile', () => {
    expect(errorsOf(text, supplied({ 'a.labels': '', './profile.json': 'x' }))).toEqual([
      'compose.yaml:4:28 services.web.label_file[1]: label_file b.labels is not there → create it',
      'compose.yaml:6:20 services.web.security_opt[0]: ./profile.json is not a seccomp profile → write JSON with defaultAction and syscalls, as Docker’s',
    ]);
  });
});

describe('the control group of a container', () => {
  const controls = (lines: string) => web(lines).template.controls;

  it('has shares, processors, swap and disks', () => {
    expect(
      controls(`cpu_shares: 512
cpuset: 0-1,3
mem_limit: 64m
memswap_limit: 96m
mem_swappiness: 0
oom_kill_disable: true
blkio_config:
  weight: 300
  weight_device: [{ path: /dev/sda, weight: 400 }]
  device_read_bps: [{ path: /dev/sdb, rate: 12mb }]
  device_write_iops: [{ path: /dev/sdb, rate: 30 }]`),
    ).toEqual({
      cpuShares: 512,
      cpuPeriodUs: 0,
      cpusetCpus: '0-1,3',
      memorySwapBytes: 96 << 20,
      memorySwappiness: 0,
      oomKillDisable: true,
      blkioWeight: 300,
      blkioWeights: [{ path: '/dev/sda', weight: 400 }],
      blkioRates: [
        { path: '/dev/sdb', kind: 'read_bps', rate: 12 << 20 },
        { path: '/dev/sdb', kind: 'write_iops', rate: 30 },
      ],
    });
    expect(controls('mem_limit: 1g\nmemswap_limit: -1').memorySwapBytes).toBe(-1);
    expect(controls('')).toEqual(noControls);
  });

  it('has a quota of a period as a limit in cores', () => {
    const { limits, controls } = web('cpu_quota: 50000\ncpu_period: 25000').template;
    expect(limits.cpuMillis).toBe(2000);
    expect(controls.cpuPeriodUs).toBe(25_000);
    expect(web('cpu_quota: -1').template.limits.cpuMillis).toBe(0);
    expect(bad('cpus: 1\ncpu_quota: 50000')).toEqual([
      'compose.yaml:5:16 services.web.cpu_quota: this contradicts services.web.cpus → keep one of the two',
    ]);
  });
});

describe('volumes_from', () => {
  const two = (more: string) => `services:
  db:
    image: x
    volumes: ["data:/data", "/srv/conf:/conf:ro"]
  web:
    image: x
${more.replace(/^(?=.)/gm, '    ')}
volumes: { data: }
`;
  const mounts = (more: string) =>
    specsOf(resolve(resolveInput(two(more))))[1]!.template.container.mounts.map(
      ({ source, target, readOnly }) => `${source}:${target}${readOnly ? ':ro' : ''}`,
    );

  it('gives a service what another one mounts, its own before it', () => {
    expect(mounts('volumes_from: [db]')).toEqual(['shop_data:/data', '/srv/conf:/conf:ro']);
    expect(mounts('volumes_from: [db:ro]\nvolumes: ["/tmp:/conf"]')).toEqual(['/tmp:/conf', 'shop_data:/data:ro']);
  });

  it('refuses services that are not there, that go round in a ring, or have a volume without a name', () => {
    expect(errorsOf(two('volumes_from: [bd]'))).toEqual([
      'compose.yaml:7:20 services.web.volumes_from[0]: there is no service "bd" in the file → did you mean "db"?',
    ]);
    expect(
      errorsOf('services:\n  a: { image: x, volumes_from: [b] }\n  b: { image: x, volumes_from: [a] }\n'),
    ).toHaveLength(1);
    expect(
      errorsOf('services:\n  a: { image: x, volumes: [/x] }\n  b: { image: x, volumes_from: [a] }\n')[0],
    ).toContain('a volume without a name at /x');
    expect(errorsOf(two('volumes_from: ["container:x"]'))[0]).toContain('name a service');
  });
});

describe('is refused at its place', () => {
  it.each([
    ['container_name: web\nscale: 2', '4:5 services.web.container_name: only one task can be called web'],
    ['container_name: "a b"', '4:21 services.web.container_name: "a b" cannot be a name in DNS'],
    ['annotations: { gantry.slot: "2" }', "4:5 services.web.annotations: annotation gantry.slot is Gantry's own"],
    ['devices: ["vendor.com/gpu=0"]', '4:15 services.web.devices[0]: "vendor.com/gpu=0" is a device of CDI'],
    ['devices: ["/dev/a:/dev/b:rx"]', '4:15 services.web.devices[0]: "rx" are not permissions of a device'],
    ['device_cgroup_rules: ["c 1 rw"]', '4:27 services.web.device_cgroup_rules[0]: "c 1 rw" is not a rule'],
    ['pid: service:db', '4:5 services.web.pid: with service:db a task must be where'],
    ['pid: container:x', '4:10 services.web.pid: pid: "container:x" is not supported'],
    ['ipc: service:db', '4:10 services.web.ipc: ipc: "service:db" is not supported'],
    ['ipc: host\nshm_size: 1m', "5:5 services.web.shm_size: with ipc: host shared memory is the host's own"],
    ['ipc: host\nsysctls: { kernel.shmmax: 1 }', '5:5 services.web.sysctls: with ipc: host, sysctl kernel.shmmax'],
    ['uts: host\nhostname: a', "4:5 services.web.uts: with uts: host the names are the host's own"],
    ['userns_mode: private', '4:18 services.web.userns_mode: user namespaces are not made here'],
    ['isolation: hyperv', '4:16 services.web.isolation: isolation technologies are those of Windows'],
    ['logging: { driver: syslog }', '4:24 services.web.logging.driver: the log driver "syslog" is not supported'],
    ['logging: { options: { tag: x } }', '4:27 services.web.logging.options.tag: "tag" is not supported'],
    ['logging: { options: { max-size: 1k } }', '4:37 services.web.logging.options.max-size: this is not a size'],
    ['pull_policy: build', '4:18 services.web.pull_policy: images are not built at apply'],
    ['pull_policy: every_', '4:18 services.web.pull_policy: "every_" does not say how often'],
    ['pull_policy: refresh', '4:18 services.web.pull_policy: refresh does not say how often'],
    ['pull_refresh_after: 1h', '4:25 services.web.pull_refresh_after: pull_refresh_after goes with'],
    ['oom_score_adj: 1001', '4:20 services.web.oom_score_adj: 1001 is not'],
    ['cpuset: a-b', '4:13 services.web.cpuset: "a-b" is not a list of processors'],
    ['cpu_quota: 10', '4:16 services.web.cpu_quota: a quota of 10 µs'],
    ['cpu_count: 2', '4:5 services.web.cpu_count: "cpu_count" is not supported by Gantry yet'],
    ['memswap_limit: 1g', '4:5 services.web.memswap_limit: there is no limit of memory'],
    ['mem_limit: 1g\nmemswap_limit: 1m', '5:5 services.web.memswap_limit: memory with swap is less than memory alone'],
    ['oom_kill_disable: true', '4:5 services.web.oom_kill_disable: without a limit of memory'],
    ['blkio_config: { weight: 5 }', '4:29 services.web.blkio_config.weight: 5 is not a whole number'],
    [
      'blkio_config: { device_read_bps: [{ path: /dev/a }] }',
      '4:39 services.web.blkio_config.device_read_bps[0]: a device needs',
    ],
    [
      'privileged: true\nsecurity_opt: [apparmor=x]',
      '5:5 services.web.security_opt: a privileged container is confined',
    ],
    ['security_opt: ["label:type:x"]', '4:20 services.web.security_opt[0]: containers have no SELinux labels'],
    ['storage_opt: { size: 1G }', '4:5 services.web.storage_opt: "storage_opt" is not supported'],
    ['mac_address: 02:42:ac:11:65:43', '4:5 services.web.mac_address: "mac_address" is not supported'],
  ])('%s', (lines, error) => {
    const errors = bad(lines);
    expect(errors[0]).toContain(`compose.yaml:${error}`);
    expect(errors[0]).toMatch(/ → ./);
  });
});

it('what opens a container to its host is worth a word, each at its place', () => {
  expect(
    warningsOf(`pid: host
devices: [/dev/kvm]
cap_add: [ALL]
network_mode: host
security_opt: [systempaths=unconfined]
attach: false`),
  ).toEqual([
    '9 services.web.attach: attach: means nothing here: gantry apply shows no output',
    '4 services.web.pid: pid: host: it sees its host’s processes, and may signal them as its user may',
    '7 services.web.network_mode: network_mode: host: it has all of its host’s interfaces, and ports of 127.0.0.1',
    '5 services.web.devices: it uses /dev/kvm of its host, past Gantry',
    '6 services.web.cap_add: with ALL it may get out of its container',
    '8 services.web.security_opt: it runs with less of a fence than others: more of the kernel can be reached',
  ]);
});
