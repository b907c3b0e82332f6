/** What a user gets of rollouts: nobody who asks notices one, a canary waits, what fails goes back and says why, and history knows it all. */
import { availableParallelism } from 'node:os';
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

describe('an update that stops first', () => {
  const text = (image: string, deploy: string, published = 18092) => `
name: demo
services:
  back:
    image: registry:5000/hello:${image}
    ports: ["${published}:8080"]
    deploy: { replicas: 3, ${deploy} }
`;
  const apply = (image: string, deploy: string) =>
    cluster.gantry('apply', '-f', cluster.compose('back.yaml', text(image, deploy)));
  const ids = async () => (await cluster.settled('back', 3)).map(({ id }) => id).sort();

  test('to a mistyped tag stops nothing: all old tasks answer, apply says which image is not there, and goes back', async () => {
    const policy = 'update_config: { failure_action: rollback, parallelism: 0 }';
    expect((await apply('1', policy)).code).toBe(0);
    const before = await ids();
    const answers = new Set<string>();
    let asks = true;
    const asking = (async () => {
      while (asks) answers.add(await cluster.http('http://10.90.0.1:18092/'));
    })();
    const { code, stdout } = await apply('mistyped', policy);
    asks = false;
    await asking;
    expect(code, stdout).toBe(1);
    expect(stdout).toMatch(/rolled back: .*back\.\d \(\w+\) of revision 2 on h\d: .*hello:mistyped/);
    expect(await ids()).toEqual(before);
    expect([...answers].map((answer) => /version (\w+)/.exec(answer)?.[1])).toEqual(['1', '1', '1']);
    expect((await cluster.tasks('back', '-a')).filter(({ state }) => state === 'running')).toHaveLength(3);
  });

  test('that is paused by it goes on with the right one, and so does a restart', async () => {
    const paused = await apply('mistyped', 'update_config: { failure_action: pause }');
    expect(paused.code).toBe(1);
    expect(paused.stdout).toMatch(/the rollout stopped: back\.1 .* on h\d: .*hello:mistyped/);
    const before = await ids();
    expect((await apply('2', 'update_config: { failure_action: pause, monitor: 500ms }')).code).toBe(0);
    expect((await ids()).filter((id) => before.includes(id))).toEqual([]);
    expect(await cluster.http('http://10.90.0.2:18092/')).toContain('version 2');
    expect((await cluster.gantry('restart', 'back')).code).toBe(0);
  });

  test('of a service with a fixed address leaves it to the old task until the new image is there', async () => {
    const fixed = (image: string) => `
name: demo
services:
  fixed:
    image: registry:5000/hello:${image}
    ports: ["18094:8080"]
    networks: { lane: { ipv4_address: 10.66.0.9 } }
    deploy: { update_config: { failure_action: rollback, monitor: 500ms } }
networks:
  lane: { ipam: { config: [{ subnet: 10.66.0.0/24 }] } }
`;
    await cluster.apply(fixed('1'));
    const [old] = await cluster.settled('fixed', 1);
    const wrong = await cluster.gantry('apply', '-f', cluster.compose('fixed.yaml', fixed('mistyped')));
    expect(wrong.code).toBe(1);
    expect(wrong.stdout).toMatch(/rolled back: .*hello:mistyped/);
    expect(await cluster.settled('fixed', 1)).toMatchObject([{ id: old!.id }]);
    expect(await cluster.http('http://10.90.0.1:18094/')).toContain('version 1');
    await cluster.apply(fixed('2'));
    await cluster.settled('fixed', 1);
    expect(await cluster.http('http://10.90.0.3:18094/')).toContain('version 2');
    const { stdout } = await cluster.gantry('exec', 'fixed.1', 'ip', 'address');
    expect(stdout).toContain('10.66.0.9');
  });

  test('needs no room for both on the one node that it may be on', async () => {
    const full = (motto: string) => `
name: demo
services:
  full:
    image: registry:5000/hello:1
    environment: { MOTTO: ${motto} }
    ports: [{ target: 8080, published: 18093, mode: host }]
    deploy:
      placement: { constraints: [node.hostname == h2] }
      resources: { reservations: { cpus: "${availableParallelism() * 0.9}" } }
      update_config: { monitor: 500ms }
`;
    await cluster.apply(full('one'));
    const [old] = await cluster.settled('full', 1);
    await cluster.apply(full('two'));
    const [next] = await cluster.settled('full', 1);
    expect(next!.id).not.toBe(old!.id);
    expect(await cluster.http('http://10.90.0.2:18093/')).toContain('version 1');
  });
});
