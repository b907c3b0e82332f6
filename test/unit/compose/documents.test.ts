/** `configs:` and `secrets:`: where contents come from, what files they become, and what is refused where. */
import { describe, expect, it } from 'vitest';
import type { SuppliedData } from '#control-plane/compose/documents.ts';
import { type ResolveInput, resolve } from '#control-plane/compose/resolve.ts';
import { Concealed } from '#proto/model/concealed.ts';
import { errorsOf, resolveInput, specsOf } from '#test/support/compose.ts';

const bytesOf = (text: string): SuppliedData => ({ data: new Concealed(Buffer.from(text)), bytes: text.length });
const given = (files: Record<string, string>, more: Partial<ResolveInput> = {}): Partial<ResolveInput> => ({
  data: new Map(Object.entries(files).map(([path, text]) => [path, bytesOf(text)])),
  ...more,
});
const service = 'services:\n  web:\n    image: nginx\n';

const resolved = (text: string, more: Partial<ResolveInput> = {}) => {
  const resolution = resolve(resolveInput(text, more));
  if (resolution.kind !== 'specs') throw new Error(JSON.stringify(resolution));
  return resolution;
};
const shown = (text: string, more: Partial<ResolveInput> = {}) =>
  resolved(text, more).documents.map(({ type, name, project, content }) => [
    `${type} ${name} of ${project || 'nobody'}`,
    content && Buffer.from(content.reveal()).toString(),
  ]);
const mountsOf = (text: string, more: Partial<ResolveInput> = {}) =>
  specsOf(resolve(resolveInput(text, more)))[0]!.template.documents;

describe('the contents', () => {
  it('are of files, variables, the text itself, or there already; only what a service uses is looked at', () => {
    const text = `${service}    configs: [app, inline, env, made]\n    secrets: [db, token]\nconfigs:\n  app: { file: ./app.conf }\n  inline: { content: "port=$${'{PORT}'}" }\n  env: { environment: MOTD }\n  made: { external: true }\n  idle: { file: ./none }\nsecrets:\n  db: { file: /etc/db.key, name: db-key }\n  token: { environment: TOKEN, labels: { a: b } }\n`;
    const more = given(
      { './app.conf': 'a=1', '/etc/db.key': 'k' },
      {
        variables: new Map([
          ['PORT', '80'],
          ['MOTD', 'hi'],
          ['TOKEN', 't'],
        ]),
      },
    );
    expect(shown(text.replace('$${PORT}', '${PORT}'), more)).toEqual([
      ['config shop_app of shop', 'a=1'],
      ['config shop_inline of shop', 'port=80'],
      ['config shop_env of shop', 'hi'],
      ['config made of nobody', undefined],
      ['secret db-key of shop', 'k'],
      ['secret shop_token of shop', 't'],
    ]);
  });

  it('are asked for, as bytes, and only once all else is known', () => {
    const text = `${service}    secrets: [db, token]\nsecrets:\n  db: { file: ./db.key }\n  token: { environment: TOKEN }\n`;
    const input = resolveInput(text, {
      answered: false,
      supplied: new Map([['.env', undefined]]),
      variables: new Map([['COMPOSE_PROJECT_NAME', undefined]]),
    });
    expect(resolve(input)).toEqual({ kind: 'needs', files: [], data: ['./db.key'], variables: ['TOKEN'] });
  });

  it('are never in what the resolver says', () => {
    const text = `${service}    secrets: [db]\nsecrets: { db: { file: ./db.key } }\n`;
    expect(JSON.stringify(resolved(text, given({ './db.key': 'hunter2' })))).not.toContain('hunter2');
  });
});

describe('a service', () => {
  it('has them where Compose puts them, or where it says, with owner and mode', () => {
    const text = `${service}    configs:\n      - app\n      - { source: app, target: /etc/app.conf, uid: "1000", gid: 1001, mode: 0440 }\n    secrets:\n      - db\n      - { source: db, target: other, mode: "0400" }\nconfigs: { app: { content: x } }\nsecrets: { db: { file: ./k } }\n`;
    const plain = { version: '', uid: 0, gid: 0, mode: 0o444 };
    const [app, db] = [
      { type: 'config', name: 'shop_app' },
      { type: 'secret', name: 'shop_db' },
    ];
    expect(mountsOf(text, given({ './k': 'k' }))).toEqual([
      { ...plain, ...app, target: '/app' },
      { ...app, version: '', target: '/etc/app.conf', uid: 1000, gid: 1001, mode: 0o440 },
      { ...plain, ...db, target: '/run/secrets/db' },
      { ...plain, ...db, target: '/run/secrets/other', mode: 0o400 },
    ]);
  });
});

