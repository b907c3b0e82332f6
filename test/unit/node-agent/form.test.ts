/** Holds an agent to refusing, in words, what a newer one has written in a form that it would misread. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { claimForm, dataForm, formPath } from '#node-agent/form.ts';

let data: string;
beforeEach(() => {
  data = mkdtempSync(join(tmpdir(), 'gantry-form-'));
});
afterEach(() => rmSync(data, { recursive: true, force: true }));
const written = () => readFileSync(formPath(data), 'utf8');

it('a data directory tells its form, and who raised it to that', () => {
  claimForm(data, '1.0.0');
  expect(written()).toBe(`${dataForm} 1.0.0\n`);
  claimForm(data, '1.1.0');
  expect(written()).toBe(`${dataForm} 1.0.0\n`);
  writeFileSync(formPath(data), `${dataForm - 1} 0.9.0\n`);
  claimForm(data, '1.1.0');
  expect(written()).toBe(`${dataForm} 1.1.0\n`);
});

it('F36: one of a newer form is refused, with who can read it and what to do, and stays as it is', () => {
  const newer = `${dataForm + 1} 2.0.0\n`;
  writeFileSync(formPath(data), newer);
  expect(() => claimForm(data, '1.0.0')).toThrow(
    expect.objectContaining({
      code: 'unsupported',
      message: `agent 2.0.0 has written ${data} in form ${dataForm + 1}; this is 1.0.0, which reads forms up to ${dataForm}`,
      remedy: expect.stringMatching(/^start 2\.0\.0 or a newer one; .*drain the node.*reset --purge/),
    }),
  );
  expect(written()).toBe(newer);
});

it('one that a machine has torn while it lost its power is of no newer form', () => {
  writeFileSync(formPath(data), '');
  claimForm(data, '1.0.0');
  expect(written()).toBe(`${dataForm} 1.0.0\n`);
});
