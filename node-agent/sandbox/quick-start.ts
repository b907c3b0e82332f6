/** `npm start [-- --managers 3]`: from nothing to three hosts that serve a first example, and what to try next. */
import { spawn } from 'node:child_process';
import { get } from 'node:http';
import { join } from 'node:path';
import { Command } from 'commander';
import { systemClock } from '#proto/kernel/clock.ts';
import { describe, Fault } from '#proto/kernel/errors.ts';
import { codeDir, controlPlaneSocket, firstManager } from './layout.ts';
import { installWrapper, wrapperPath } from './path-wrapper.ts';
import { pushSampleImage } from './sample-image.ts';
import { openSandbox } from './sandbox.ts';

const say = (text: string) => process.stdout.write(`${text}\n`);

/** Puts `gantry` on the PATH unless somebody else's file is there; returns how to call it. */
function callable(): string {
  const main = join(codeDir, 'control-plane/cli/main.ts');
  const cache = process.env.NODE_COMPILE_CACHE ?? join(codeDir, '.cache/node');
  if (installWrapper(wrapperPath, { node: process.execPath, main, cache })) return 'gantry';
  say(`${wrapperPath} is another program's and stays as it is; say "npm run gantry --" instead of "gantry"`);
  return 'npm run gantry --';
}

/** Runs the CLI as a user would, its output on this terminal. */
function gantry(args: readonly string[], socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(codeDir, 'control-plane/cli/main.ts'), ...args], {
      cwd: codeDir,
      stdio: 'inherit',
      env: { ...process.env, GANTRY_SOCKET: socket },
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else
        reject(
          new Fault('internal', `"gantry ${args.join(' ')}" ended with ${code}`, { remedy: 'its reason is above' }),
        );
    });
  });
}

/** One GET of `url`; rejects when nobody answers within 2 s. */
function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent: false, timeout: 2_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', reject);
      response.on('end', () => resolve(text.trim()));
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 2 s')));
    request.on('error', reject);
  });
}

async function untilAnswers(url: string): Promise<string> {
  const deadline = systemClock.monotonic() + 15_000;
  for (;;) {
    try {
      return await fetchText(url);
    } catch (cause) {
      if (systemClock.monotonic() < deadline) {
        await systemClock.sleep(100);
        continue;
      }
      throw new Fault('unavailable', `${url} does not answer: ${describe(cause)}`, {
        cause,
        remedy: 'gantry sandbox status',
      });
    }
  }
}

async function start(managers: number | undefined): Promise<void> {
  const sandbox = openSandbox();
  say('Starting three hosts on this machine …');
  const status = await sandbox.up({
    ...(managers !== undefined && { managers }),
    onProgress: (text) => say(`  ${text}`),
  });
  const command = callable();
  say(`Pushed ${await pushSampleImage(sandbox, 'hello:1')} to the sandbox's registry.`);
  await pushSampleImage(sandbox, 'hello:2');
  say(`$ ${command} apply -f examples/hello.yaml`);
  await gantry(['apply', '-f', 'examples/hello.yaml'], controlPlaneSocket(sandbox.layout, firstManager));
  say('$ curl http://127.0.0.1:8080/');
  await untilAnswers('http://127.0.0.1:8080/');
  for (const _ of status.ready) say(await fetchText('http://127.0.0.1:8080/'));
  const next: readonly (readonly [string, string])[] = [
    ['ps', 'what runs where'],
    ['scale hello=12', 'spread over the hosts'],
    ['logs -f hello', 'of all replicas'],
    ['exec -it hello.3 sh', 'a shell in one of them'],
    ['why hello.2', 'why it sits where it sits'],
    ['sandbox kill h3', 'pull the plug of a host, then watch: ps, events -f'],
    ['sandbox start h3', 'and switch it on again'],
    ...(managers === undefined || managers < 2 ? [] : ([['sandbox kill m1', 'a manager, too']] as const)),
    ['rm hello', 'remove the service'],
    [
      'sandbox push app:1 --from FILE',
      "an image of yours (docker save): registry:5000/app:1 in your Compose file's image:",
    ],
    ['sandbox down', 'end it all, leaving nothing behind'],
  ];
  say('\nThe cluster keeps running. Try:');
  for (const [args, what] of next) say(`  ${`${command} ${args}`.padEnd(command.length + 33)}${what}`);
}

try {
  const { managers } = new Command('npm start --')
    .option('--managers <count>', 'how many managers: 1 (default), 3 or 5')
    .parse()
    .opts<{ managers?: string }>();
  await start(managers === undefined ? undefined : Number(managers));
  process.exit(0);
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  process.stderr.write(`${describe(error)}\n`);
  process.exit(1);
}
