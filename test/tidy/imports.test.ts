/** Holds the import law of the design: who may import whom, and through which door the outside comes in. */
import { describe, expect, test } from 'vitest';
import { type Import, importsOf, occurrences, type SourceFile, sourceFiles } from '#test/support/source-tree.ts';

const files = sourceFiles();
const byPath = new Map(files.map((file) => [file.path, file]));
const isIn = (path: string, ...dirs: string[]) => dirs.some((dir) => path === dir || path.startsWith(`${dir}/`));
const roomOf = (path: string) => path.split('/')[0] ?? '';
const isTest = (file: SourceFile) => roomOf(file.path) === 'test';
const below = (...dirs: string[]) => files.filter((file) => isIn(file.path, ...dirs));

/** Imports of our own files that a rule refuses, as lines for people. */
function refused(
  of: readonly SourceFile[],
  allowed: (target: string, file: SourceFile, one: Import) => boolean,
): string[] {
  return of.flatMap((file) =>
    file.imports
      .filter((one) => one.ours && !allowed(one.target, file, one))
      .map((one) => `${file.path}:${one.line} imports ${one.target}`),
  );
}

const pureDirs = [
  'proto/model',
  'control-plane/compose',
  'control-plane/scheduler',
  'control-plane/reconcilers',
  'net/plan',
];
/** Files that decide: in a pure room, called decide, or saying of themselves that they are pure. */
const pure = files.filter(
  (file) =>
    isIn(file.path, ...pureDirs) ||
    (!isTest(file) &&
      (file.path.endsWith('/decide.ts') || /\bPure\b[.:;]/.test(file.text.slice(0, 600).split('*/')[0] ?? ''))),
);

