/** Volumes whose driver mounts something in their stead, and other things of real files that mean little in a cluster. */
import { describe, expect, it } from 'vitest';
import { errorsOf, resolveFiles, specsOf } from '#test/support/compose.ts';

const file = (options: string, mount = '"data:/data"') =>
  `services: { web: { image: a, volumes: [${mount}] } }\nvolumes:\n  data:\n    driver: local\n    driver_opts: ${options}\n`;
const mountOf = (text: string) =>
  specsOf(resolveFiles({ 'compose.yaml': text })).flatMap(({ template }) => template.container.mounts)[0];
const warningsOf = (text: string) => {
  const resolution = resolveFiles({ 'compose.yaml': text });
  return resolution.kind === 'specs' ? resolution.warnings.map(({ path, message }) => `${path}: ${message}`) : [];
};

describe('driver_opts of a volume', () => {
  it('may bind a directory of the nodes', () => {
    const bind = { type: 'bind', source: '/srv/data', target: '/data', createHostPath: false };
    expect(mountOf(file('{ type: none, o: bind, device: /srv/data }'))).toMatchObject({ ...bind, readOnly: false });
    expect(mountOf(file('{ type: none, o: "bind,ro", device: /srv/data }'))).toMatchObject({ ...bind, readOnly: true });
    const long = '{ type: volume, source: data, target: /data, read_only: true }';
    expect(mountOf(file('{ o: bind, device: /srv/data }', long))).toMatchObject({ ...bind, readOnly: true });
  });

  it('may be memory', () => {
    const options = '{ type: tmpfs, device: tmpfs, o: "size=64m,mode=1777" }';
    const memory = { type: 'tmpfs', source: '', target: '/data', tmpfsSizeBytes: 64 * 1024 ** 2, tmpfsMode: 0o1777 };
    expect(mountOf(file(options))).toMatchObject(memory);
    expect(mountOf(file(options, '{ type: volume, source: data, target: /data }'))).toMatchObject(memory);
  });

  it('may be none at all', () => {
    expect(mountOf(file('{}'))).toMatchObject({ type: 'volume', source: 'shop_data' });
  });

  it.each([
    [
      '{ type: nfs, o: "addr=10.0.0.1,rw", device: ":/x" }',
      'compose.yaml:5:18 volumes.data.driver_opts: file systems of the kind nfs are not mounted by Gantry yet → mount it on the nodes, and write type: none, o: bind, device: PATH; or type: tmpfs for memory',
    ],
    [
      '{ type: none, o: bind, device: data }',
      'compose.yaml:5:18 volumes.data.driver_opts: this binds no directory → add device: an absolute path of the nodes',
    ],
    [
      '{ type: tmpfs, o: "huge=5" }',
      'compose.yaml:5:36 volumes.data.driver_opts.o: "huge=5" is not an option of tmpfs here → use size=64m, mode=1777, uid=1000, gid=1000, nr_inodes=1k, exec, suid, dev or ro',
    ],
    [
      '{ o: bind, device: /x, frob: 1 }',
      'compose.yaml:5:41 volumes.data.driver_opts.frob: unknown key "frob" → remove it: driver_opts has no such key',
    ],
    [
      '{ o: bind, device: /x }\n    external: true',
      'compose.yaml:3:3 volumes.data: an external volume is as it was made: it has no driver_opts: here → remove them, or remove external:',
    ],
  ])('%s is refused', (options, error) => {
    expect(errorsOf(file(options))).toEqual([error]);
  });
});

describe('what means nothing in a cluster', () => {
  it('is taken with a warning: labels of SELinux, watching, and a build beside its image', () => {
    const text = `
services:
  web:
    image: a
    build: .
    platform: "\${NOTHING:-}"
    develop: { watch: [] }
    volumes: ["/x:/x:ro,z", { type: bind, source: /y, target: /y, bind: { selinux: Z } }]
`;
    expect(warningsOf(text)).toEqual([
      'services.web.develop: nothing is watched here: it is for docker compose watch',
      'services.web.volumes[0]: labels of SELinux mean nothing here: files are as they are on the node',
      'services.web.volumes[1].bind.selinux: labels of SELinux mean nothing here: files are as they are on the node',
      'services.web.build: nothing is built here: the image is pulled',
    ]);
    expect(mountOf(text)).toMatchObject({ source: '/x', readOnly: true });
  });

  it('is so also with consistency of mounts, and with names and protocols of ports', () => {
    const text = `
services:
  web:
    image: a
    ports: [{ target: 80, published: 8080, name: http, app_protocol: http }]
    volumes: ["/x:/x:ro,cached", { type: bind, source: /y, target: /y, consistency: delegated }]
`;
    expect(warningsOf(text)).toEqual([
      'services.web.ports[0].name: ports have no names here',
      'services.web.ports[0].app_protocol: connections are balanced, not what is said over them',
      'services.web.volumes[0]: a mount is the same for all who see it: how consistent it is means nothing here',
      'services.web.volumes[1].consistency: a mount is the same for all who see it: how consistent it is means nothing here',
    ]);
    expect(mountOf(text)).toMatchObject({ source: '/x', readOnly: true });
  });

  it('is refused where nothing is left to run', () => {
    expect(errorsOf('services: { web: { build: . } }')).toEqual([
      'compose.yaml:1:27 services.web.build: images are not built by Gantry yet → build and push it, and name it by image: too',
    ]);
  });
});
