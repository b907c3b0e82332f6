/** A user at a terminal: exec with its size, its keys and its end; following logs and events until Ctrl-C. */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(1);
  await cluster.apply('name: term\nservices: { term: { image: "registry:5000/hello:1" } }\n');
});
afterAll(() => cluster?.close());

/** Of the shell in the container, which then asks where the cursor is. */
const prompt = /\/ # (\x1b\[6n)?$/;

/** A shell line on a pseudo-terminal of `script`, 33 rows of 101 columns; `gantry` in it is the CLI. */
function terminal(line: string) {
  const gantry = `gantry() { ${cluster.cli.line.map((word) => `'${word}'`).join(' ')} "$@"; }`;
  const child = spawn('script', ['-qefc', `trap : INT; stty rows 33 cols 101; ${gantry}; ${line}`, '/dev/null'], {
    env: { ...cluster.cli.env, TERM: 'xterm', SHELL: '/bin/sh' },
  });
  let shown = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text;
  });
  child.stdin.on('error', () => {});
  const ended = new Promise<string>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve(shown));
  });
  return {
    type: (keys: string) => void child.stdin.write(keys),
    /** As when its window is closed. */
    hangUp: () => void child.kill('SIGKILL'),
    ended,
    /** Waits for what is printed from here on. */
    async shows(pattern: RegExp) {
      const from = shown.length;
      await eventually(() => {
        if (!pattern.test(shown.slice(from))) throw new Error(`not shown: ${pattern} in ${JSON.stringify(shown)}`);
        return true;
      });
    },
    /** Types a line and waits for what follows it. */
    async enter(text: string, pattern: RegExp) {
      const shows = this.shows(pattern);
      child.stdin.write(`${text}\r`);
      await shows;
    },
  };
}

describe('gantry exec -it', () => {
  test('is a shell in the container: prompt, size, Ctrl-C, exit code, and the terminal as it was before', async () => {
    const resize = join(cluster.sandbox.layout.dir, 'resize');
    const resizer = `(until [ -s ${resize} ]; do sleep 0.05; done; stty rows 20 cols 90 < /dev/tty) &`;
    const after = 'echo "ended with $?"; stty -a | tr ";" "\\n" | grep -o -- "-*icanon\\|-*echo\\b" | tr "\\n" " "';
    const user = terminal(`${resizer} gantry exec -it term.1 sh; ${after}`);
    await user.shows(prompt);
    await user.enter('stty size', /33 101/);
    const redrawn = user.shows(/\r\/ # \x1b\[J$/);
    writeFileSync(resize, 'now');
    await redrawn;
    await user.enter('stty size', /20 90/);
    await user.enter('echo sl""eeps; sleep 1000', /sleeps\r\n/);
    const again = user.shows(prompt);
    user.type('\x03');
    await again;
    await user.enter('hostname; tty', /\/dev\/(pts|console)/);
    user.type('exit 7\r');
    const shown = await user.ended;
    expect(shown).toContain('ended with 7');
    expect(shown).toMatch(/ended with 7\s+icanon echo/);
  });

  test('leaves the command alone at the detach keys', async () => {
    const user = terminal('gantry exec -it term.1 sh; echo "ended with $?"');
    await user.shows(prompt);
    await user.enter("sh -c 'echo begun; while :; do date > /tmp/beat; sleep 0.1; done'", /begun\r\n/);
    user.type('\x10\x11');
    expect(await user.ended).toMatch(/detached.*ended with 0/s);
    const beat = async () => (await cluster.gantry('exec', 'term.1', 'stat', '-c', '%Y', '/tmp/beat')).stdout;
    const first = await beat();
    await eventually(async () => (await beat()) !== first);
  });

  test('ends its command when the user is gone', async () => {
    const user = terminal('gantry exec -it term.1 sh -c "echo begun; exec sleep 4321"');
    await user.shows(/begun/);
    const ps = async () => (await cluster.gantry('exec', 'term.1', 'ps')).stdout;
    expect(await ps()).toContain('sleep 4321');
    user.hangUp();
    await eventually(async () => !(await ps()).includes('sleep 4321'));
  });

  test('without -t keeps both outputs apart and takes a pipe', async () => {
    const ran = await cluster.feed('one\ntwo\n', 'exec', '-i', 'term.1', 'sh', '-c', 'wc -l; echo bad >&2; exit 3');
    expect(ran).toEqual({ code: 3, stdout: '2\n', stderr: 'bad\n' });
  });
});

describe('following', () => {
  test.for(['logs -f term', 'events -f --since 1h', 'logs -f --json term'])(
    'gantry %s ends at Ctrl-C without a word',
    async (line) => {
      const user = terminal(`gantry ${line}; echo "ended with $?"`);
      await user.shows(/term/);
      user.type('\x03');
      const shown = await user.ended;
      expect(shown).toContain('ended with 0');
      expect(shown).not.toMatch(/Error|at .*\.ts:/);
    },
  );
});
