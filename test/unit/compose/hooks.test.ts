/** Hooks of a container's life. */
import { expect, it } from 'vitest';
import { bad, web } from '#test/support/compose.ts';

it('hooks are commands in order, as text or lists, with what they have of their own', () => {
  const { postStart, preStop } = web(`
post_start:
  - command: ./register --as "web one"
    user: root
    privileged: true
    working_dir: /srv
    environment: [A=1]
  - command: [touch, /up]
pre_stop:
  - { command: ./leave, environment: { B: 2 } }
`).template.container;
  expect(postStart).toEqual([
    { command: ['./register', '--as', 'web one'], user: 'root', privileged: true, workingDir: '/srv', env: ['A=1'] },
    { command: ['touch', '/up'], user: '', privileged: false, workingDir: '', env: [] },
  ]);
  expect(preStop).toMatchObject([{ command: ['./leave'], env: ['B=2'] }]);
});

it.each([
  ['post_start: [{ user: root }]', 'this hook has no command → add command:'],
  ['post_start: { command: x }', 'hooks are a list → write - command: …'],
  ['pre_stop: [{ command: x, working_dir: y }]', '"y" is not an absolute path'],
  ['pre_stop: [{ command: x, environment: [A] }]', 'variable A has no value → write A=VALUE'],
  ['pre_stop: [{ comand: x }]', 'did you mean "command"?'],
])('refuses %s', (lines, message) => {
  expect(bad(lines).join('\n')).toContain(message);
});
