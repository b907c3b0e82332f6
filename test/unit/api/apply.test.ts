/** What apply commits, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { apply } from '#control-plane/api/apply.ts';
import { ApplyRequest, SourceFile } from '#proto/gen/gantry/v1/operator.ts';
import { aNode } from '#test/support/builders.ts';
import { operatorLab } from '#test/support/operator.ts';

const file = (text: string, more: Partial<ApplyRequest> = {}): ApplyRequest =>
  ApplyRequest.create({
    files: [{ path: 'compose.yaml', text }],
    composeFiles: 1,
    directory: 'shop',
    answered: true,
    ...more,
  });
const web = 'services:\n  web:\n    image: nginx:1\n    ports: ["8080:80"]\n    environment: { A: "1" }\n';

describe('apply', () => {
  it('creates the services of a file in one commit', async () => {
    const lab = operatorLab();
    const response = await apply(lab.parts, file(`${web}  api:\n    image: api\n`));
    expect(response.errors).toEqual([]);
    expect(response.changes.map(({ action, name }) => `${action} ${name}`)).toEqual([
      'create shop/web',
      'create shop/api',
    ]);
    expect(response.revision).toBeGreaterThan(0);
    const service = lab.store.snapshot.serviceNamed('shop', 'web')!;
    expect(service.id).toBe(response.changes[0]!.serviceId);
    expect(lab.store.snapshot.revisionOf(service.id, 1)!.template.container.image).toBe('nginx:1');
  });

  it('commits nothing for an unchanged file', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(web));
    const before = lab.store.snapshot.revision;
    const response = await apply(lab.parts, file(web));
    expect(response.changes.map(({ action }) => action)).toEqual(['unchanged']);
    expect(response.revision).toBe(0);
    expect(lab.store.snapshot.revision).toBe(before);
  });

  it('says what differs, and no values of variables', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(web));
    const response = await apply(
      lab.parts,
      file(
        `${web.replace('nginx:1', 'nginx:2').replace('A: "1"', 'A: secret, B: secret')}    deploy: { replicas: 3 }\n`,
      ),
    );
    expect(response.changes[0]).toMatchObject({
      action: 'update',
      details: ['replicas: 1 → 3', 'image: nginx:1 → nginx:2', 'environment: A changed', 'environment: B added'],
    });
    expect(lab.store.snapshot.serviceNamed('shop', 'web')!.revision).toBe(2);
  });

  it('asks for what it needs and commits nothing meanwhile', async () => {
    const lab = operatorLab();
    const response = await apply(lab.parts, file('services: { web: { image: "nginx:$TAG" } }', { answered: false }));
    expect(response).toMatchObject({
      needsFiles: ['.env'],
      needsVariables: ['COMPOSE_PROJECT_NAME', 'TAG'],
      revision: 0,
    });
    const files = [
      SourceFile.create({ path: 'compose.yaml', text: 'services: { web: { image: "nginx:$TAG" } }' }),
      SourceFile.create({ path: '.env', missing: true }),
    ];
    const second = await apply(
      lab.parts,
      file('', { files, answered: false, variables: { TAG: '7' }, unsetVariables: ['COMPOSE_PROJECT_NAME'] }),
    );
    expect(second.errors).toEqual([]);
    expect(lab.store.snapshot.serviceNamed('shop', 'web')!.spec.template.container.image).toBe('nginx:7');
  });

  it('refuses a port that another service publishes, naming the owner', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(web));
    const response = await apply(
      lab.parts,
      file(`${web.replace('web:', 'other:')}  fine:\n    image: fine\n`, { directory: 'second' }),
    );
    expect(response.errors).toMatchObject([
      { file: 'compose.yaml', line: 4, column: 13, message: 'port 8080/tcp is published by service shop/web' },
    ]);
    expect(lab.store.snapshot.serviceNamed('second', 'fine')).toBeUndefined();
  });

  it.each([
    ['[node.zone == a]', 5, '"node.zone" is not an attribute of a node'],
    ['[node.labels.zone]', 5, 'has neither == nor !='],
  ])('refuses the impossible constraint %s at its place', async (constraints, line, message) => {
    const response = await apply(
      operatorLab().parts,
      file(`services:\n  web:\n    image: nginx\n    deploy:\n      placement: { constraints: ${constraints} }\n`),
    );
    expect(response.errors).toMatchObject([{ line, column: 34, message: expect.stringContaining(message) }]);
  });

  it('refuses another mode with the remedy, and leaves the rest of the file alone', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(web));
    const response = await apply(lab.parts, file(`${web}    deploy: { mode: global }\n`));
    expect(response.errors[0]!.message).toMatch(/is replicated and cannot become global/);
  });

  it('leaves services alone whose profiles are not enabled, also when it prunes', async () => {
    const lab = operatorLab();
    const text = `${web}  debug: { image: debug, profiles: [dev] }\n`;
    await apply(lab.parts, file(text, { profiles: ['dev'] }));
    const response = await apply(lab.parts, file(text, { prune: true }));
    expect(response.changes.map(({ action, name, details }) => [action, name, ...details])).toEqual([
      ['unchanged', 'shop/web'],
      ['unchanged', 'shop/debug', 'its profiles are not enabled: it stays as it is'],
    ]);
    expect(lab.store.snapshot.serviceNamed('shop', 'debug')!.removing).toBe(false);
  });

  it('plans without committing', async () => {
    const lab = operatorLab();
    await lab.put('node', aNode('h1'));
    const before = lab.store.snapshot.revision;
    const response = await apply(lab.parts, file(web, { dryRun: true }));
    expect(response.changes[0]).toMatchObject({ action: 'create', tasks: [{ action: 'start', node: 'h1' }] });
    expect(response.revision).toBe(0);
    expect(lab.store.snapshot.revision).toBe(before);
  });

  it('removes services that are no longer in the file only when asked to', async () => {
    const lab = operatorLab();
    await apply(lab.parts, file(`${web}  old:\n    image: old\n`));
    const kept = await apply(lab.parts, file(web));
    expect(kept.changes[1]).toMatchObject({
      action: 'unchanged',
      name: 'shop/old',
      details: ['not in the file: --prune removes it'],
    });
    const pruned = await apply(lab.parts, file(web, { prune: true }));
    expect(pruned.changes[1]).toMatchObject({ action: 'remove', name: 'shop/old' });
    expect(lab.store.snapshot.serviceNamed('shop', 'old')!.removing).toBe(true);
  });

  it('decides anew when somebody else was faster', async () => {
    const lab = operatorLab();
    const [first, second] = await Promise.all([apply(lab.parts, file(web)), apply(lab.parts, file(web))]);
    expect([first.changes[0]!.action, second.changes[0]!.action].sort()).toEqual(['create', 'unchanged']);
    expect(lab.store.snapshot.count('service')).toBe(1);
    const all = await Promise.all([
      apply(lab.parts, file(web.replace(':1', ':2'))),
      apply(lab.parts, file(web.replace(':1', ':3'))),
    ]);
    expect(all.every(({ errors }) => errors.length === 0)).toBe(true);
    expect(lab.store.snapshot.serviceNamed('shop', 'web')!.revision).toBe(3);
  });
});
