/** What a user gets of rollouts: nobody who asks notices one, a canary waits, what fails goes back and says why, and history knows it all. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { rolloutUnderLoad } from '#test/support/rollout-load.ts';

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

test('two hundred requests a second all succeed during updates, a rollback, an image that never becomes healthy, and scalings', async () => {
  const { load, revertedAfterMs } = await rolloutUnderLoad(
    cluster,
    { updates: 3, rollbacks: 1, badImages: 1, scalings: 1 },
    { log: (line) => console.log(line) },
  );
  // How long it may take is a matter for a machine that does nothing else: npm run chaos:rollout.
  console.log(load, revertedAfterMs);
  expect(load.bad).toEqual([]);
  expect(load.good).toBe(load.asked);
  expect(load.asked).toBeGreaterThan(3_000);
}, 240_000);

describe('a canary', () => {
  const front = (image: string, hold: string) => `
name: demo
services:
  front:
    image: registry:5000/hello:${image}
    ports: ["18091:8080"]
    environment: { MOTTO: "image ${image}", API_TOKEN: "token-of-${image}" }
    deploy:
      replicas: 4
      update_config: { order: start-first, monitor: 500ms, parallelism: 4, x-canary: { count: 25%, hold: ${hold} } }
`;
  const apply = (text: string) => cluster.gantry('apply', '-f', cluster.compose('front.yaml', text));
  const images = async () => {
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) => cluster.http(`http://10.90.0.${1 + (index % 3)}:18091/`)),
    );
    return new Set(answers.map((answer) => /version (\w+)/.exec(answer)?.[1]));
  };

  test('serves its share until somebody lets the others follow', async () => {
    await cluster.apply(front('1', 'manual'));
    const { code, stdout } = await apply(front('2', 'manual'));
    expect(code, stdout).toBe(0);
    expect(stdout).toContain('canary: 1 of 4 seats run revision 2; gantry rollout resume front');
    expect(await images()).toEqual(new Set(['1', '2']));
    const status = (await cluster.gantry('rollout', 'status', 'front')).stdout;
    expect(status).toMatch(/front is at version 2, held/);
    expect(status.match(/the gate to be opened/g)).toHaveLength(3);
    expect(status).toMatch(/canary at 25% +1 +here +gantry rollout resume front/);
    expect((await cluster.gantry('rollout', 'resume', 'front')).code).toBe(0);
    expect(await images()).toEqual(new Set(['2']));
  });

  test('that fails reverts, says what failed, and is not gone back to by accident', async () => {
    const { code, stdout, stderr } = await apply(front('broken', '5s'));
    expect(code).toBe(1);
    expect(`${stdout}${stderr}`).toMatch(/rolled back: .*canary front\.\d .* of revision 3 on h\d: exit code 1/);
    await cluster.settled('front', 4);
    expect(await images()).toEqual(new Set(['2']));
    const again = await cluster.gantry('rollback', 'front');
    expect(again.code).toBe(1);
    expect(again.stderr).toMatch(/went back already, from version 3 .*exit code 1.* to 4/);
    expect(again.stderr).toContain('gantry rollback front --to 3');
  });

  test('history has every version, what it changed and how it ended, and any of them can be had again', async () => {
    const { stdout } = await cluster.gantry('history', 'front');
    expect(stdout).toMatch(/4 .* completed {2}to version 2: canary front.* ← now/);
    expect(stdout).toMatch(/3 .* rolled-back {2}applied/);
    expect(stdout).toContain('image: registry:5000/hello:1 → registry:5000/hello:2');
    expect(stdout).toContain('environment: MOTTO image 1 → image 2');
    expect(stdout).toContain('environment: API_TOKEN changed');
    expect(stdout).not.toContain('token-of-');
    const rollback = await cluster.gantry('rollback', 'front', '--to', '1');
    expect(rollback.code, rollback.stdout + rollback.stderr).toBe(0);
    expect(await images()).toEqual(new Set(['1']));
  });

  test('a change that needs no new task makes none', async () => {
    const before = (await cluster.settled('front', 4)).map(({ id }) => id).sort();
    const text = front('1', '9s').replace('replicas: 4', 'replicas: 4\n      labels: { tier: front }');
    expect((await apply(text)).code).toBe(0);
    expect((await cluster.settled('front', 4)).map(({ id }) => id).sort()).toEqual(before);
  });
});
