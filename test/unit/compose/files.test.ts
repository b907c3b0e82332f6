/** Files that are made of others: include, extends, profiles, and what the client is asked for meanwhile. */

import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import { errorLines, errorsOf, resolveFiles, resolveInput, specsOf } from '#test/support/compose.ts';

describe('include', () => {
  const main = (include: string) => `include:\n  - ${include}\nservices:\n  web:\n    image: web\n`;
  const names = (texts: Record<string, string>) => specsOf(resolveFiles(texts)).map(({ name }) => name);

  it('takes the services, networks and volumes of another file', () => {
    const texts = {
      'compose.yaml': `${main('db/compose.yaml')}    networks: [back]\n    volumes: [data:/data]\n`,
      'db/compose.yaml': 'services: { db: { image: pg } }\nnetworks: { back: }\nvolumes: { data: }\n',
    };
    const [web, db] = specsOf(resolveFiles(texts));
    expect([web!.name, db!.name, db!.project]).toEqual(['web', 'db', 'shop']);
    expect(web!.template.networks).toMatchObject([{ network: 'shop_back' }]);
    expect(web!.template.container.mounts).toMatchObject([{ source: 'shop_data' }]);
  });

  it('goes on in the included file, whose paths are seen from its own directory', () => {
    const [, db, log] = specsOf(
      resolveFiles({
        'compose.yaml': main('a/one.yaml'),
        'a/one.yaml':
          'include: [../b/two.yaml]\nservices: { db: { image: pg, env_file: one.env, volumes: ["./x:/x", "../y:/y"], deploy: { placement: { constraints: [node.hostname == h1] } } } }',
        'a/one.env': 'ONE=1',
        'b/two.yaml': 'services: { log: { image: "log:${TAG}" } }',
        'b/.env': 'TAG=2',
      }),
    );
    expect(db!.template.container).toMatchObject({
      env: ['ONE=1'],
      mounts: [{ source: '/srv/shop/a/x' }, { source: '/srv/shop/y' }],
    });
    expect(log!.template.container.image).toBe('log:2');
  });

  it('takes several paths laid over each other, a directory and files of variables', () => {
    const [, db] = specsOf(
      resolveFiles({
        'compose.yaml': main('{ path: [db/base.yaml, more.yaml], project_directory: other, env_file: [a.env, b.env] }'),
        'db/base.yaml': 'services: { db: { image: "pg:${TAG}", env_file: db.env } }',
        'more.yaml': 'services: { db: { user: "${WHO}" } }',
        'a.env': 'TAG=1\nWHO=me',
        'b.env': 'TAG=2',
        'other/db.env': 'X=1',
      }),
    );
    expect(db!.template.container).toMatchObject({ image: 'pg:2', user: 'me', env: ['X=1'] });
  });

  it('gives what the including project sets precedence over the env files', () => {
    const texts = {
      'compose.yaml': main('db.yaml'),
      'db.yaml': 'services: { db: { image: "pg:${TAG}" } }',
      '.env': 'TAG=file',
    };
    const [, db] = specsOf(resolveFiles(texts, { variables: new Map([['TAG', 'client']]) }));
    expect(db!.template.container.image).toBe('pg:client');
  });

  it('may name one thing twice where both say the same', () => {
    const db = 'services: { db: { image: pg } }\nnetworks: { n: }\n';
    const texts = { 'compose.yaml': 'include: [a.yaml, b.yaml]\n', 'a.yaml': db, 'b.yaml': db };
    expect(names(texts)).toEqual(['db']);
  });

  it.each([
    [
      'two services of one name',
      { 'compose.yaml': main('a.yaml'), 'a.yaml': 'services: { web: { image: other } }' },
      'compose.yaml:4:3 services.web: services.web is in a.yaml:1 too, which is included → rename one of them, or name a file of changes as a second path: of the include',
    ],
    [
      'a circle',
      { 'compose.yaml': main('a.yaml'), 'a.yaml': 'include: [b.yaml]', 'b.yaml': 'include: [./a.yaml]' },
      'b.yaml:1:11 include[0]: this includes itself: a.yaml → b.yaml → a.yaml → take one of these includes away',
    ],
    [
      'a file that is not there',
      { 'compose.yaml': main('a.yaml') },
      'compose.yaml:2:5 include[0]: a.yaml is not there → correct the path, or create it',
    ],
    [
      'a file of another machine',
      { 'compose.yaml': main('https://example.com/a.yaml') },
      'compose.yaml:2:5 include[0]: "https://example.com/a.yaml" is not a file of this machine → download it, and name the copy',
    ],
    [
      'env files that are not there',
      { 'compose.yaml': main('{ path: a.yaml, env_file: x.env }'), 'a.yaml': 'services: { a: { image: a } }' },
      'compose.yaml:2:31 include[0].env_file: env_file x.env is not there → create it, or add required: false',
    ],
    [
      'a key that the included file may not have',
      { 'compose.yaml': main('a.yaml'), 'a.yaml': 'servces: { a: { image: a } }' },
      'a.yaml:1:1 servces: unknown key "servces" → did you mean "services"?',
    ],
  ] as const)('refuses %s', (_, texts, error) => {
    expect(errorLines(resolveFiles(texts))).toEqual([error]);
  });
});

