/** Runs every suite in order, shows progress, and ends with one line that a machine can count: `N passed, N failed`. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { systemClock } from '#proto/kernel/clock.ts';

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What failed and how, a test each: said again at the end, where a long run is read first. */
  readonly failures?: readonly string[];
}

interface Suite {
  readonly name: string;
  readonly run: () => Promise<Counts>;
}

/** The part of vitest's JSON report that is counted. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly success: boolean;
  readonly testResults: readonly ReportedFile[];
}

interface ReportedFile {
  readonly name: string;
  readonly status: string;
  readonly message: string;
  readonly assertionResults: readonly {
    readonly fullName: string;
    readonly status: string;
    readonly failureMessages: readonly string[] | null;
  }[];
}

/** Of a failed test's message: enough to know what went wrong, while many failures still fit one screen. */
const MESSAGE_LINES = 20;

const root = join(import.meta.dirname, '..');
const pure = ['--pool=forks', '--no-isolate'];
/** Files with real parts wait more than they work; more of them at once would change what their stories measure. */
const oneFileAtATime = ['--pool=forks', '--no-file-parallelism'];
const twoFilesAtATime = ['--pool=forks', '--maxWorkers=2'];

const suites: readonly Suite[] = [
  { name: 'types', run: () => tool('tsc', []) },
  { name: 'style', run: () => tool('biome', ['check', '--error-on-warnings', '.']) },
  { name: 'generated', run: generatedIsCurrent },
  ...['tidy', 'unit', 'property'].map((name) => ({ name, run: () => vitest(name, pure) })),
  { name: 'contract', run: () => vitest('contract', twoFilesAtATime) },
  ...['scenario', 'sim'].map((name) => ({ name, run: () => vitest(name, pure) })),
  { name: 'integration', run: () => vitest('integration', [...twoFilesAtATime, '--exclude=test/integration/load/**']) },
  // These count requests that fail, for want of a processor too: they have the machine for themselves.
  { name: 'integration/load', run: () => vitest('integration/load', oneFileAtATime) },
];

/** Runs a program of node_modules/.bin as one test. */
async function tool(program: string, args: readonly string[]): Promise<Counts> {
  return (await ends(program, args)) === 0
    ? { passed: 1, failed: 0, skipped: 0 }
    : { passed: 0, failed: 1, skipped: 0 };
}

/** Generates into another directory and compares: what is committed must be what the .proto files say. */
async function generatedIsCurrent(): Promise<Counts> {
  const dir = mkdtempSync(join(tmpdir(), 'gantry-gen-'));
  try {
    const generated = await tool('buf', ['generate', '--output', dir]);
    if (generated.failed > 0) return generated;
    return await tool('diff', ['--recursive', '--brief', join(dir, 'proto/gen'), join(root, 'proto/gen')]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function vitest(suite: string, args: readonly string[]): Promise<Counts> {
  const dir = join(root, 'test', suite);
  if (!existsSync(dir)) return { passed: 0, failed: 0, skipped: 0 };
  const report = mkdtempSync(join(tmpdir(), 'gantry-test-'));
  const file = join(report, 'report.json');
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
    const code = await ends('vitest', ['run', `${relative(root, dir)}/`, '--passWithNoTests', ...reporters, ...args]);
    return countsOf(suite, file, code);
  } finally {
    rmSync(report, { recursive: true, force: true });
  }
}

/** A file that did not load counts as a failed test, and so does a run that failed for a reason no test shows. */
function countsOf(suite: string, file: string, code: number): Counts {
  if (!existsSync(file)) return { passed: 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
  const unloaded = report.testResults.filter(
    (one) => one.status === 'failed' && one.assertionResults.length === 0,
  ).length;
  const failed = report.numFailedTests + unloaded;
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && code !== 0 ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests,
    failures:
      failed === 0 && code !== 0
        ? [`${suite}: no test failed, and vitest ended with ${code}: see its Unhandled Errors`]
        : report.testResults.filter((one) => one.status === 'failed').flatMap(failuresOf),
  };
}

function failuresOf(file: ReportedFile): readonly string[] {
  const where = relative(root, file.name);
  if (file.assertionResults.length === 0) return [`${where}\n${beginningOf(file.message)}`];
  return file.assertionResults
    .filter((test) => test.status === 'failed')
    .map((test) => `${where} › ${test.fullName}\n${beginningOf((test.failureMessages ?? []).join('\n'))}`);
}

function beginningOf(message: string): string {
  const lines = message.split('\n').filter((line) => !line.includes('/node_modules/'));
  const more = lines.length > MESSAGE_LINES ? ['…'] : [];
  return [...lines.slice(0, MESSAGE_LINES), ...more].map((line) => `    ${line}`).join('\n');
}

function ends(program: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: root, stdio: 'inherit' });
    child.on('error', (error) => {
      process.stderr.write(`${program}: ${error.message}\n`);
      resolve(127);
    });
    child.on('close', (code) => resolve(code ?? 1));
  });
}

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !suites.some((suite) => suite.name === name));
if (unknown.length > 0) {
  process.stderr.write(`no suite ${unknown.join(', ')}; there are ${suites.map((suite) => suite.name).join(', ')}\n`);
  process.exit(2);
}
const total = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];
for (const suite of suites.filter((one) => chosen.length === 0 || chosen.includes(one.name))) {
  const startedAt = systemClock.monotonic();
  process.stdout.write(`\n── ${suite.name}\n`);
  const counts = await suite.run();
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
  failures.push(...(counts.failures ?? (counts.failed > 0 ? [suite.name] : [])));
  const seconds = ((systemClock.monotonic() - startedAt) / 1_000).toFixed(1);
  process.stdout.write(`── ${suite.name}: ${counts.passed} passed, ${counts.failed} failed in ${seconds} s\n`);
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
if (failures.length > 0) process.stdout.write(`\nFailed:\n\n${failures.join('\n\n')}\n`);
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed${skipped}\n`);
process.exitCode = total.failed > 0 ? 1 : 0;