describe('refused with place and remedy', () => {
  const bad = (lines: string, top: string, more: Partial<ResolveInput> = {}) =>
    errorsOf(`${service}${lines.replace(/^(?=.)/gm, '    ')}\n${top}`, more);

  it.each([
    [
      'secrets: [dp]',
      'secrets: { db: { file: k } }',
      '4:15 services.web.secrets[0]: secret "dp" is not declared → did you mean "db"?',
    ],
    [
      'configs: [app]',
      '',
      '4:15 services.web.configs[0]: config "app" is not declared → add it under the top-level configs:',
    ],
    ['secrets: { a: b }', '', '4:14 services.web.secrets: secrets must be a list → write - NAME'],
    ['secrets: [{ target: x }]', 'secrets: { db: { file: k } }', 'this secret has no source'],
    [
      'secrets: [{ source: db, target: /a/../b }]',
      'secrets: { db: { file: k } }',
      '"/a/../b" is not a place for a file',
    ],
    [
      'secrets: [{ source: db, uid: root }]',
      'secrets: { db: { file: k } }',
      '"root" is not the number of a user or group',
    ],
    ['secrets: [{ source: db, mode: 04755 }]', 'secrets: { db: { file: k } }', 'a file like this has no special bits'],
    ['secrets: [{ source: db, mode: 0888 }]', 'secrets: { db: { file: k } }', '"0888" is not a file mode'],
    ['secrets: [{ source: db, size: 1 }]', 'secrets: { db: { file: k } }', 'unknown key "size"'],
    [
      '',
      'secrets: { db: {} }',
      'compose.yaml:5:12 secrets.db: this secret has no content → add file: or environment:, or external: true',
    ],
    [
      '',
      'configs: { a: { file: x, content: y } }',
      'this config has two contents → keep one of file: or content: or environment:',
    ],
    ['', 'secrets: { db: { content: y } }', 'a secret does not belong in the file'],
    ['', 'secrets: { db: { file: x, driver: vault } }', '"driver" is not supported by Gantry yet'],
    ['', 'configs: { a: { file: x, template_driver: golang } }', '"template_driver" is not supported by Gantry yet'],
    ['', 'configs: { a: { external: true, file: x } }', 'what is external is as it was made: it has no file: here'],
    ['', 'configs: { a: { content: x, name: "a/b" } }', '"a/b" cannot name a config'],
    ['', 'configs: { a: { content: x, name: n }, b: { content: x, name: n } }', 'configs.a is called "n" too'],
    [
      'secrets: [db]',
      'secrets: { db: { file: ./none } }',
      'the file ./none of this secret is not there → create it, or correct the path',
    ],
    ['secrets: [db]', 'secrets: { db: { environment: NONE } }', 'variable NONE, which holds this secret, is not set'],
    [
      'secrets: [db, { source: db, target: db }]',
      'secrets: { db: { file: k } }',
      'secret shop_db has the target /run/secrets/db too',
    ],
    ['configs: [a]\nvolumes: ["/a"]', 'configs: { a: { content: x } }', 'a volume has the target /a too'],
  ])('%s / %s', (lines, top, expected) => {
    expect(bad(lines, top, given({ k: 'k' })).join('\n')).toContain(expected);
  });

  it('where there is more than fits, in one or in all', () => {
    const big = (bytes: number): SuppliedData => ({ data: new Concealed(new Uint8Array()), bytes });
    const data = new Map([['k', big(512 * 1024 + 1)]]);
    expect(bad('secrets: [db]', 'secrets: { db: { file: k } }', { data })[0]).toContain(
      'this secret has 524289 bytes → at most 524288 fit',
    );
    const names = Array.from({ length: 5 }, (_, index) => `c${index}`);
    const top = `configs: { ${names.map((name) => `${name}: { file: big }`).join(', ')} }`;
    const errors = bad(`configs: [${names.join(', ')}]`, top, { data: new Map([['big', big(1024 * 1024)]]) });
    expect(errors).toHaveLength(1);
    expect(errors[0]).toContain('configs.c4.file: with this, the configs and secrets of the file are too large');
  });
});