describe('extends', () => {
  it('switches no health check off that the other service has', () => {
    const file = (base: string, own: string) =>
      `services: { base: { image: a, healthcheck: ${base} }, web: { extends: base, healthcheck: ${own} } }`;
    expect(errorsOf(file('{ test: ls }', '{ disable: true }'))).toEqual([
      expect.stringMatching(
        /services\.web\.healthcheck\.disable: the service that this one extends has a health check/,
      ),
    ]);
    const test = (text: string) => specsOf(resolve(resolveInput(text)))[1]!.template.container.healthCheck?.test;
    expect(test(file('{ disable: true }', '{ disable: true }'))).toEqual(['NONE']);
    expect(test(file('{ test: ls }', '{ test: NONE }'))).toEqual(['NONE']);
  });

  it('lays the own keys over those of another service, over several steps', () => {
    const text = `
services:
  base: { image: busybox, user: root, environment: { TZ: utc, PORT: "80" }, cap_add: [CHOWN], volumes: [a:/data], command: [x, y] }
  common: { extends: base, environment: [PORT=81] }
  cli:
    extends: { service: common }
    environment: { PORT: "8080", MORE: "1" }
    cap_add: [KILL, CHOWN]
    volumes: ["b:/data:ro", "a:/other"]
    command: z
volumes: { a: , b: }
`;
    const spec = specsOf(resolveFiles({ 'compose.yaml': text })).find(({ name }) => name === 'cli')!;
    expect(spec.template.container).toMatchObject({
      image: 'busybox',
      user: 'root',
      env: ['TZ=utc', 'PORT=8080', 'MORE=1'],
      capAdd: ['CHOWN', 'KILL'],
      command: ['z'],
      mounts: [
        { source: 'shop_b', target: '/data', readOnly: true },
        { source: 'shop_a', target: '/other' },
      ],
    });
  });

  it('takes a service of another file, whose paths are seen from there and whose other services do not matter', () => {
    const [spec] = specsOf(
      resolveFiles({
        'compose.yaml': 'services: { web: { extends: { file: lib/common.yaml, service: app }, user: me } }',
        'lib/common.yaml':
          'services: { app: { extends: { file: ../base.yaml, service: base }, env_file: app.env }, other: { image: "${MISSING:?}" } }',
        'lib/app.env': 'A=1',
        'base.yaml': 'services: { base: { image: "app:${TAG:-1}" } }',
      }),
    );
    expect(spec).toMatchObject({ name: 'web', template: { container: { image: 'app:1', user: 'me', env: ['A=1'] } } });
  });

  it('finds services of the files before it', () => {
    const texts = {
      'compose.yaml': 'services: { a: { image: a } }',
      'more.yaml': 'services: { b: { extends: a, user: me } }',
    };
    const [, b] = specsOf(resolveFiles(texts, { count: 2 }));
    expect(b!.template.container).toMatchObject({ image: 'a', user: 'me' });
  });

  it('may drop and replace what the other service says', () => {
    const text =
      'services: { a: { image: a, ports: ["80:80"], labels: { x: "1" } }, b: { extends: a, ports: !reset [], labels: !override { y: "2" } } }';
    const [, b] = specsOf(resolveFiles({ 'compose.yaml': text }));
    expect([b!.ports, b!.template.container.labels]).toEqual([[], { y: '2' }]);
  });

  it.each([
    [
      'a service that is not there',
      { 'compose.yaml': 'services: { web: { extends: bse }, base: { image: a } }' },
      'compose.yaml:1:29 services.web.extends: there is no service "bse" in the file → did you mean "base"?',
    ],
    [
      'a service that is not in the other file',
      {
        'compose.yaml': 'services: { web: { extends: { file: a.yaml, service: x } } }',
        'a.yaml': 'services: { long: { image: a } }',
      },
      'compose.yaml:1:54 services.web.extends.service: there is no service "x" in a.yaml → extend another one',
    ],
    [
      'a circle',
      { 'compose.yaml': 'services: { a: { extends: b, image: a }, b: { extends: a } }' },
      'compose.yaml:1:56 services.b.extends: service b extends itself, over a → extend another one',
    ],
    [
      'a service that is not said',
      { 'compose.yaml': 'services: { a: { image: a, extends: { file: a.yaml } } }', 'a.yaml': 'services: {}' },
      'compose.yaml:1:37 services.a.extends: this extends no service → add service:',
    ],
  ] as const)('refuses %s', (_, texts, error) => {
    expect(errorLines(resolveFiles(texts))).toContain(error);
  });

  it('says once what is wrong with a file that several services name', () => {
    const texts = {
      'compose.yaml':
        'services: { a: { extends: { file: a.yaml, service: x } }, b: { extends: { file: a.yaml, service: x } } }',
      'a.yaml': 'services: [',
    };
    expect(errorLines(resolveFiles(texts))).toHaveLength(1);
    expect(errorLines(resolveFiles({ ...texts, 'a.yaml': '# nothing' }))[0]).toBe(
      'a.yaml:1:1 : the file is empty → declare services:',
    );
  });

  it('says what is wrong with an extended service where that was written', () => {
    const texts = {
      'compose.yaml': 'services: { web: { extends: { file: a.yaml, service: x } } }',
      'a.yaml': 'services:\n  x:\n    image: a\n    tty: 5\n',
    };
    expect(errorLines(resolveFiles(texts))).toEqual([
      'a.yaml:4:10 services.web.tty: 5 is not true or false → write true or false',
    ]);
  });
});

