/** Users outside reach a service by any host, are known to it by their own address, and notice nothing of what happens inside. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

/** busybox listens by IPv6, and writes the address of its client so. */
const you = 'you are [::ffff:10.90.0.254]';
let cluster: Cluster;

/** A web server that answers with the address of who asks; told to stop, it serves on until every node has heard of it. */
const service = (replicas: number) => `
name: who
services:
  who:
    image: registry:5000/hello:1
    entrypoint:
      - sh
      - -c
      - |
        mkdir -p /www/cgi-bin
        echo '#!/bin/sh' > /www/cgi-bin/who
        echo 'printf "Content-Type: text/plain\\r\\n\\r\\nyou are $$REMOTE_ADDR\\n"' >> /www/cgi-bin/who
        chmod 755 /www/cgi-bin/who
        trap 'sleep 3; exit 0' TERM
        busybox httpd -f -p 8080 -h /www &
        wait
    ports: ["18070:8080"]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/cgi-bin/who"]
      interval: 1s
      start_interval: 100ms
      start_period: 3s
    stop_grace_period: 8s
    deploy: { replicas: ${replicas} }
`;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

test("a task sees its client's address by every host, wherever it runs", async () => {
  await cluster.apply(service(1));
  const [task] = await cluster.settled('who', 1);
  for (const index of [1, 2, 3]) {
    const answer = await eventually(() => cluster.http(`http://10.90.0.${index}:18070/cgi-bin/who`));
    expect(answer, `by h${index} to ${task?.node}`).toContain(you);
  }
});

test('two hundred requests a second by three hosts all succeed while the service is scaled and agents are killed', async () => {
  expect((await cluster.gantry('scale', 'who=3')).code).toBe(0);
  await cluster.settled('who', 3);
  const load = cluster.sandbox.run('world', [
    process.execPath,
    '-e',
    `const http = require('http'); let asked = 0, good = 0; const bad = {};
     const fail = (why) => { bad[why] = (bad[why] ?? 0) + 1; };
     const timer = setInterval(() => {
       const host = '10.90.0.' + (1 + asked++ % 3);
       const request = http.get({ host, port: 18070, path: '/cgi-bin/who', agent: false, timeout: 4000 }, (answer) => {
         let text = ''; answer.on('data', (data) => { text += data; });
         answer.on('error', (error) => fail(host + ' ' + error.code));
         answer.on('end', () => text.includes('${you}') ? good++ : fail(host + ' ' + answer.statusCode + ' ' + text));
       });
       request.on('timeout', () => request.destroy(Object.assign(new Error(), { code: 'timeout' })));
       request.on('error', (error) => fail(host + ' ' + error.code));
     }, 5);
     setTimeout(() => { clearInterval(timer); setTimeout(() => {
       console.log(JSON.stringify({ asked, good, bad })); process.exit(); }, 5000); }, 22000);`,
  ]);
  for (const [round, replicas] of [6, 2, 5].entries()) {
    expect((await cluster.gantry('scale', `who=${replicas}`)).code).toBe(0);
    await cluster.settled('who', replicas);
    const host = `h${round + 1}`;
    await cluster.sandbox.run(host, ['sh', '-c', "kill -9 $(pgrep -f '[n]ode-agent/main.ts')"]);
    await cluster.nodeIs(host, 'ready');
  }
  const { asked, good, bad } = JSON.parse(await load);
  expect(bad).toEqual({});
  expect(good).toBe(asked);
  expect(asked).toBeGreaterThan(1000);
}, 90_000);
