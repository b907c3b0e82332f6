/** Whether a host's kernel lives, asked of real kernels in namespaces of their own, with firewalls in the way. */
import { execFileSync } from 'node:child_process';

import { afterAll, beforeAll, expect, it } from 'vitest';

const [near, far] = [`gp${process.pid}n`, `gp${process.pid}f`];
const host = '198.18.77.2';
const run = (text: string) => execFileSync('sh', ['-c', text]).toString();
const there = (...lines: readonly string[]) => lines.map((line) => run(`ip netns exec ${far} ${line}`)).join('');
/** What arrives at the host and is of these kinds is dropped from now on. */
const drops = (...kinds: readonly string[]) => {
  const rules = kinds.map((kind) => `${kind} drop; `).join('');
  there('nft flush ruleset', `nft 'table inet t { chain c { type filter hook input priority 0; ${rules}}; }'`);
};
const program = new URL('../../support/probing-process.ts', import.meta.url).pathname;
/** What the probes of it say, asked `count` at once. */
const probes = (count = 1): { readonly answers: readonly boolean[]; readonly children: number } =>
  JSON.parse(run(`ip netns exec ${near} ${process.execPath} ${program} ${host} ${count}`));

beforeAll(() => {
  for (const name of [near, far]) run(`ip netns add ${name}`);
  run(`ip -n ${near} link add e0 type veth peer name e0 netns ${far}`);
  for (const [name, last] of [
    [near, 1],
    [far, 2],
  ] as const)
    run(
      `ip -n ${name} addr add 198.18.77.${last}/30 dev e0; ip -n ${name} link set e0 up; ip -n ${name} link set lo up`,
    );
});
afterAll(() => {
  for (const name of [near, far]) run(`ip netns del ${name}`);
});

it('is answered by a kernel at once, which refuses the connection', () => {
  drops();
  expect(probes()).toMatchObject({ answers: [true], children: 0 });
});

it('is answered where a firewall drops every connection, by an echo', () => {
  drops('ip protocol tcp');
  expect(probes(3)).toMatchObject({ answers: [true, true, true], children: 0 });
});

it('is answered where a firewall drops echoes', () => {
  drops('ip protocol icmp');
  expect(probes().answers).toEqual([true]);
});

it('is answered by nobody where all is dropped, or no host is there, and leaves no process behind', () => {
  drops('ip protocol tcp', 'ip protocol icmp');
  expect(probes(12)).toMatchObject({ answers: Array(12).fill(false), children: 0 });
  run(`ip -n ${far} link set e0 down`);
  try {
    expect(probes(2)).toMatchObject({ answers: [false, false], children: 0 });
  } finally {
    run(`ip -n ${far} link set e0 up`);
  }
});