describe('profiles', () => {
  const text = `
services:
  foo: { image: foo }
  bar: { image: bar, profiles: [test] }
  baz: { image: baz, links: [bar], profiles: [test] }
  zot: { image: zot, links: [bar], profiles: [debug] }
`;
  const names = (profiles: string[], variables = new Map<string, string>()) =>
    specsOf(resolveFiles({ 'compose.yaml': text }, { profiles, variables })).map(({ name }) => name);

  it('leave services out unless one of them is enabled', () => {
    expect(names([])).toEqual(['foo']);
    expect(names(['test'])).toEqual(['foo', 'bar', 'baz']);
    expect(names(['test', 'debug'])).toEqual(['foo', 'bar', 'baz', 'zot']);
    expect(names(['*'])).toEqual(['foo', 'bar', 'baz', 'zot']);
    expect(resolveFiles({ 'compose.yaml': text })).toMatchObject({ inactive: ['bar', 'baz', 'zot'] });
  });

  it('may be enabled by COMPOSE_PROFILES, of the client or of .env', () => {
    expect(names([], new Map([['COMPOSE_PROFILES', 'x, test']]))).toEqual(['foo', 'bar', 'baz']);
    expect(names(['debug', 'test'], new Map([['COMPOSE_PROFILES', 'x']]))).toHaveLength(4);
    const resolution = resolveFiles({ 'compose.yaml': text, '.env': 'COMPOSE_PROFILES=test' });
    expect(specsOf(resolution)).toHaveLength(3);
  });

  it('are asked for only where a service has some', () => {
    const input = {
      answered: false,
      supplied: new Map([['.env', undefined]]),
      variables: new Map([['COMPOSE_PROJECT_NAME', undefined]]),
    };
    expect(resolveFiles({ 'compose.yaml': text }, input)).toMatchObject({ variables: ['COMPOSE_PROFILES'] });
    expect(resolveFiles({ 'compose.yaml': text }, { ...input, profiles: ['test'] })).toMatchObject({ kind: 'specs' });
    expect(resolveFiles({ 'compose.yaml': 'services: { a: { image: a } }' }, input)).toMatchObject({ kind: 'specs' });
  });

  it('make it an error to name a service that takes no part', () => {
    expect(errorsOf(text, { profiles: ['debug'] })).toEqual([
      'compose.yaml:6:30 services.zot.links[0]: service bar takes no part: its profiles are not enabled → add --profile test, or give zot that profile too',
    ]);
  });

  it('leave the keys of services out that take no part, but not a name that cannot be one', () => {
    expect(
      errorsOf(
        'services: { a: { image: a }, b: { image: b, frob: 1, profiles: [x] }, c: { image: c, profiles: [""] } }',
        { profiles: [''] },
      ),
    ).toEqual(['compose.yaml:1:97 services.c.profiles[0]: "" cannot name a profile → use letters, digits, ., - and _']);
  });

  it('say so where none of them leaves a service, and where nobody has one that is enabled', () => {
    expect(errorsOf('services: { a: { image: a, profiles: [x] } }')).toEqual([
      'compose.yaml:1:1 : no service is enabled → enable one with --profile, such as --profile x',
    ]);
    expect(resolveFiles({ 'compose.yaml': text }, { profiles: ['tets', 'test'] })).toMatchObject({
      warnings: [{ message: 'no service has the profile "tets"', remedy: 'did you mean "test"?' }],
    });
  });
});