describe('the rooms', () => {
  test('control plane and node agent meet only in proto', () => {
    expect([
      ...refused(below('control-plane'), (target) => !isIn(target, 'node-agent')),
      ...refused(below('node-agent'), (target) => !isIn(target, 'control-plane')),
    ]).toEqual([]);
  });

  test('proto and net know neither control plane nor node agent', () => {
    expect(refused(below('proto', 'net'), (target) => !isIn(target, 'control-plane', 'node-agent'))).toEqual([]);
    expect(refused(below('proto'), (target) => isIn(target, 'proto'))).toEqual([]);
  });

  test('nothing but tests imports tests', () => {
    expect(
      refused(
        files.filter((file) => !isTest(file)),
        (target) => !isIn(target, 'test'),
      ),
    ).toEqual([]);
  });

  test('the kernel imports nothing of ours, and the model only the kernel, and generated code from wire alone', () => {
    expect(refused(below('proto/kernel'), (target) => isIn(target, 'proto/kernel'))).toEqual([]);
    expect(
      refused(
        below('proto/model'),
        (target, file) =>
          isIn(target, 'proto/kernel', 'proto/model') ||
          (file.path === 'proto/model/wire.ts' && isIn(target, 'proto/gen')),
      ),
    ).toEqual([]);
  });

  test('net/plan imports only model and kernel, and is all of net that the control plane sees', () => {
    expect(refused(below('net/plan'), (target) => isIn(target, 'net/plan', 'proto/model', 'proto/kernel'))).toEqual([]);
    expect(refused(below('control-plane'), (target) => !isIn(target, 'net') || isIn(target, 'net/plan'))).toEqual([]);
  });

  test('the command line speaks only through proto', () => {
    expect(refused(below('control-plane/cli'), (target) => isIn(target, 'proto', 'control-plane/cli'))).toEqual([]);
  });

  test('only api, engine, dispatch, controllers and enrolment commit to the store', () => {
    const others = below('control-plane').filter(
      (file) =>
        !isIn(
          file.path,
          ...['api', 'engine', 'dispatch', 'controllers', 'store', 'security/enrol.ts'].map(
            (room) => `control-plane/${room}`,
          ),
        ),
    );
    expect(others.flatMap((file) => occurrences(file, /\bstore\.commit\(/))).toEqual([]);
  });
});

describe('pure rooms', () => {
  test('there are some, or the rule holds nothing', () => expect(pure.length).toBeGreaterThan(5));

  test('import no node module, clock, random or log', () => {
    const impure = pure.flatMap((file) =>
      file.imports
        .filter(
          (one) =>
            (one.target.startsWith('node:') && !isDeterministic(one, file)) ||
            /^proto\/kernel\/(clock|random|log)\.ts$/.test(one.target),
        )
        .map((one) => `${file.path}:${one.line} imports ${one.target}`),
    );
    expect(impure).toEqual([]);
  });

  /** Outside the pure rooms, a file that calls itself pure may join paths and hash. */
  function isDeterministic(one: Import, file: SourceFile): boolean {
    return !isIn(file.path, ...pureDirs) && (one.target === 'node:path' || one.target === 'node:crypto');
  }

  test('are synchronous and read no environment', () => {
    const pattern = /\b(async|await)\b|\bPromise\b|\bprocess\.|\bglobalThis\b|\bconsole\./;
    expect(pure.flatMap((file) => occurrences(file, pattern))).toEqual([]);
  });
});

describe('the outside', () => {
  const outside = /^(etcd3|nats|koffi|proto\/gen\/containerd\/.*)$/;
  /** What may be imported from elsewhere to reach the outside; whoever does is an adapter too. */
  const isDoor = (target: string, user: string) =>
    /^node-agent\/runtime\/(libc|children|processes|rootfs|tool)\.ts$/.test(target) ||
    /^(proto\/nats|control-plane\/nats-stream)\.ts$/.test(target) ||
    (isIn(target, 'net/host', 'net/doctor') && ['net', 'net/doctor'].includes(dirOf(user)));
  const dirOf = (path: string) => path.slice(0, path.lastIndexOf('/'));
  const adapters = findAdapters();

  test('is imported only by the assembling files, by tests and by its own room', () => {
    const users = files.filter((file) => !isTest(file) && !/\/assemble(-[a-z-]+)?\.ts$/.test(file.path));
    const wrong = refused(
      users,
      (target, file, one) =>
        one.typeOnly || !adapters.has(target) || isDoor(target, file.path) || dirOf(target) === dirOf(file.path),
    );
    expect(wrong).toEqual([]);
  });

  /** Files that import something of the outside, or such a file of their own directory, or a door. */
  function findAdapters(): Set<string> {
    const found = new Set(
      files
        .filter((file) => !isTest(file))
        .filter(
          (file) =>
            isIn(file.path, 'net/host') || file.imports.some((one) => !one.typeOnly && outside.test(one.target)),
        )
        .map((file) => file.path),
    );
    for (let size = -1; size !== found.size; ) {
      size = found.size;
      for (const file of files) {
        const reaches = (one: Import) =>
          !one.typeOnly &&
          found.has(one.target) &&
          (isDoor(one.target, file.path) || dirOf(one.target) === dirOf(file.path));
        if (!isTest(file) && file.imports.some(reaches)) found.add(file.path);
      }
    }
    return found;
  }

  test('time and randomness come through the kernel alone', () => {
    const doors = ['proto/kernel/clock.ts', 'proto/kernel/random.ts'];
    const pattern =
      /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(|\bMath\.random\(|(?<![.\w])(setTimeout|setInterval)\(|\brandom(UUID|Bytes|Int)\(/;
    const others = files.filter((file) => !doors.includes(file.path) && !isTest(file));
    expect(others.flatMap((file) => occurrences(file, pattern))).toEqual([]);
  });

  test('tests wait by eventually, never by sleeping', () => {
    const tests = files.filter((file) => file.path.endsWith('.test.ts'));
    expect(
      tests.flatMap((file) => occurrences(file, /(?<![.\w])setTimeout\(|\bsystemClock\.sleep\(|timers\/promises/)),
    ).toEqual([]);
  });

  test('no test may skip itself', () => {
    const tests = files.filter((file) => file.path.endsWith('.test.ts'));
    expect(tests.flatMap((file) => occurrences(file, /\.(skip|only|todo|skipIf|runIf)\b\s*\(/))).toEqual([]);
  });
});

describe('modules', () => {
  test('import files that exist', () => {
    expect(
      refused(files, (target) => byPath.has(target) || isIn(target, 'proto/gen') || target === 'package.json'),
    ).toEqual([]);
  });

  test('have no cycles', () => {
    expect(cycles()).toEqual([]);
  });

  test('are no barrels and export no default', () => {
    expect(files.filter((file) => /(^|\/)index\.ts$/.test(file.path)).map((file) => file.path)).toEqual([]);
    expect(files.flatMap((file) => occurrences(file, /^export\s+(\*|(type\s+)?\{[^}]*\}\s*from)/))).toEqual([]);
    expect(files.flatMap((file) => occurrences(file, /^export\s+default\b/))).toEqual([]);
  });

  test('cross a border by #room', () => {
    const crossing = files.flatMap((file) =>
      file.imports
        .filter(
          (one) =>
            one.specifier.startsWith('.') && one.target !== 'package.json' && roomOf(one.target) !== roomOf(file.path),
        )
        .map((one) => `${file.path}:${one.line} imports ${one.specifier}`),
    );
    expect(crossing).toEqual([]);
  });

  /** Each cycle once, as the path that closes it. Types alone do not count: they load nothing. */
  function cycles(): string[] {
    const found: string[] = [];
    const done = new Set<string>();
    const walk = (path: string, trail: readonly string[]) => {
      const start = trail.indexOf(path);
      if (start >= 0) {
        found.push([...trail.slice(start), path].join(' → '));
        return;
      }
      if (done.has(path)) return;
      for (const one of byPath.get(path)?.imports ?? [])
        if (one.ours && !one.typeOnly) walk(one.target, [...trail, path]);
      done.add(path);
    };
    for (const file of files) walk(file.path, []);
    return found;
  }
});

describe('the reader of imports', () => {
  test('sees static, type, multi-line, re-exported and dynamic imports, and none in comments', () => {
    const text = [
      "import { a } from './a.ts';",
      "import type { B } from '#proto/b.ts';",
      'import {',
      '  c,',
      "} from 'node:fs';",
      "export { d } from '../d.ts';",
      ['const e = await im', "port('./e.ts');"].join(''), // In one piece it would be read as an import of this file.
      "// import './never.ts';",
      "import 'reflect-metadata';",
    ].join('\n');
    const seen = importsOf('net/plan/x.ts', text).map((one) => [one.target, one.typeOnly]);
    expect(seen.sort()).toEqual([
      ['net/d.ts', false],
      ['net/plan/a.ts', false],
      ['net/plan/e.ts', false],
      ['node:fs', false],
      ['proto/b.ts', true],
      ['reflect-metadata', false],
    ]);
  });
});
