/** Users outside reach a service by any host, and are known to it by their own address. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

/** busybox listens by IPv6, and writes the address of its client so. */
const you = 'you are [::ffff:10.90.0.254]';
let cluster: Cluster;

/** A web server that answers with the address of who asks. */
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
        exec busybox httpd -f -p 8080 -h /www
    ports: ["18070:8080"]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/cgi-bin/who"]
      interval: 1s
      start_interval: 100ms
      start_period: 3s
    stop_grace_period: 1s
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