describe('the project', () => {
  it('has a name that variables may make and that values may use', () => {
    const text = 'name: "shop-${STAGE:-dev}"\nservices: { a: { image: "a:${COMPOSE_PROJECT_NAME}" } }';
    const [spec] = specsOf(resolveFiles({ 'compose.yaml': text }));
    expect([spec!.project, spec!.template.container.image]).toEqual(['shop-dev', 'a:shop-dev']);
    const [other] = specsOf(resolveFiles({ 'compose.yaml': text }, { project: 'other' }));
    expect([other!.project, other!.template.container.image]).toEqual(['other', 'a:other']);
  });

  it('takes its variables from the env files that are named instead of .env, later ones first', () => {
    const texts = {
      'compose.yaml': 'services: { a: { image: "${A}:${B}" } }',
      '.env': 'A=dot',
      'one.env': 'A=one\nB=1',
      'two.env': 'B="${B}2"',
    };
    const [spec] = specsOf(resolveFiles(texts, { envFiles: ['one.env', 'two.env'] }));
    expect(spec!.template.container.image).toBe('one:12');
    expect(errorLines(resolveFiles(texts, { envFiles: ['no.env'] }))).toEqual([
      'compose.yaml:1:1 : env_file no.env is not there → create it, or add required: false',
    ]);
  });

  it('may be several documents of one file, laid over each other', () => {
    const text = 'services: { a: { image: a } }\n---\nservices: { a: { user: me }, b: { image: b } }\n';
    const [a, b] = specsOf(resolveFiles({ 'compose.yaml': text }));
    expect([a!.template.container.user, b!.name]).toEqual(['me', 'b']);
  });

  it('hears of all its mistakes at once, and not of what follows from them', () => {
    const text =
      'services:\n  a:\n    image: "${IMAGE:?which}"\n    tty: 5\n    ports: ["${PORT:?}:80", "x"]\n  b:\n    frob: 1\n';
    expect(errorsOf(text)).toEqual([
      'compose.yaml:3:12 services.a.image: required variable IMAGE is not set: which → set it in the environment or in .env',
      'compose.yaml:4:10 services.a.tty: 5 is not true or false → write true or false',
      'compose.yaml:5:13 services.a.ports[0]: required variable PORT is not set → set it in the environment or in .env',
      'compose.yaml:5:29 services.a.ports[1]: "x" is not a port → write "PUBLISHED:TARGET", such as "8080:80" or "53:53/udp"',
      'compose.yaml:7:5 services.b.frob: unknown key "frob" → remove it: service b has no such key',
    ]);
  });
});
