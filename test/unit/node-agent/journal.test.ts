/** Holds the journal to giving back what was written, through torn lines and compaction. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { Journal } from '#node-agent/journal.ts';
import { journalFile } from '#node-agent/journal-file.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { taskId } from '#proto/model/ids.ts';
import { containerSpec, emptyMount, newerContainer } from '#proto/model/service.ts';
import type { TaskStatus } from '#proto/model/task.ts';
import { aTask, aTemplate, idOf } from '#test/support/builders.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-journal-'));
const path = join(directory, 'journal');
afterEach(() => rmSync(path, { force: true }));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function status(name: string, message: string): TaskStatus {
  return {
    taskId: taskId(idOf(name)),
    state: 'running',
    message,
    error: '',
    atMs: 1,
    startedAtMs: 1,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    health: '',
    pid: 7,
    imageDigest: '',
  };
}
const item = (name: string) =>
  ({ kind: 'task', task: aTask(name), template: aTemplate(), imageDigest: '', links: [] }) as const;

describe('the journal', () => {
  it('gives back after a restart what was last written', () => {
    const journal = new Journal(journalFile(path));
    journal.setBoot('b1');
    journal.setEpoch(4);
    journal.setItems([item('t1'), item('t2')], []);
    journal.setStatus(status('t1', 'old'));
    journal.setStatus(status('t1', 'new'));
    journal.setItems([], [`task/${idOf('t2')}`]);
    const again = new Journal(journalFile(path));
    expect(again).toMatchObject({ bootId: 'b1', epoch: 4 });
    expect(again.statuses()).toEqual([status('t1', 'new')]);
    expect(again.items()).toEqual([item('t1')]);
    again.forget(taskId(idOf('t1')));
    const third = new Journal(journalFile(path));
    expect([third.items(), third.statuses()]).toEqual([[], []]);
  });

  it('gives what an older agent wrote with every field of today', () => {
    const container = containerSpec('web:1', { mounts: [emptyMount('bind', '/x', '/y')] });
    const whole = { ...item('t1'), template: aTemplate({ container }) };
    const news = ['controls', 'generic', 'tmpfsOptions', ...Object.keys(newerContainer)];
    const older = JSON.stringify(whole, (key, value) => (news.includes(key) ? undefined : value));
    appendFileSync(path, `["item/task/${idOf('t1')}",${older}]\n`);
    const [read] = new Journal(journalFile(path)).items();
    expect(read).toMatchObject({ template: { ...whole.template, reservations: expect.anything() } });
  });

  it('survives a torn last line, and what is written after it', () => {
    new Journal(journalFile(path)).setStatus(status('t1', 'whole'));
    appendFileSync(path, '["status/torn",{"taskI');
    const journal = new Journal(journalFile(path));
    expect(journal.statuses()).toEqual([status('t1', 'whole')]);
    journal.setStatus(status('t2', 'after'));
    expect(new Journal(journalFile(path)).statuses()).toHaveLength(2);
  });

  it('goes on in memory while its disk is full, and is whole when there is space again', () => {
    const file = journalFile(path);
    let full = false;
    const guarded = (write: (text: string) => void) => (text: string) => {
      if (!full) return write(text);
      // As much as the disk still takes.
      appendFileSync(path, text.slice(0, 9));
      throw new Fault('exhausted', 'no space left on device');
    };
    const told: boolean[] = [];
    const journal = new Journal(
      { read: file.read, append: guarded(file.append), replace: guarded(file.replace) },
      ({ onDisk }) => told.push(onDisk),
    );
    journal.setStatus(status('t1', 'before'));
    full = true;
    journal.setStatus(status('t2', 'unsaved'));
    journal.setItems([item('t3')], []);
    expect(journal.statuses()).toHaveLength(2);
    full = false;
    journal.setStatus(status('t1', 'after'));
    expect(told).toEqual([false, true]);
    const again = new Journal(journalFile(path));
    expect(again.statuses()).toEqual([status('t1', 'after'), status('t2', 'unsaved')]);
    expect(again.items()).toEqual([item('t3')]);
    file.close();
  });

  it('stays small however often a task speaks, and loses nothing by it', () => {
    const journal = new Journal(journalFile(path));
    journal.setItems([item('t1')], []);
    for (let index = 0; index < 20_000; index++) journal.setStatus(status('t1', `word ${index}`));
    expect(statSync(path).size).toBeLessThan(1.5 * 2 ** 20);
    const again = new Journal(journalFile(path));
    expect(again.statuses()[0]!.message).toBe('word 19999');
    expect(again.items()).toHaveLength(1);
  });
});

describe('the journal of a newer agent', () => {
  it('is read as far as it is understood, and the rest stays for who understands it', () => {
    const newer = { ...item('t1'), omen: 'new' };
    const lines = [
      ['boot', 'b1'],
      [`item/task/${idOf('t1')}`, newer],
      ['item/omen/1', { kind: 'omen' }],
      ['omen', { omen: true }],
      [`status/${idOf('t1')}`, { ...status('t1', 'said'), omen: 'new' }],
    ];
    appendFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const journal = new Journal(journalFile(path));
    expect(journal.items()).toEqual([newer]);
    expect(journal.statuses()).toMatchObject([status('t1', 'said')]);
    // Long enough to be written anew.
    for (let index = 0; index < 20_000; index++) journal.setStatus(status('t1', `word ${index}`));
    const text = readFileSync(path, 'utf8');
    for (const [key] of lines) expect(text).toContain(`["${key}",`);
    expect(new Journal(journalFile(path)).items()).toEqual([newer]);
  });
});
