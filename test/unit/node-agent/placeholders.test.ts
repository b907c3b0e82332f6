/** What is otherwise for each task of a service. */
import { expect, it } from 'vitest';
import { filled, filledHostname } from '#node-agent/task/placeholders.ts';
import { nodeId } from '#proto/model/ids.ts';
import { aTask, idOf } from '#test/support/builders.ts';

const task = aTask('web3', { slot: 3, nodeName: 'h1', nodeId: nodeId(idOf('h1')) });

it.each([
  ['plain', 'plain'],
  ['web-{{.Task.Slot}}', 'web-3'],
  ['{{ .Service.Name }}.{{.Node.Hostname}}', 'web.h1'],
  ['{{.Task.Name}}', `web.3.${task.id}`],
])('%s', (hostname, expected) => {
  expect(filledHostname(hostname, task)).toBe(expected);
});

it('names the node where there is a task on each, and is no longer than a name may be', () => {
  expect(filledHostname('{{.Task.Slot}}', { ...task, slot: 0 })).toBe(idOf('h1'));
  expect(filledHostname('{{.Task.ID}}{{.Task.ID}}{{.Task.ID}}', task)).toHaveLength(63);
});

it('is filled into other texts whole, and templates of other programs are left to them', () => {
  const text = 'NAME={{.Service.Name}}-{{.Task.Slot}} {{ .Time }} {{range .}} {{.Task.ID}}{{.Task.ID}}{{.Task.ID}}';
  expect(filled(text, task)).toBe(`NAME=web-3 {{ .Time }} {{range .}} ${task.id.repeat(3)}`);
});
